"""Opaque access tokens that were active a moment ago: their records, and the verdicts that were made of them."""

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from keyturn import entropy
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import TokenNames
from keyturn.verifier.replica import Replica
from keyturn.verifier.verdict import Verdict

REMEMBERED_SECONDS = 60.0
"""A record is read anew after that: one that somebody took out of the store by hand is missed by then."""

_MOST_VERDICTS = 64  # Of one token, by the audiences of whoever asks.
_KEY_BYTES, _NAME_BYTES = 32, 16


class Remembered(msgspec.Struct, eq=False, gc=False):
    """A token that was active: what has to be asked again, and the answers that were given."""

    claims: Mapping[str, Any]
    expires: float
    generation: int = -1
    indexes: tuple[RevocationIndex, ...] = ()
    names: tuple[TokenNames, ...] = ()
    verdicts: dict[tuple[str, ...], Verdict] = msgspec.field(default_factory=dict)


class Memory:
    """Remembers at most so many tokens, under a keyed hash that this process alone can make; never a token itself.

    It only makes a yes faster. Whoever gets a no takes the whole way to the store, whether the token exists or not.
    """

    def __init__(self, replica: Replica, *, most: int) -> None:
        self.hits = 0
        self._replica, self._most = replica, most
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
        del self._kept[self._name(_raw(token))]
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
        expires = min(float(claims["exp"]) + self._replica.freshness.skew_seconds, now + REMEMBERED_SECONDS)
        one = self._kept.get(name)
        if one is None or one.claims != claims:
            one = self._kept[name] = Remembered(claims, expires)
        one.expires = expires
        if len(one.verdicts) >= _MOST_VERDICTS:
            one.verdicts.clear()
        one.verdicts[audiences] = verdict
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def _name(self, token: bytes) -> bytes:
        hasher = self._hasher.copy()
        hasher.update(token)
        return hasher.digest()


def _raw(token: str) -> bytes:
    return token.encode("utf-8", "surrogatepass")
