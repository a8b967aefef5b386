"""Signing keys that another system made: read from JWK or PEM, and refused where they are weak or do not fit."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt import PyJWK
from jwt.exceptions import InvalidKeyError, PyJWKError

from keyturn.contract.encoding import unb64url
from keyturn.contract.errors import MalformedInput
from keyturn.contract.jwk import ALGORITHMS, PRIVATE_MEMBERS, PrivateKey, PublicKey, load_public, public_jwk, thumbprint
from keyturn.contract.weakness import check_names, check_rsa

MOST_KEYS = 16
LONGEST_PEM = 32 * 1024
LONGEST_KID = 128
_KID = re.compile(r"(?!\.{1,2}$)[\x21-\x7e]{1,128}")
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,64})-----.*?-----END \1-----", re.DOTALL)
_DEFAULT_ALGORITHMS: Mapping[str, str] = {"P-256": "ES256", "P-384": "ES384", "Ed25519": "EdDSA", "RSA": "RS256"}

Written: TypeAlias = Mapping[str, Any] | str
"""One key as somebody wrote it: the members of a JWK, or a PEM block."""


class ForeignKey(NamedTuple):
    """A key that may be imported; `jwk` has the bare public members, `private` is None where only those were told."""

    kid: str
    alg: str
    jwk: dict[str, str]
    private: PrivateKey | None


def pem_blocks(text: str) -> list[str]:
    """Return the PEM blocks of a file; raises MalformedInput if there is none, or one that is no key."""
    found = [match for match in _PEM.finditer(text[: LONGEST_PEM * MOST_KEYS]) if match[1] != "EC PARAMETERS"]
    if not found:
        raise MalformedInput("neither JSON nor PEM: bring a PEM file, a JWK or a JWK set")
    return [_plain_pem(match[1], match[0]) for match in found]


def _plain_pem(label: str, block: str) -> str:
    if "ENCRYPTED" in label or "Proc-Type: 4,ENCRYPTED" in block:
        raise MalformedInput("the PEM key is encrypted: write it out in the clear, `openssl pkey -in FILE`, mode 600")
    if label == "CERTIFICATE":
        raise MalformedInput("a certificate is no key: take the key out, `openssl x509 -in FILE -pubkey -noout`")
    if not label.endswith(("PUBLIC KEY", "PRIVATE KEY")) or label.startswith("OPENSSH"):
        raise MalformedInput(f"a PEM block {label!r} is no key: bring PUBLIC KEY or PRIVATE KEY")
    return block


def read_keys(
    written: Sequence[Written], *, alg: str | None = None, kid: str | None = None
) -> tuple[list[ForeignKey], list[str]]:
    """Return the keys that sign, and the kids of those that were left out since they are for encryption.

    `alg` holds for those that name none; `kid` names a lone key that has no name, or chooses one among several.
    Raises MalformedInput with the mend: for weak keys, two with one kid, public and private ones mixed, symmetric
    ones, and a type or curve that does not fit the algorithm.
    """
    if not 0 < len(written) <= MOST_KEYS:
        raise MalformedInput(f"bring 1 to {MOST_KEYS} keys at a time")
    if len({_is_private(one) for one in written}) > 1:
        raise MalformedInput("public and private keys are mixed: bring either, so that no private one slips in")
    signing = [one for one in written if not _encrypts(one)]
    left_out = [str(one.get("kid", "")) for one in written if isinstance(one, Mapping) and _encrypts(one)]
    check_names([str(one["kid"]) for one in written if isinstance(one, Mapping) and one.get("kid") is not None])
    if len(written) > 1 and kid is not None:
        signing = [one for one in signing if isinstance(one, Mapping) and one.get("kid") == kid]
        if not signing:
            raise MalformedInput(f"no signing key among these has the kid {kid!r}")
    if not signing:
        raise MalformedInput("none of these keys is for signatures")
    keys = [_read(one, alg=alg, kid=kid) for one in signing]
    check_names([key.kid for key in keys])
    return keys, left_out


def _is_private(one: Written) -> bool:
    return "PRIVATE KEY-----" in one if isinstance(one, str) else bool(PRIVATE_MEMBERS & one.keys())


def _encrypts(one: Written) -> bool:
    return isinstance(one, Mapping) and one.get("use") == "enc"


def _read(one: Written, *, alg: str | None, kid: str | None) -> ForeignKey:
    if isinstance(one, str):
        public, private, named = *_from_pem(one), None
        told_alg = None
    else:
        public, private = _from_jwk(one)
        named, told_alg = one.get("kid"), one.get("alg")
    if named is not None and kid is not None and named != kid:
        raise MalformedInput(f"the key's own kid is {named!r}: leave kid out, or tokens that name it would not verify")
    jwk = public_jwk(public)
    name = named if named is not None else kid if kid is not None else thumbprint(jwk)
    if not isinstance(name, str) or _KID.fullmatch(name) is None:
        raise MalformedInput(f"a kid has 1 to {LONGEST_KID} visible ASCII characters")
    chosen = _algorithm(jwk, told=told_alg, asked=alg, kid=name)
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        check_rsa(numbers.n, numbers.e)
    load_public(jwk, chosen)
    return ForeignKey(name, chosen, jwk, private)


def _algorithm(jwk: Mapping[str, str], *, told: object, asked: str | None, kid: str) -> str:
    if told is not None and asked is not None and told != asked:
        raise MalformedInput(f"key {kid!r} says that it is for {told!r}, not {asked}: leave alg out")
    chosen = told if told is not None else asked or _DEFAULT_ALGORITHMS[jwk.get("crv", jwk["kty"])]
    if not isinstance(chosen, str) or chosen not in ALGORITHMS:
        raise MalformedInput(f"key {kid!r} is for {chosen!r}: we sign and verify by {', '.join(ALGORITHMS)}")
    return chosen


def _from_jwk(jwk: Mapping[str, Any]) -> tuple[PublicKey, PrivateKey | None]:
    kty, crv = jwk.get("kty"), jwk.get("crv")
    if kty == "oct" or "k" in jwk:
        raise MalformedInput("a symmetric key (HMAC) lets each verifier sign: bring an asymmetric one")
    known = {"RSA": (None,), "EC": ("P-256", "P-384"), "OKP": ("Ed25519",)}
    if not isinstance(kty, str) or kty not in known:
        raise MalformedInput(f"kty {kty!r} is not one of RSA, EC, OKP")
    if crv not in known[kty]:
        raise MalformedInput(f"curve {crv!r} is not one that we use: P-256, P-384 and Ed25519 are")
    if kty == "RSA":  # Before anything is computed with it: libraries say only that it is invalid.
        check_rsa(_number(jwk, "n"), _number(jwk, "e"))
    if "oth" in jwk:
        raise MalformedInput("an RSA key of more than two primes is not one that we use")
    fits = _DEFAULT_ALGORITHMS[crv or "RSA"]
    try:
        key = PyJWK(dict(jwk), algorithm=fits).key
    except (InvalidKeyError, PyJWKError, ValueError, TypeError, KeyError, UnsupportedAlgorithm) as error:
        raise MalformedInput("the JWK's members do not make a key") from error
    if not PRIVATE_MEMBERS & jwk.keys():
        return cast("PublicKey", key), None
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        raise MalformedInput("the JWK has some private members, and not those that make a private key")
    public = key.public_key()
    if kty == "OKP" and jwk.get("x") != public_jwk(public)["x"]:  # For the other types the library looks at it.
        raise MalformedInput("the public half of the JWK does not belong to its private half")
    return public, key


def _number(jwk: Mapping[str, Any], name: str) -> int:
    value = jwk.get(name)
    if not isinstance(value, str):
        raise MalformedInput(f"an RSA key has the member {name}")
    return int.from_bytes(unb64url(value), "big")


def _from_pem(text: str) -> tuple[PublicKey, PrivateKey | None]:
    (block, *more) = pem_blocks(text)
    if more:
        raise MalformedInput("one PEM block for each key")
    raw = block.encode("utf-8", "replace")
    try:
        if "PRIVATE KEY" in block.partition("\n")[0]:
            private = load_pem_private_key(raw, password=None)
            if isinstance(private, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
                return _of_our_curves(private.public_key()), private
        else:
            public = load_pem_public_key(raw)
            if isinstance(public, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
                return _of_our_curves(public), None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedInput("the PEM block does not hold a key that can be used") from error
    raise MalformedInput("the PEM block holds a key of a type that signs no token: bring RSA, EC or Ed25519")


def _of_our_curves(key: PublicKey) -> PublicKey:
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        raise MalformedInput(f"curve {key.curve.name} is not one that we use: P-256, P-384 and Ed25519 are")
    return key
