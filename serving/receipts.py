"""What a rotation or revocation returns: its position, how durable it is, and who has adopted it."""

import asyncio
from typing import Any, NamedTuple

from aiohttp import web
from redis.asyncio import Redis

from keyturn.clock import Clock
from keyturn.contract.errors import MalformedInput, StoreUnavailable
from keyturn.contract.events import SignedEvent
from keyturn.contract.positions import Lane
from keyturn.feed.presence import Adopters, PresenceWatch
from keyturn.process.redis import ServerFacts, server_facts, store_errors

DEFAULT_WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 8.0  # Below the services' request timeout, so that the laggards are still told.
_FACTS_LAST_SECONDS = 30.0


class Wait(NamedTuple):
    """Whether a caller waits for adoption (`?wait=all`), and how long at most."""

    asked: bool
    timeout_seconds: float


def read_wait(request: web.Request) -> Wait:
    """Read `?wait=all&timeout=SECONDS`; raises MalformedInput for anything else by these names."""
    wait, timeout = request.query.getall("wait", []), request.query.getall("timeout", [])
    if wait not in ([], ["all"]) or len(timeout) > 1:
        raise MalformedInput("wait is left out or all, and timeout stands at most once")
    try:
        seconds = float(timeout[0]) if timeout else DEFAULT_WAIT_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST_WAIT_SECONDS:
        raise MalformedInput(f"timeout is a number of seconds from 0 to {LONGEST_WAIT_SECONDS:g}")
    return Wait(bool(wait), seconds)


async def receipt(
    watch: PresenceWatch,
    signed: SignedEvent,
    *,
    wait: bool,
    timeout_seconds: float,
    appended_boottime: float,
    clock: Clock,
    durability: str,
) -> tuple[dict[str, Any], bool]:
    """Return the receipt of an event and whether all live verifiers have adopted it.

    With `wait` it first waits for them, or until the time is up. `appended_boottime` is when the append began
    (a report may arrive before the append returns); `clock` is the one that it was read from.
    """
    place = signed.position.place
    return await receipt_of(
        watch, signed.event.lane, place, wait=wait, timeout_seconds=timeout_seconds,
        appended_boottime=min(appended_boottime, clock.boottime()), durability=durability,
    )  # fmt: skip


async def receipt_of(
    watch: PresenceWatch,
    lane: Lane,
    place: tuple[int, int],
    *,
    wait: bool,
    timeout_seconds: float = DEFAULT_WAIT_SECONDS,
    appended_boottime: float | None,
    durability: str,
) -> tuple[dict[str, Any], bool]:
    """Return the receipt of a place and whether all live verifiers hold it; without a moment it says no figure."""
    if wait:
        await _settled(watch, lane, place, timeout_seconds)
    adopters = watch.adopters(lane, place)
    epoch, sequence = place
    told = {
        "lane": lane.value,
        "epoch": epoch,
        "sequence": sequence,
        "durability": durability,
        "adopted": len(adopters.adopted),
        "live": len(adopters.adopted) + len(adopters.laggards),
        "slowest_ms": _slowest(adopters, appended_boottime),
        "laggards": list(adopters.laggards),
    }
    return told, _all_adopted(watch, adopters)


async def _settled(watch: PresenceWatch, lane: Lane, place: tuple[int, int], timeout_seconds: float) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            while not _all_adopted(watch, watch.adopters(lane, place)):
                await watch.change(within_seconds=timeout_seconds)
    except TimeoutError:
        return  # The laggards are in the receipt.


def _all_adopted(watch: PresenceWatch, adopters: Adopters) -> bool:
    """Say whether nobody is missing; a set in which a live verifier may still be missing vouches for nothing."""
    return watch.complete and not adopters.laggards


def _slowest(adopters: Adopters, appended_boottime: float | None) -> float | None:
    if appended_boottime is None or adopters.slowest_boottime is None:
        return None
    return round(max(adopters.slowest_boottime - appended_boottime, 0.0) * 1000, 3)


def durability_of(facts: ServerFacts) -> str:
    """Say how durable an acknowledged write is: `local` where each is on disk before it is answered.

    `replicated` is never said as long as nobody waits for a replica; `unknown` where the server does not tell.
    """
    if facts.append_only is None or facts.append_fsync is None:
        return "unknown"
    return "local" if facts.append_only and facts.append_fsync == "always" else "weak"


class Durability:
    """The server's word for how durable it is, asked anew when the last answer is half a minute old."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis, self._clock = redis, clock
        self._word, self._asked_at = "unknown", float("-inf")

    async def word(self) -> str:
        """Return `local`, `weak` or `unknown`; a server that does not answer leaves the last word standing."""
        if self._clock.boottime() - self._asked_at < _FACTS_LAST_SECONDS:
            return self._word
        try:
            with store_errors(StoreUnavailable):
                self._word = durability_of(await server_facts(self._redis))
        except StoreUnavailable:
            return self._word
        self._asked_at = self._clock.boottime()
        return self._word
