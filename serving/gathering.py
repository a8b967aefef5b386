"""Gathers what is asked at the same time into batches: no lingering when idle, fewer round trips under load."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from types import coroutine
from typing import Generic, TypeVar, cast

from serving.problems import Busy

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Item = TypeVar("Item")


class Batches(Generic[Item]):
    """Hands what comes to `take`, many at a time; while `at_once` batches are under way, the next one gathers.

    `take` gets at most `most_together`, raises nothing, and leaves no item behind, also where it is cancelled. More
    than `most_waiting` in the queue raises Busy.
    """

    def __init__(
        self,
        take: Callable[[list[Item]], Awaitable[None]],
        *,
        most_together: int,
        at_once: int = 2,
        most_waiting: int = 4096,
    ) -> None:
        self._take, self._most_together, self._at_once = take, most_together, at_once
        self._most_waiting = most_waiting
        self._waiting: list[Item] = []
        self._flights: set[asyncio.Task[None]] = set()

    def add(self, item: Item) -> None:
        """Have an item taken, in a later turn of the loop."""
        if len(self._waiting) >= self._most_waiting:
            raise Busy("too many wait already")
        self._waiting.append(item)
        if len(self._flights) < self._at_once:
            # The task starts in the loop's next turn: whoever comes in this one is taken along.
            flight = asyncio.create_task(self._fly())
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)  # One that was cancelled before its first step, too.

    async def _fly(self) -> None:
        try:
            while waiting := self._waiting:
                self._waiting = waiting[self._most_together :]
                await self._take(waiting[: self._most_together])
                await _next_turn()  # Who was answered, and asks again at once, comes along with the next.
        finally:
            # In the same step in which it found that nobody waits: whoever comes after that needs another one.
            self._flights.discard(cast("asyncio.Task[None]", asyncio.current_task()))


class Gathering(Generic[Asked, Answer]):
    """Asks in batches, as `Batches` makes them.

    `ask_all` answers a batch in its order; what it raises, each of the batch is told.
    """

    def __init__(
        self,
        ask_all: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]],
        *,
        most_together: int,
        at_once: int = 2,
        most_waiting: int = 4096,
    ) -> None:
        self._ask_all = ask_all
        self._batches: Batches[tuple[Asked, asyncio.Future[Answer]]] = Batches(
            self._answer, most_together=most_together, at_once=at_once, most_waiting=most_waiting
        )

    async def ask(self, one: Asked) -> Answer:
        """Return the answer to one question, asked after this call began; raises Busy where too many wait."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._batches.add((one, answer))
        return await answer

    async def _answer(self, batch: list[tuple[Asked, asyncio.Future[Answer]]]) -> None:
        wanted = [(one, waiter) for one, waiter in batch if not waiter.done()]
        if not wanted:
            return
        try:
            answers = await self._ask_all([one for one, _ in wanted])
            for (_, waiter), answer in zip(wanted, answers, strict=True):
                if not waiter.done():
                    waiter.set_result(answer)
        except Exception as error:
            _fail(wanted, error)
        except asyncio.CancelledError:
            _fail(wanted, Busy("ended before it was answered"))
            raise


@coroutine
def _next_turn() -> Generator[None, None, None]:
    """Let the loop do what it has to do by now; no clock has a part in that."""
    yield


def _fail(batch: Sequence[tuple[Asked, asyncio.Future[Answer]]], error: Exception) -> None:
    for _, waiter in batch:
        if not waiter.done():
            waiter.set_exception(error)
