"""Keys of another issuer: what can be read, and what is refused in one clear line."""

import random as seeded  # noqa: TID251 - the same numbers in every run
from math import prod
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from keyturn import entropy
from keyturn.contract.encoding import b64url
from keyturn.contract.errors import MalformedInput
from keyturn.contract.foreign import MOST_KEYS, Written, pem_blocks, read_keys
from keyturn.contract.jwk import PrivateKey, thumbprint
from keyturn.contract.weakness import check_rsa, has_roca_fingerprint

# Published by the finders of ROCA with their detection tool, as keys of affected chips (2,048 bits).
KNOWN_ROCA = int(
    "9dcd7420e420c270a68060eb8b5aa7457a9f6648f86fafed2775cc1f79ae962f1e63f1b9e51c55f9ea6fdc7332e9b0058c9ff2eb1fc898550"
    "29cf6aafe21e689feb38ac9ffb12f1ce371bb5d0e9aae64161abce74b4244bf68f1edb4411f756a097c8929c14740245ea355f8332d1aa36bb"
    "50c7dcb4505da8de02e4e53d38f8df06097da7524df0df93db48eac8cc4af2d3a16257eb2b2adca6ba464e5974fa92550d31b1babf161e7692"
    "d00b86e3dd886ecab4abfbe1a8f8cc263ff4af55cdb45f4249a5193925f5e983d762f0b6800943eb0267b08f42ed311ce1f5c86eacbc8ce4d3"
    "cb7a2fee1ef5641423a1cf4114e5ecf50034a60a412523af9e6f4aa11", 16,
)  # fmt: skip
E = 65537


def numbers_from(seed: int) -> seeded.Random:
    """Return a source of the same numbers in every run."""
    return seeded.Random(seed)  # noqa: S311 - guards nothing


def jwk_of(key: PrivateKey, *, private: bool = False, **members: Any) -> dict[str, Any]:
    """Return a key as another system would export it."""
    shown: Any = key if private else key.public_key()
    if isinstance(key, rsa.RSAPrivateKey):
        told = RSAAlgorithm.to_jwk(shown, as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        told = ECAlgorithm.to_jwk(shown, as_dict=True)
    else:
        told = OKPAlgorithm.to_jwk(shown, as_dict=True)
    return {name: value for name, value in told.items() if name != "key_ops"} | members


def pem_of(key: PrivateKey, *, private: bool = False) -> str:
    """Return a key in PEM."""
    if private:
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def rsa_jwk(modulus: int, exponent: int = E) -> dict[str, Any]:
    """Return a public RSA JWK of these numbers."""
    parts = {"n": modulus, "e": exponent}
    return {"kty": "RSA", "kid": "weak"} | {
        name: b64url(value.to_bytes((value.bit_length() + 7) // 8, "big")) for name, value in parts.items()
    }


def is_prime(number: int) -> bool:
    """Miller and Rabin's test, for making keys here."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        if not any((power := power * power % number) == number - 1 for _ in range(twos - 1)):
            return False
    return True


def roca_prime(bits: int, generator: seeded.Random) -> int:
    """Make a prime as the flawed library did: k * M + (65537^a mod M), M the product of the first 126 primes."""
    primes = [n for n in range(2, 702) if all(n % divisor for divisor in range(2, int(n**0.5) + 1))]
    primorial = prod(primes)
    assert len(primes) == 126
    while True:
        k = generator.getrandbits(bits - primorial.bit_length()) | 1 << (bits - primorial.bit_length() - 1)
        candidate = k * primorial + pow(E, generator.getrandbits(256), primorial)
        if all(candidate % prime for prime in (2, 3, 5, 7, 709, 719)) and is_prime(candidate):
            return candidate


def next_prime(number: int) -> int:
    """Return the next prime after a number."""
    number |= 1
    while not (all(number % small for small in (3, 5, 7, 11, 13, 17, 19, 23)) and is_prime(number)):
        number += 2
    return number


@pytest.mark.parametrize("alg", ["ES256", "ES384", "RS256", "EdDSA"])
@pytest.mark.parametrize("private", [False, True])
def test_good_keys_are_read_as_jwk_and_pem(alg: str, private: bool) -> None:
    """The same key whichever way it was written; the kid of the other system stays, since its tokens name it."""
    key = entropy.new_key(alg)
    jwk = jwk_of(key, private=private, kid="public:hydra.jwt/1", alg=alg, use="sig", x5c=["ignored"])
    (from_jwk,), _ = read_keys([jwk])
    (from_pem,), _ = read_keys([pem_of(key, private=private)], kid="other")
    assert (from_jwk.kid, from_jwk.alg, from_pem.kid, from_pem.alg) == ("public:hydra.jwt/1", alg, "other", alg)
    assert from_jwk.jwk == from_pem.jwk
    assert not {"d", "p", "x5c"} & from_jwk.jwk.keys()
    for one in (from_jwk, from_pem):
        assert (one.private is not None) is private
    (unnamed,), _ = read_keys([pem_of(key)])
    assert unnamed.kid == thumbprint(unnamed.jwk)


def test_an_algorithm_is_told_asked_or_guessed() -> None:
    """RSA serves two; which one decides what verifies."""
    key = entropy.new_key("RS256")
    assert read_keys([pem_of(key)])[0][0].alg == "RS256"
    assert read_keys([pem_of(key)], alg="PS256")[0][0].alg == "PS256"
    assert read_keys([jwk_of(key, alg="PS256")])[0][0].alg == "PS256"
    with pytest.raises(MalformedInput, match="leave alg out"):
        read_keys([jwk_of(key, alg="PS256")], alg="RS256")


def test_a_set_with_a_key_for_encryption_gives_those_that_sign() -> None:
    """As Keycloak's has; the one left out is named."""
    sig, enc = (jwk_of(entropy.new_key("RS256"), kid=use, use=use, alg=alg) for use, alg in
                (("sig", "RS256"), ("enc", "RSA-OAEP")))  # fmt: skip
    keys, left_out = read_keys([sig, enc])
    assert ([key.kid for key in keys], left_out) == (["sig"], ["enc"])
    with pytest.raises(MalformedInput, match="none of these"):
        read_keys([enc])


def test_one_of_several_is_chosen_by_its_kid() -> None:
    """A set has the retired keys, too."""
    keys = [jwk_of(entropy.new_key("ES256"), kid=kid) for kid in ("a", "b")]
    assert [key.kid for key in read_keys(keys, kid="b")[0]] == ["b"]
    with pytest.raises(MalformedInput, match="'c'"):
        read_keys(keys, kid="c")


def test_the_known_roca_key_and_made_ones_are_recognised() -> None:
    """CVE-2017-15361: their owners' private keys are for sale by the hour of computing."""
    generator = numbers_from(2017)
    for weak in (KNOWN_ROCA, roca_prime(1030, generator) * roca_prime(1030, generator)):
        with pytest.raises(MalformedInput, match="ROCA"):
            check_rsa(weak, E)


def test_no_good_modulus_has_the_roca_fingerprint() -> None:
    """A false alarm would keep somebody from migrating; it takes 2^28 good keys to see one."""
    generator = numbers_from(1)
    assert not any(has_roca_fingerprint(generator.getrandbits(2048) | 1 | 1 << 2047) for _ in range(20_000))
    for _ in range(3):
        key = entropy.new_key("RS256")
        assert isinstance(key, rsa.RSAPrivateKey)
        numbers = key.public_key().public_numbers()
        check_rsa(numbers.n, numbers.e)


def test_primes_that_are_close_are_found() -> None:
    """Fermat factors such a modulus by hand."""
    first = next_prime(numbers_from(3).getrandbits(1024) | 3 << 1022)
    with pytest.raises(MalformedInput, match="so close"):
        check_rsa(first * next_prime(first + 2), E)


GOOD = rsa.generate_private_key(public_exponent=E, key_size=2048)
MODULUS = GOOD.public_key().public_numbers().n
ES256, ES384 = entropy.new_key("ES256"), entropy.new_key("ES384")
PUBLIC, PRIVATE = jwk_of(ES256, kid="a"), jwk_of(entropy.new_key("ES256"), private=True, kid="b")
ENCRYPTED = ES256.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
OLD_ENCRYPTED = (
    "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAA==\n"
    "-----END EC PRIVATE KEY-----\n"
)
ED448 = ed448.Ed448PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
P521 = ec.generate_private_key(ec.SECP521R1())
REFUSED: dict[str, tuple[list[Written], str]] = {
    "small": ([rsa_jwk(MODULUS >> 1024 | 1)], "1024 bits is weak, 2048"),
    "small PEM": ([pem_of(rsa.generate_private_key(public_exponent=E, key_size=1024))], "1024 bits is weak"),  # noqa: S505 - the point
    "huge": ([rsa_jwk(1 << 8200 | 1)], "8201 bits slows"),
    "exponent 1": ([rsa_jwk(MODULUS, 1)], "exponent is 1"),
    "exponent even": ([rsa_jwk(MODULUS, 65536)], "exponent is even"),
    "exponent huge": ([rsa_jwk(MODULUS, MODULUS - 2)], "exponent of 20.. bits slows"),
    "even modulus": ([rsa_jwk(MODULUS + 1)], "small factor"),
    "no modulus": ([{"kty": "RSA", "e": "AQAB"}], "member n"),
    "HMAC": ([{"kty": "oct", "k": "AAAA", "kid": "h"}], "symmetric"),
    "HMAC in disguise": ([{**PUBLIC, "k": "AAAA"}], "symmetric"),
    "two of one kid": ([PUBLIC, {**jwk_of(ES384), "kid": "a"}], "two keys have the kid 'a'"),
    "one key twice": ([pem_of(ES256), pem_of(ES256)], "two keys have the kid"),
    "mixed": ([PUBLIC, PRIVATE], "public and private keys are mixed"),
    "mixed with PEM": ([pem_of(ES384), PRIVATE], "mixed"),
    "mixed with encryption": ([{**PUBLIC, "use": "enc"}, PRIVATE], "mixed"),
    "wrong curve": ([{**jwk_of(ES384), "alg": "ES256"}], "a key for ES256 has kty EC and crv P-256"),
    "wrong type": ([{**PUBLIC, "alg": "RS256"}], "a key for RS256 has kty RSA"),
    "another curve": ([{**PUBLIC, "crv": "secp256k1"}], "curve 'secp256k1'"),
    "another curve in PEM": ([pem_of(P521)], "curve secp521r1"),
    "another type": ([{"kty": "AKP", "kid": "a"}], "kty 'AKP'"),
    "no type": ([{}], "kty None"),
    "a type that is a list": ([{"kty": ["RSA"]}], "kty"),
    "another algorithm": ([{**jwk_of(GOOD), "alg": "RS512"}], "'RS512': we sign and verify by ES256"),
    "an algorithm that is a list": ([{**jwk_of(GOOD), "alg": ["RS256"]}], "is for"),
    "off the curve": ([{**PUBLIC, "x": b64url(bytes(31) + b"\1")}], "do not make a key"),
    "halves of two keys": ([{**PRIVATE, "x": PUBLIC["x"], "y": PUBLIC["y"]}], "do not make a key"),
    "halves of two Ed25519 keys": (
        [{**jwk_of(entropy.new_key("EdDSA"), private=True), "x": jwk_of(entropy.new_key("EdDSA"))["x"]}],
        "public half|do not make a key",
    ),
    "three primes": ([{**jwk_of(GOOD, private=True), "oth": []}], "more than two primes"),
    "half a private key": ([{**jwk_of(GOOD), "p": "AQAB"}], "private members"),
    "kid with a space": ([{**PUBLIC, "kid": "a b"}], "visible ASCII"),
    "kid that walks": ([{**PUBLIC, "kid": ".."}], "visible ASCII"),
    "kid too long": ([{**PUBLIC, "kid": "k" * 129}], "128"),
    "kid that is a number": ([{**PUBLIC, "kid": 7}], "visible ASCII"),
    "no key": ([], "1 to 16 keys"),
    "too many": ([PUBLIC] * (MOST_KEYS + 1), "1 to 16 keys"),
    "encrypted PEM": ([ENCRYPTED], "encrypted"),
    "encrypted as of old": ([OLD_ENCRYPTED], "encrypted"),
    "certificate": (["-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"], "openssl x509"),
    "OpenSSH": (["-----BEGIN OPENSSH PRIVATE KEY-----\nAA==\n-----END OPENSSH PRIVATE KEY-----"], "is no key"),
    "PEM of nothing": (["-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----"], "can be used"),
    "Ed448": ([ED448.decode()], "signs no token"),
    "text": (["hello"], "neither JSON nor PEM"),
    "parameters alone": (["-----BEGIN EC PARAMETERS-----\nAA==\n-----END EC PARAMETERS-----"], "neither"),
    "two blocks in one": ([pem_of(ES256) + pem_of(ES384)], "one PEM block"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_must_not_come_in_is_refused_in_one_clear_line(case: str) -> None:
    """Whoever migrates reads what is wrong and what to do, and never a private number."""
    written, named = REFUSED[case]
    with pytest.raises(MalformedInput, match=named) as refused:
        read_keys(written)
    assert "\n" not in str(refused.value)
    secrets = [one[name] for one in written if isinstance(one, dict) for name in ("d", "p", "k") if name in one]
    assert not any(len(secret) > 4 and secret in str(refused.value) for secret in secrets)


def test_a_kid_that_is_given_must_not_rename_a_key() -> None:
    """Tokens that are out name the old one."""
    with pytest.raises(MalformedInput, match="own kid is 'a'"):
        read_keys([PUBLIC], kid="b")


def test_pem_files_may_hold_several_keys_and_curve_parameters() -> None:
    """As `openssl ecparam -genkey` writes them."""
    parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    blocks = pem_blocks(parameters + pem_of(ES256) + "\nwords between\n" + pem_of(ES384))
    assert [key.alg for key in read_keys(blocks)[0]] == ["ES256", "ES384"]
