"""Opaque access tokens that were active a moment ago: their records, and the verdicts that were made of them."""

import sys
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec

from introspection.render import as_json
from keyturn import entropy
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import TokenNames
from keyturn.verifier.replica import Replica
from keyturn.verifier.verdict import Verdict

REMEMBERED_SECONDS = 60.0
"""A record is read anew by then: one that somebody took out of the store by hand is missed for no longer."""

BYTES_EACH: Final = 4096
"""So much memory, times the most tokens, is all that is remembered; a usual token takes about half of it."""

_MOST_VERDICTS = 64  # Of one token, by the audiences of whoever asks.
_KEY_BYTES, _NAME_BYTES = 32, 16
_TOKEN_BYTES, _VERDICT_BYTES, _AUDIENCE_BYTES = 700, 200, 48  # Beside the claims and the answer; an audience's hash.
_ANSWERS_ROOM = 1.5  # Of its length: so much an encoder takes for what it writes.


class Remembered(msgspec.Struct, eq=False, gc=False):
    """A token that was active: what has to be asked again, and the answers that were given."""

    claims: Mapping[str, Any]
    expires: float = 0.0
    size_bytes: int = 0
    generation: int = -1
    indexes: tuple[RevocationIndex, ...] = ()
    names: tuple[TokenNames, ...] = ()
    verdicts: dict[tuple[str, ...], Verdict] = msgspec.field(default_factory=dict)


class Memory:
    """Remembers at most so many tokens, under a keyed hash that this process alone can make; never a token itself.

    They take `BYTES_EACH` on average at most; the oldest make way. It only makes a yes faster. Whoever gets a no takes
    the whole way to the store, whether the token exists or not.
    """

    def __init__(self, replica: Replica, *, most: int) -> None:
        self.hits = 0
        self.size_bytes = 0
        self._replica, self._most, self._most_bytes = replica, most, most * BYTES_EACH
        self._hasher = blake2b(digest_size=_NAME_BYTES, key=entropy.token_bytes(_KEY_BYTES))
        self._kept: OrderedDict[bytes, Remembered] = OrderedDict()

    def __len__(self) -> int:
        """Count the tokens that are remembered."""
        return len(self._kept)

    def find(self, token: bytes, audiences: tuple[str, ...]) -> Remembered | None:
        """Return a token that was active for these audiences when it was remembered."""
        one = self._kept.get(self._name(token))
        return one if one is not None and audiences in one.verdicts else None

    def recall(self, token: str, audiences: tuple[str, ...], now: float) -> Remembered | None:
        """Return a token that, as far as this replica knows, is active for these audiences still."""
        one = self.find(_raw(token), audiences)
        if one is None:
            return None
        if self.objection(one, now) is None:
            self.hits += 1
            return one
        self._take(self._name(_raw(token)))
        return None

    def objection(self, one: Remembered, now: float) -> str | None:
        """Return what speaks against a token by now: time, revocation, or that its client is gone."""
        replica = self._replica
        if now >= one.expires:
            return "expired"
        if one.generation == replica.generation:
            return None
        if one.indexes != replica.indexes:
            one.indexes, one.names = replica.indexes, replica.names(one.claims)
        if replica.revokes(one.names):
            return "revoked"
        if one.claims.get("client_id") not in replica.trust.document.clients:
            return "client"
        one.generation = replica.generation
        return None

    def keep(self, token: str, audiences: tuple[str, ...], verdict: Verdict, now: float) -> None:
        """Remember an active verdict, made of a record that was just read."""
        claims, name = verdict.claims, self._name(_raw(token))
        one = self._take(name)
        if one is None or one.claims != claims or len(one.verdicts) >= _MOST_VERDICTS:
            one = Remembered(claims, size_bytes=_size(claims))
        if audiences not in one.verdicts:
            one.size_bytes += _VERDICT_BYTES + int(len(as_json(verdict)) * _ANSWERS_ROOM)
        one.verdicts[audiences] = verdict
        one.expires = min(float(claims["exp"]) + self._replica.freshness.skew_seconds, now + REMEMBERED_SECONDS)
        if one.size_bytes > self._most_bytes:
            return
        while len(self._kept) >= self._most or self.size_bytes + one.size_bytes > self._most_bytes:
            self._take(next(iter(self._kept)))
        self._kept[name] = one
        self.size_bytes += one.size_bytes

    def _take(self, name: bytes) -> Remembered | None:
        one = self._kept.pop(name, None)
        if one is not None:
            self.size_bytes -= one.size_bytes
        return one

    def _name(self, token: bytes) -> bytes:
        hasher = self._hasher.copy()
        hasher.update(token)
        return hasher.digest()


def _raw(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")


def _size(claims: Mapping[str, Any]) -> int:
    """Return about how much memory a token takes without its answers, once its names are hashed."""
    audiences = claims.get("aud")
    count = len(audiences) if isinstance(audiences, list) else 1
    return _TOKEN_BYTES + _AUDIENCE_BYTES * count + _room(claims)


def _room(value: object) -> int:
    """Return how much memory a value of JSON takes with all that is in it."""
    size = sys.getsizeof(value)
    if isinstance(value, Mapping):
        return size + sum(_room(name) + _room(inner) for name, inner in value.items())
    return size + sum(map(_room, value)) if isinstance(value, list) else size
