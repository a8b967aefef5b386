"""What a rotation or revocation returns: its position, how durable it is, and who has adopted it."""

import asyncio
from enum import StrEnum
from typing import Any, NamedTuple

from aiohttp import web

from keyturn.contract.errors import FeedUnavailable, MalformedInput, StoreUnavailable
from keyturn.contract.positions import Lane
from keyturn.feed.assurance import Durability
from keyturn.feed.presence import Adopters, PresenceWatch
from keyturn.process.redis import server_facts, store_errors
from keyturn.process.soundness import usual_durability
from serving.parts import Parts

DEFAULT_WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 8.0  # Below the services' request timeout, so that the laggards are still told.
_FACTS_LAST_SECONDS = 30.0
_MOST_LOOKS = 3


class Quorum(StrEnum):
    """Whose adoption a caller waits for."""

    NOBODY = ""
    MOST = "quorum"
    """More than half of the live verifiers."""
    ALL = "all"
    """Every live verifier."""

    def is_reached(self, watch: PresenceWatch, adopters: Adopters) -> bool:
        """Say whether all have adopted who are waited for.

        A set in which a live verifier may still be missing vouches for nothing: half of it may be less than half.
        """
        match self:
            case Quorum.NOBODY:
                return True
            case Quorum.MOST:
                return watch.complete and adopters.are_most
        return watch.complete and not adopters.laggards


class Wait(NamedTuple):
    """For whose adoption a caller waits (`?wait=all` or `quorum`), and how long at most."""

    quorum: Quorum
    timeout_seconds: float

    @property
    def asked(self) -> bool:
        """Say whether verifiers have to report at once."""
        return self.quorum is not Quorum.NOBODY


def read_wait(request: web.Request) -> Wait:
    """Read `?wait=all&timeout=SECONDS`; raises MalformedInput for anything else by these names."""
    wait, timeout = request.query.getall("wait", []), request.query.getall("timeout", [])
    if wait not in ([], [Quorum.MOST], [Quorum.ALL]) or len(timeout) > 1:
        raise MalformedInput("wait is left out, all or quorum, and timeout stands at most once")
    try:
        seconds = float(timeout[0]) if timeout else DEFAULT_WAIT_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        raise MalformedInput(f"timeout is a number of seconds from 0 to {LONGEST_WAIT_SECONDS:g}")
    return Wait(Quorum(wait[0]) if wait else Quorum.NOBODY, seconds)


async def receipt_of(
    watch: PresenceWatch,
    lane: Lane,
    place: tuple[int, int],
    *,
    wait: Quorum,
    timeout_seconds: float = DEFAULT_WAIT_SECONDS,
    appended_boottime: float | None,
    durability: str,
) -> tuple[dict[str, Any], bool]:
    """Return the receipt of a place and whether those hold it who are waited for.

    Without the moment of the append it names who has adopted and no figure.
    """
    if wait is not Quorum.NOBODY:
        await _settled(watch, lane, place, wait, timeout_seconds)
    adopters = watch.adopters(lane, place)
    epoch, sequence = place
    told = {
        "lane": lane.value,
        "epoch": epoch,
        "sequence": sequence,
        "durability": durability,
        "adopted": len(adopters.adopted),
        "live": len(adopters.adopted) + len(adopters.laggards),
        "slowest_ms": _since(appended_boottime, adopters.slowest_boottime),
        "laggards": list(adopters.laggards),
        "adopted_ms": {name: _since(appended_boottime, moment) for name, moment in adopters.boottimes.items()},
    }
    return told, wait.is_reached(watch, adopters)


async def _settled(
    watch: PresenceWatch, lane: Lane, place: tuple[int, int], wait: Quorum, timeout_seconds: float
) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            while not wait.is_reached(watch, watch.adopters(lane, place)):
                await watch.change(within_seconds=timeout_seconds)
    except TimeoutError:
        return  # The laggards are in the receipt.


def _since(appended_boottime: float | None, boottime: float | None) -> float | None:
    """Return the milliseconds between two moments, None where one is not known."""
    if appended_boottime is None or boottime is None:
        return None
    return round(max(boottime - appended_boottime, 0.0) * 1000, 3)


class Vouching:
    """How durable what this service holds is: as the server said after the append, else as it is by its settings."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._usual, self._asked_at = Durability.MEMORY, float("-inf")

    async def word(self, lane: Lane, place: tuple[int, int]) -> str:
        """Return `replicated`, `local` or `memory`, never more than is known.

        What another process appended counts as what the server does without being asked. A server that does not
        answer now leaves its last word standing.
        """
        known = self._parts.assurance.of(lane, place)
        return (await self._by_settings() if known is None else known).word

    async def require(self, lane: Lane) -> None:
        """Return once all that our replica holds of a lane is as durable as settings require.

        An order that finds nothing left to do rests on an event that somebody else may not have been able to confirm.
        Raises Unconfirmed, or FeedUnavailable.
        """
        parts = self._parts
        if parts.assurance.required is Durability.MEMORY:
            return
        for _ in range(_MOST_LOOKS):
            position = parts.replica.position(lane)
            if position is not None and await parts.feed.assure(lane, position):
                return
            await parts.follower.catch_up()
        raise FeedUnavailable(f"lane {lane} moves on faster than it can be confirmed")

    async def _by_settings(self) -> Durability:
        clock = self._parts.clock
        if clock.boottime() - self._asked_at >= _FACTS_LAST_SECONDS:
            try:
                with store_errors(StoreUnavailable):
                    self._usual = usual_durability(await server_facts(self._parts.redis))
            except StoreUnavailable:
                return self._usual
            self._asked_at = clock.boottime()
        return self._usual
