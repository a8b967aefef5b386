"""Proof Key for Code Exchange (RFC 7636): only S256, which tells an onlooker nothing of the verifier."""

import hmac
import re
from hashlib import sha256
from typing import Final

from keyturn.contract.encoding import b64url, unb64url
from keyturn.contract.errors import MalformedInput

METHODS: Final = ("S256",)
CHALLENGE_LENGTH: Final = 43
SHORTEST_VERIFIER, LONGEST_VERIFIER = 43, 128
_VERIFIER: Final = re.compile(rf"[A-Za-z0-9._~-]{{{SHORTEST_VERIFIER},{LONGEST_VERIFIER}}}")


def is_challenge(text: str) -> bool:
    """Say whether this can be a SHA-256 in base64url (RFC 7636, 4.2): 43 characters, no bit left over."""
    try:
        return len(text) == CHALLENGE_LENGTH and len(unb64url(text)) == sha256().digest_size
    except MalformedInput:
        return False


def is_verifier(text: str) -> bool:
    """Say whether this can be a verifier (RFC 7636, 4.1)."""
    return _VERIFIER.fullmatch(text) is not None


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a verifier (RFC 7636, 4.2)."""
    return b64url(sha256(verifier.encode("ascii")).digest())


def verifies(verifier: str, challenge: str) -> bool:
    """Say whether a verifier is the one that a challenge was made of (RFC 7636, 4.6); compares in constant time."""
    return is_verifier(verifier) and hmac.compare_digest(challenge_of(verifier), challenge)
