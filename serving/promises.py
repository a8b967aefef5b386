"""Revocation's word for how long it keeps what names a grant: no grant may last longer than that.

A revocation that was forgotten while a grant lives would let that grant come back. No service sees the settings of
another; so revocation says for how long it keeps, and the others go by that where their own setting is longer. Its word
is sealed: who can write the store cannot lengthen a grant by it, and can only put back what was said before.
"""

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec
from redis.asyncio import Redis

from keyturn.clock import Clock
from keyturn.contract.encoding import encode_json
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.process.logging import logger
from serving.gathering import Gathering
from serving.records import RecordKeys, Renew
from serving.sealing import Sealer
from serving.storing import stored

PROMISE_KEY: Final = f"keyturn:{Lane.REVOCATIONS}:promise"
LOOK_SECONDS: Final = 20.0
"""So long a grant may go by what was said before; less than the shortest life of a grant, for which all is kept."""
LIFE_CAPPED: Final = "grant_life_capped"
_FIELD: Final = "promise"
_PURPOSE: Final = b"keyturn promise to keep what names a grant"
_MOST_TOGETHER: Final = 4096


class Promise(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What names a grant is kept for so long by whoever writes the revocations lane, as of a moment (Unix seconds)."""

    iss: str
    seconds: float
    at: float

    def holds(self, now: float) -> bool:
        """Say whether a grant may live still that was made by this word."""
        return now < self.at + self.seconds


def renewed(own: Promise, stated: Promise | None) -> Promise:
    """Return what to promise from now on: a longer word that was given stands until nothing lives that goes by it."""
    if stated is None or stated.iss != own.iss or stated.seconds <= own.seconds or not stated.holds(own.at):
        return own
    return stated


class Promises:
    """The word on Redis; `read` and `write` raise StoreUnavailable."""

    def __init__(self, redis: Redis, keys: RecordKeys, *, renew: Renew = lambda: None) -> None:
        self._redis, self._sealer = redis, Sealer(keys, purpose=_PURPOSE, renew=renew)

    async def read(self) -> Promise | None:
        """Return the word that was given; None where there is none, or none of ours."""
        with stored():
            box = await cast("Any", self._redis).hget(PROMISE_KEY, _FIELD)
        content = None if box is None else self._sealer.open(box, beside=PROMISE_KEY.encode("ascii"))
        try:
            return None if content is None else msgspec.json.decode(content, type=Promise)
        except msgspec.DecodeError:
            return None

    async def write(self, promise: Promise) -> None:
        """Give a word in place of the one that stands there."""
        box = self._sealer.seal(encode_json(promise), beside=PROMISE_KEY.encode("ascii"))
        with stored():
            await cast("Any", self._redis).hset(PROMISE_KEY, _FIELD, box)


class GrantLife:
    """How long grants last: for `own_seconds`, or as long as revocation keeps what names them if that is shorter."""

    def __init__(self, promises: Promises, clock: Clock, *, issuer: str, own_seconds: float) -> None:
        self._promises, self._clock, self._issuer, self._own_seconds = promises, clock, issuer, own_seconds
        self._promised_seconds: float | None = None
        self._look_at = float("-inf")
        self._looks = Gathering(self._look, most_together=_MOST_TOGETHER)

    async def seconds(self) -> float:
        """Return it; raises StoreUnavailable or Busy, or FeedUnavailable where revocation has not given its word."""
        if self._clock.boottime() >= self._look_at:
            await self._looks.ask(None)
        if self._promised_seconds is None:
            raise FeedUnavailable("revocation has not said for how long it keeps revocations of grants")
        return min(self._own_seconds, self._promised_seconds)

    async def _look(self, asked: Sequence[None]) -> Sequence[None]:
        """Look once for all who ask; what was heard stands where the word is lost."""
        now, promise = self._clock.boottime(), await self._promises.read()
        if promise is not None and promise.iss == self._issuer and promise.holds(self._clock.now()):
            if promise.seconds < self._own_seconds and promise.seconds != self._promised_seconds:
                logger("grants").warning(LIFE_CAPPED, own_seconds=self._own_seconds, kept_seconds=promise.seconds)
            self._promised_seconds = promise.seconds
        if self._promised_seconds is not None:
            self._look_at = now + LOOK_SECONDS
        return asked
