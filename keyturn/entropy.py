"""The only reader of randomness: secrets, identifiers, jitter and new private keys."""

import random
import secrets
from typing import TypeAlias
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

RSA_BITS = 2048
_RSA_EXPONENT = 65537


def token_bytes(count: int) -> bytes:
    """Return that many bytes from the system's cryptographic source."""
    return secrets.token_bytes(count)


def uuid7(now: float) -> str:
    """Return a version 7 UUID for `now` (Unix seconds); its first 48 bits are milliseconds (RFC 9562, 5.7)."""
    milliseconds = int(now * 1000) & 0xFFFF_FFFF_FFFF
    noise = secrets.randbits(74)
    value = milliseconds << 80 | 0x7 << 76 | (noise >> 62) << 64 | 0b10 << 62 | noise & (1 << 62) - 1
    return str(UUID(int=value))


def jitter(low: float, high: float) -> float:
    """Return a number between the two, to spread load; never a secret."""
    return random.uniform(low, high)  # noqa: S311 - spreads retries, guards nothing


def new_key(alg: str) -> PrivateKey:
    """Make a private key for a JWS algorithm (RFC 7518, 3.1; RFC 8037).

    RSA takes about 0.1 s: call it in a thread. Raises ValueError for an algorithm that we do not sign with.
    """
    match alg:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case "RS256" | "PS256":
            return rsa.generate_private_key(public_exponent=_RSA_EXPONENT, key_size=RSA_BITS)
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
    raise ValueError(f"no signing key can be made for algorithm {alg!r}: choose from ES256, ES384, RS256, PS256, EdDSA")


def new_statement_key() -> ed25519.Ed25519PrivateKey:
    """Make the private key of a root, a role or an identity."""
    return ed25519.Ed25519PrivateKey.generate()
