"""Opaque tokens and client secrets: a prefix for scanners, randomness, a checksum against typing errors."""

import hmac
from enum import StrEnum
from hashlib import sha256
from zlib import crc32

from keyturn.contract.encoding import b64url, unb64url
from keyturn.contract.errors import MalformedInput

RANDOM_BYTES = 32
_SUM_BYTES = 4


class CredentialKind(StrEnum):
    """What a credential is, told by its first characters."""

    ACCESS = "kt_at_"
    REFRESH = "kt_rt_"
    CODE = "kt_ac_"
    LOGIN_VERIFIER = "kt_lv_"
    CLIENT_SECRET = "kt_cs_"  # noqa: S105 - a prefix, not a secret


def make_credential(kind: CredentialKind, random: bytes) -> str:
    """Return prefix + base64url(32 random bytes + CRC-32 of prefix and bytes)."""
    if len(random) != RANDOM_BYTES:
        raise MalformedInput(f"a credential is made of {RANDOM_BYTES} random bytes")
    return kind.value + b64url(random + _sum(kind, random))


def credential_kind(text: str) -> CredentialKind | None:
    """Return the kind of a well-formed credential, None for anything else; says nothing of its validity."""
    for kind in CredentialKind:
        if text.startswith(kind.value):
            try:
                raw = unb64url(text[len(kind.value) :])
            except MalformedInput:
                return None
            random, checksum = raw[:-_SUM_BYTES], raw[-_SUM_BYTES:]
            return kind if len(random) == RANDOM_BYTES and checksum == _sum(kind, random) else None
    return None


def _sum(kind: CredentialKind, random: bytes) -> bytes:
    return crc32(kind.value.encode("ascii") + random).to_bytes(_SUM_BYTES, "big")


def secret_hash(secret: str) -> str:
    """Return what is stored of a client secret.

    Secrets are made here with 256 random bits, so a plain SHA-256 cannot be searched; a slow hash would only
    slow down the good.
    """
    return b64url(sha256(b"keyturn client secret\0" + secret.encode("utf-8", "surrogatepass")).digest())


def secret_matches(secret: str, stored_hash: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(secret_hash(secret).encode("ascii"), stored_hash.encode("ascii"))
