"""JSON Web Keys, public and private, for the algorithms that we use (RFC 7517, RFC 7518, RFC 8037)."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt import PyJWK
from jwt.algorithms import Algorithm, ECAlgorithm, OKPAlgorithm, RSAAlgorithm, RSAPSSAlgorithm
from jwt.exceptions import InvalidKeyError, PyJWKError

from keyturn.contract.encoding import b64url, digest, encode_json, unb64url
from keyturn.contract.errors import MalformedInput

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


class _Ecdsa(ECAlgorithm):
    """PyJWT's ECDSA, which makes what it signs with once, and not for each signature."""

    def __init__(self, hash_alg: type[HashAlgorithm], curve: type[ec.EllipticCurve]) -> None:
        super().__init__(hash_alg, curve)
        self._ecdsa, self._bytes = ec.ECDSA(hash_alg()), curve().key_size // 8

    def sign(self, msg: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
        """Return the two numbers of a signature at their fixed width (RFC 7518, 3.4)."""
        return at_fixed_width(key.sign(msg, self._ecdsa), self._bytes)

    def sign_each(self, messages: Sequence[bytes], key: ec.EllipticCurvePrivateKey) -> list[bytes]:
        """Return the signature of each message."""
        # Nothing between the signatures: the CPU keeps the library's code at hand, which saves a tenth.
        signed = [key.sign(message, self._ecdsa) for message in messages]
        return [at_fixed_width(der, self._bytes) for der in signed]


def at_fixed_width(der: bytes, width: int) -> bytes:
    """Return r and s of an ECDSA signature that the library made, each in `width` bytes (at most 48)."""
    # SEQUENCE, length, INTEGER, length, r, INTEGER, length, s; up to 48 bytes a number, each length is one byte.
    end = 4 + der[3]
    return der[4:end][-width:].rjust(width, b"\0") + der[end + 2 :][-width:].rjust(width, b"\0")


# One algorithm object each; PyJWT's do the padding and check the ECDSA signature's form.
ALGORITHMS: Mapping[str, Algorithm] = {
    "ES256": _Ecdsa(hashes.SHA256, ec.SECP256R1),
    "ES384": _Ecdsa(hashes.SHA384, ec.SECP384R1),
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256),
    "PS256": RSAPSSAlgorithm(RSAPSSAlgorithm.SHA256),
    "EdDSA": OKPAlgorithm(),
}
PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
SMALLEST_RSA_BITS = 2048

_SHAPES: Mapping[str, tuple[str, str | None]] = {
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "RS256": ("RSA", None),
    "PS256": ("RSA", None),
    "EdDSA": ("OKP", "Ed25519"),
}
_THUMBPRINT_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "OKP": ("crv", "kty", "x")}


def sign_each(alg: str, messages: Sequence[bytes], key: PrivateKey) -> list[bytes]:
    """Return the JWS signature of each message, in their order."""
    algorithm = ALGORITHMS[alg]
    if isinstance(algorithm, _Ecdsa):
        return algorithm.sign_each(messages, cast("ec.EllipticCurvePrivateKey", key))
    return [algorithm.sign(message, key) for message in messages]


def public_jwk(key: PublicKey) -> dict[str, str]:
    """Return the bare public members of a key."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url(raw)}
    if isinstance(key, rsa.RSAPublicKey):
        jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
    else:
        jwk = ECAlgorithm.to_jwk(key, as_dict=True)
    return {name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the RFC 7638 thumbprint, which serves as `kid`."""
    return digest(encode_json({name: jwk[name] for name in _THUMBPRINT_MEMBERS[jwk["kty"]]}))


def fits(jwk: Mapping[str, Any], alg: str) -> bool:
    """Say whether a JWK's type and curve are those of an algorithm."""
    kty, crv = _SHAPES.get(alg, ("", None))
    return jwk.get("kty") == kty and crv in (None, jwk.get("crv"))


def load_public(jwk: Mapping[str, Any], alg: str) -> PublicKey:
    """Return the key object of a public JWK that fits the algorithm.

    Raises MalformedInput for private members, a wrong type or curve, and RSA below 2048 bits.
    """
    if alg not in _SHAPES:
        raise MalformedInput(f"algorithm {alg!r} is not one that we use")
    if PRIVATE_MEMBERS & jwk.keys():
        raise MalformedInput("a public key must not carry private members")
    kty, crv = _SHAPES[alg]
    if jwk.get("kty") != kty or (crv is not None and jwk.get("crv") != crv):
        raise MalformedInput(f"a key for {alg} has kty {kty}" + (f" and crv {crv}" if crv else ""))
    if alg == "EdDSA":
        return _load_ed25519(jwk)
    try:
        key = PyJWK(dict(jwk), algorithm=alg).key
    except (InvalidKeyError, PyJWKError, ValueError, TypeError) as error:
        raise MalformedInput(f"not a public key for {alg}") from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < SMALLEST_RSA_BITS:
        raise MalformedInput(f"RSA keys have at least {SMALLEST_RSA_BITS} bits")
    return cast("PublicKey", key)


def _load_ed25519(jwk: Mapping[str, Any]) -> ed25519.Ed25519PublicKey:
    """Read the one value of RFC 8037, 2, directly: a trust document holds a key for each verifier of a fleet."""
    x = jwk.get("x")
    try:
        return ed25519.Ed25519PublicKey.from_public_bytes(unb64url(x if isinstance(x, str) else ""))
    except ValueError as error:
        raise MalformedInput("not a public key for EdDSA") from error


def ed25519_private_jwk(key: ed25519.Ed25519PrivateKey) -> dict[str, str]:
    """Return the private JWK of a root, role or identity key (RFC 8037, 2)."""
    secret = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return {**public_jwk(key.public_key()), "d": b64url(secret)}


def load_ed25519_private(jwk: Mapping[str, Any]) -> ed25519.Ed25519PrivateKey:
    """Return the key object of a private Ed25519 JWK; raises MalformedInput for anything else."""
    if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519" or not isinstance(jwk.get("d"), str):
        raise MalformedInput("not a private Ed25519 JWK")
    try:
        key = ed25519.Ed25519PrivateKey.from_private_bytes(unb64url(jwk["d"]))
    except ValueError as error:
        raise MalformedInput("not a private Ed25519 JWK") from error
    if public_jwk(key.public_key()).get("x") != jwk.get("x"):
        raise MalformedInput("the public half of an Ed25519 JWK does not belong to its private half")
    return key
