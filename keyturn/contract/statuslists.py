"""Token Status Lists (draft-ietf-oauth-status-list-21): a bit for each token, and the claims that carry and name it."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from hashlib import shake_256
from typing import Any, Final

import msgspec

from keyturn.contract.encoding import b64url
from keyturn.contract.errors import MalformedInput
from keyturn.contract.selectors import (
    SelectorKind,
    TokenNames,
    grant_moment,
    hashed_party,
    hashed_values,
    names_of,
)

SIZE: Final = 1 << 18  # Indices of a list: 32 KiB of bits, and herd enough to hide in.
BITS: Final = 1  # A token is VALID (0) or INVALID (1); more would tell outsiders more (section 12.8).
PATH: Final = "/statuslists"
MEDIA_TYPE: Final = "application/statuslist+jwt"
_BEST_COMPRESSION: Final = 9
_SHUFFLE: Final = b"keyturn status list order\0"
_ROUNDS: Final = 8
_HALF_BITS: Final = (SIZE.bit_length() - 1) // 2
_HALF: Final = 1 << _HALF_BITS


class StatusList:
    """The bits of one list: index 0 is the least significant bit of byte 0 (section 4.1); `version` grows with each."""

    __slots__ = ("_bytes", "size", "version")

    def __init__(self, size: int = SIZE) -> None:
        """Begin with every token VALID; raises ValueError for a size that is not whole bytes (section 13.4)."""
        if size <= 0 or size % 8:
            raise ValueError("a status list has whole bytes")
        self.size, self.version, self._bytes = size, 0, bytearray(size // 8)

    def is_set(self, index: int) -> bool:
        """Say whether the token at an index is INVALID; raises MalformedInput for an index out of range."""
        self._check(index)
        return bool(self._bytes[index >> 3] >> (index & 7) & 1)

    def set(self, index: int) -> None:
        """Make the token at an index INVALID, for good; raises MalformedInput for an index out of range."""
        self._check(index)
        before, mark = self._bytes[index >> 3], 1 << (index & 7)
        if not before & mark:
            self._bytes[index >> 3] = before | mark
            self.version += 1

    def encoded(self) -> str:
        """Return `lst`: the bytes by DEFLATE in the ZLIB format, in base64url (sections 4.1 and 4.2)."""
        return b64url(zlib.compress(bytes(self._bytes), _BEST_COMPRESSION))  # A copy: bits may be set meanwhile.

    def _check(self, index: int) -> None:
        if not 0 <= index < self.size:
            raise MalformedInput(f"index {index} is outside a status list of {self.size}")


class Shuffle:
    """The order in which the indices of a list are given away: every one once, in an order that the seed decides.

    A Feistel network whose round functions are tables of random numbers: who sees indices, and not the seed, learns
    nothing of the order in which tokens were issued (section 12.5.1).
    """

    __slots__ = ("_tables",)

    def __init__(self, seed: bytes) -> None:
        """Work out the tables."""
        raw = shake_256(_SHUFFLE + seed).digest(2 * _HALF * _ROUNDS)
        numbers = [number % _HALF for number in struct.unpack(f"<{_HALF * _ROUNDS}H", raw)]
        self._tables: list[list[int]] = [numbers[start : start + _HALF] for start in range(0, len(numbers), _HALF)]

    def index(self, turn: int) -> int:
        """Return the index that is given away at a turn (0 to SIZE - 1); raises MalformedInput for any other turn."""
        if not 0 <= turn < SIZE:
            raise MalformedInput(f"a status list has no turn {turn}")
        left, right = turn >> _HALF_BITS, turn % _HALF
        for table in self._tables:
            left, right = right, left ^ table[right]
        return left << _HALF_BITS | right


class ListedToken(msgspec.Struct, frozen=True, array_like=True, kw_only=True, gc=False):
    """A token that a list speaks of: its index, when it expires, and all that a revocation may call it by."""

    index: int
    exp: float
    jti: str
    grant_id: str
    sub: str
    client_id: str
    aud: tuple[str, ...]
    sid: str | None = None

    @classmethod
    def of(cls, claims: Mapping[str, Any], index: int) -> "ListedToken":
        """Return the token of these claims at an index."""
        audience: str | Sequence[str] = claims["aud"]
        return cls(
            index=index, exp=claims["exp"], jti=claims["jti"], grant_id=claims["grant_id"], sub=claims["sub"],
            client_id=claims["client_id"], aud=(audience,) if isinstance(audience, str) else tuple(audience),
            sid=claims.get("sid"),
        )  # fmt: skip

    def claims(self, issuer: str) -> dict[str, Any]:
        """Return the claims that selectors look at (`names_of`)."""
        return {
            "iss": issuer, "jti": self.jti, "grant_id": self.grant_id, "sid": self.sid, "sub": self.sub,
            "client_id": self.client_id, "aud": self.aud,
        }  # fmt: skip


def listed_names(tokens: Sequence[ListedToken], issuer: str, *, key: bytes) -> list[TokenNames]:
    """Return what `names_of` does of each token's claims, at a third of the cost: each kind of name is one column."""
    moments = [moment for token in tokens if (moment := grant_moment(token.grant_id)) is not None]
    if len(moments) < len(tokens):  # A grant without a moment is as old as can be.
        return [names_of(token.claims(issuer), key=key) for token in tokens]
    jtis = hashed_values(key, SelectorKind.JTI, issuer, [token.jti for token in tokens])
    grants = hashed_values(key, SelectorKind.GRANT, issuer, [token.grant_id for token in tokens])
    subjects = hashed_values(key, SelectorKind.SUBJECT, issuer, [token.sub for token in tokens])
    sids = [token.sid for token in tokens if token.sid is not None]
    sessions = iter(hashed_values(key, SelectorKind.SESSION, issuer, sids))
    everything = hashed_party(key, SelectorKind.ALL, issuer, "")
    return [
        TokenNames(
            (jti, grant) if token.sid is None else (jti, grant, next(sessions)),
            (
                everything, subject, hashed_party(key, SelectorKind.CLIENT, issuer, token.client_id),
                *[hashed_party(key, SelectorKind.AUDIENCE, issuer, one) for one in token.aud],
            ),
            moment, whole_seconds=False,
        )
        for token, jti, grant, subject, moment in zip(tokens, jtis, grants, subjects, moments, strict=True)
    ]  # fmt: skip


def list_uri(issuer: str, name: str) -> str:
    """Return where a list is."""
    return f"{issuer}{PATH}/{name}"


def reference(issuer: str, name: str, index: int) -> dict[str, Any]:
    """Return the `status` claim of a token (section 6.2)."""
    return {"status_list": {"idx": index, "uri": list_uri(issuer, name)}}


def list_claims(
    lst: str, *, uri: str, now: float, life_seconds: float, ttl_seconds: float, aggregation: str
) -> dict[str, Any]:
    """Return the claims of a Status List Token (section 5.1) around `lst`, but for `iat`, which its signer sets."""
    return {
        "sub": uri,
        "exp": int(now + life_seconds),
        "ttl": int(ttl_seconds),
        "status_list": {"bits": BITS, "lst": lst, "aggregation_uri": aggregation},
    }
