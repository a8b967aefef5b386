"""Writes revocations to their lane: those that arrive together become one event."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from keyturn.clock import Clock
from keyturn.contract.errors import FeedUnavailable, KeyturnError, PositionTaken
from keyturn.contract.events import SignedEvent
from keyturn.contract.selectors import Entry
from revocation.orders import MOST_MARKS, Mark, OrderBook, event_id_of

MOST_WAITING = 10_000  # Revocations that wait for their event; one more is refused.
MOST_LISTS_WAITING = 16  # Parts of lists that wait for theirs.
MOST_ENTRIES = 250  # Single ones in one event: a reader takes them in within some two milliseconds, and others wait.
LARGEST_EVENT_BYTES = 128 * 1024  # About this much of names and reasons in one event: subscribers' buffers are small.
MOST_RACES = 8  # Times that another publisher may be first before the caller has to come back later.
LONGEST_LINGER_SECONDS = 0.2
QUIET_SECONDS = 0.005  # In a crowd nobody is waited for who is not here by then.
_MOMENTS_KEPT = 4096
_FIXED_BYTES = 128  # What an entry takes beside its strings.


class EventAppender(Protocol):
    """What the writer needs of a publisher of the revocations lane."""

    async def append(self, content: Sequence[Entry], *, report: bool, event_id: str | None) -> SignedEvent:
        """Sign and append; raises PositionTaken or FeedUnavailable."""
        ...


class Written(NamedTuple):
    """Where the event stands that holds a revocation, when writing it began, and whether that was at another's asking.

    The moment is in boot-time seconds, None where it is not known here.
    """

    place: tuple[int, int]
    begun_boottime: float | None
    again: bool = False


class _Waiting(NamedTuple):
    entries: Sequence[Entry]
    report: bool
    mark: Mark | None
    done: asyncio.Future[Written]

    @property
    def size(self) -> int:
        return sum(map(size_of, self.entries))


def size_of(entry: Entry) -> int:
    """Return about how many bytes of an event an entry takes."""
    selector = entry.selector
    return _FIXED_BYTES + len(selector.iss) + len(selector.value) + len(entry.reason)


class RevocationWriter:
    """One append at a time: an idle writer appends at once, and what comes meanwhile shares the next event.

    Where the last event was shared there is a crowd, and the next one waits while more keep coming, for 0.2 s at most.
    Parts of lists are events of their own, and take turns with the single ones: neither waits behind all of the other.
    """

    def __init__(
        self, publisher: EventAppender, catch_up: Callable[[], Awaitable[None]], clock: Clock, *, book: OrderBook
    ) -> None:
        self._publisher, self._catch_up, self._clock, self._book = publisher, catch_up, clock, book
        self._queue: deque[_Waiting] = deque()
        self._lists: deque[_Waiting] = deque()
        self._flight: asyncio.Task[None] | None = None
        self._begun: OrderedDict[tuple[int, int], float] = OrderedDict()
        self._crowded, self._lists_turn = False, False

    def __len__(self) -> int:
        """Count the revocations that wait for their event."""
        return len(self._queue) + sum(len(one.entries) for one in self._lists)

    async def write(self, entry: Entry, *, report: bool = False, mark: Mark | None = None) -> Written:
        """Return once the revocation is durable and in our own replica; `report` asks verifiers to answer at once.

        An order that carries a mark and that another replica of the publisher has carried out meanwhile is not
        carried out again. Raises FeedUnavailable where the outcome is unknown or too many wait, PositionTaken where
        others were always first: nothing may be promised then, and asking again is right.
        """
        if len(self._queue) >= MOST_WAITING:
            raise FeedUnavailable("too many revocations wait to be written")
        return await self._ask(self._queue, (entry,), report, mark)

    async def write_list(self, entries: Sequence[Entry], *, report: bool = False) -> Written:
        """Return once all of these, which fit one event, are durable and in our own replica; raises as `write` does."""
        if len(self._lists) >= MOST_LISTS_WAITING:
            raise FeedUnavailable("too many lists of revocations wait to be written")
        return await self._ask(self._lists, entries, report, None)

    def begun_at(self, place: tuple[int, int]) -> float | None:
        """Return when the writing of a place began here (boot-time seconds), None if that is not known any more."""
        return self._begun.get(place)

    async def close(self) -> None:
        """Stop; who still waits hears that nothing is known."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight])

    async def _ask(self, queue: deque[_Waiting], entries: Sequence[Entry], report: bool, mark: Mark | None) -> Written:
        done: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        queue.append(_Waiting(entries, report, mark, done))
        if self._flight is None:
            self._flight = asyncio.ensure_future(self._drain())
        return await done

    async def _drain(self) -> None:
        batch: list[_Waiting] = []
        try:
            while self._queue or self._lists:
                if self._lists and (self._lists_turn or not self._queue):
                    batch = [self._lists.popleft()]
                    self._lists_turn = False
                else:
                    await self._linger()
                    batch = self._next_batch()
                    self._crowded, self._lists_turn = len(batch) > 1, True
                await self._write(batch)
                batch = []
        finally:
            self._flight = None
            _fail([*batch, *self._queue, *self._lists], FeedUnavailable("the writer was stopped; nothing is known"))
            self._queue.clear()
            self._lists.clear()

    async def _linger(self) -> None:
        """In a crowd, wait for those who are about to come; a list that waits makes time enough pass."""
        if not self._crowded or self._lists:
            return
        until = self._clock.boottime() + LONGEST_LINGER_SECONDS
        waiting = 0
        while waiting < len(self._queue) < MOST_ENTRIES and self._clock.boottime() < until:
            waiting = len(self._queue)
            await self._clock.sleep(QUIET_SECONDS)

    def _next_batch(self) -> list[_Waiting]:
        batch = [self._queue.popleft()]
        size, marks = batch[0].size, int(batch[0].mark is not None)
        while self._queue and len(batch) < MOST_ENTRIES:
            size += self._queue[0].size
            marks += self._queue[0].mark is not None
            if size > LARGEST_EVENT_BYTES or marks > MOST_MARKS:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _write(self, batch: list[_Waiting]) -> None:
        begun = self._clock.boottime()
        try:
            for _ in range(MOST_RACES - 1):
                try:
                    return await self._append(batch, begun)
                except PositionTaken:
                    await self._catch_up()  # A revocation stays due, whatever another publisher wrote before it,
                    batch = [one for one in batch if not self._was_done(one)]  # unless it was this very order.
                    if not batch:
                        return None
            return await self._append(batch, begun)
        except Exception as error:
            _fail(batch, error)

    async def _append(self, batch: Sequence[_Waiting], begun: float) -> None:
        entries = [entry for one in batch for entry in one.entries]
        event = await self._publisher.append(
            entries, report=any(one.report for one in batch),
            event_id=event_id_of(one.mark for one in batch if one.mark is not None),
        )  # fmt: skip
        place = event.position.place
        self._book.note(event.event.id, place)
        self._begun[place] = begun
        if len(self._begun) > _MOMENTS_KEPT:
            self._begun.popitem(last=False)
        for one in batch:
            if not one.done.done():  # A caller that went away.
                one.done.set_result(Written(place, begun))

    def _was_done(self, one: _Waiting) -> bool:
        """Answer an order that another replica of the publisher was first to carry out; say whether it was."""
        if one.mark is None:
            return False
        try:
            place = self._book.find(one.mark)
        except KeyturnError as error:
            _fail([one], error)
            return True
        if place is not None and not one.done.done():
            one.done.set_result(Written(place, None, again=True))
        return place is not None


def _fail(batch: Sequence[_Waiting], error: Exception) -> None:
    for one in batch:
        if not one.done.done():
            one.done.set_exception(error)
