"""Writes revocations to their lane: those that arrive together become one event."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from keyturn.clock import Clock
from keyturn.contract.errors import FeedUnavailable, PositionTaken
from keyturn.contract.events import SignedEvent
from keyturn.contract.selectors import Entry

MOST_WAITING = 10_000  # Revocations that wait for their event; one more is refused.
MOST_ENTRIES = 500  # In one event,
LARGEST_EVENT_BYTES = 128 * 1024  # and about this much of names and reasons: subscribers' buffers are small.
MOST_RACES = 8  # Times that another publisher may be first before the caller has to come back later.
_MOMENTS_KEPT = 4096
_FIXED_BYTES = 128  # What an entry takes beside its strings.


class EventAppender(Protocol):
    """What the writer needs of a publisher of the revocations lane."""

    async def append(self, content: Sequence[Entry], *, report: bool) -> SignedEvent:
        """Sign and append; raises PositionTaken or FeedUnavailable."""
        ...


class Written(NamedTuple):
    """The event that holds a revocation, and when writing it began (boot-time seconds)."""

    event: SignedEvent
    begun_boottime: float


class _Waiting(NamedTuple):
    entry: Entry
    report: bool
    done: asyncio.Future[Written]

    @property
    def size(self) -> int:
        selector = self.entry.selector
        return _FIXED_BYTES + len(selector.iss) + len(selector.value) + len(self.entry.reason)


class RevocationWriter:
    """One append at a time: an idle writer appends at once, and what comes meanwhile shares the next event."""

    def __init__(self, publisher: EventAppender, catch_up: Callable[[], Awaitable[None]], clock: Clock) -> None:
        self._publisher, self._catch_up, self._clock = publisher, catch_up, clock
        self._queue: deque[_Waiting] = deque()
        self._flight: asyncio.Task[None] | None = None
        self._begun: OrderedDict[tuple[int, int], float] = OrderedDict()

    def __len__(self) -> int:
        """Count the revocations that wait for their event."""
        return len(self._queue)

    async def write(self, entry: Entry, *, report: bool = False) -> Written:
        """Return once the revocation is durable and in our own replica; `report` asks verifiers to answer at once.

        Raises FeedUnavailable where the outcome is unknown or too many wait, PositionTaken where others were
        always first: nothing may be promised then, and asking again is right.
        """
        if len(self._queue) >= MOST_WAITING:
            raise FeedUnavailable("too many revocations wait to be written")
        done: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(entry, report, done))
        if self._flight is None:
            self._flight = asyncio.ensure_future(self._drain())
        return await done

    def begun_at(self, place: tuple[int, int]) -> float | None:
        """Return when the writing of a place began here (boot-time seconds), None if that is not known any more."""
        return self._begun.get(place)

    async def close(self) -> None:
        """Stop; who still waits hears that nothing is known."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight])

    async def _drain(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._queue:
                batch = self._next_batch()
                await self._write(batch)
                batch = []
        finally:
            self._flight = None
            _fail([*batch, *self._queue], FeedUnavailable("the writer was stopped; the outcome is unknown"))
            self._queue.clear()

    def _next_batch(self) -> list[_Waiting]:
        batch, size = [self._queue.popleft()], 0
        while self._queue and len(batch) < MOST_ENTRIES:
            size += batch[-1].size
            if size + self._queue[0].size > LARGEST_EVENT_BYTES:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _write(self, batch: list[_Waiting]) -> None:
        begun = self._clock.boottime()
        try:
            event = await self._append([one.entry for one in batch], report=any(one.report for one in batch))
        except Exception as error:
            _fail(batch, error)
            return
        self._begun[event.position.place] = begun
        if len(self._begun) > _MOMENTS_KEPT:
            self._begun.popitem(last=False)
        written = Written(event, begun)
        for one in batch:
            if not one.done.done():  # A caller that went away.
                one.done.set_result(written)

    async def _append(self, entries: Sequence[Entry], *, report: bool) -> SignedEvent:
        for _ in range(MOST_RACES - 1):
            try:
                return await self._publisher.append(entries, report=report)
            except PositionTaken:
                await self._catch_up()  # A revocation stays due, whatever another publisher wrote before it.
        return await self._publisher.append(entries, report=report)


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for one in batch:
        if not one.done.done():
            one.done.set_exception(error)
