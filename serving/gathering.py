"""Gathers what is asked at the same time into batches: no lingering when idle, fewer round trips under load."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar, cast

from serving.problems import Busy

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Told_contra = TypeVar("Told_contra", contravariant=True)


class Waiter(Protocol[Told_contra]):
    """Who waits for an answer; a future does."""

    def done(self) -> bool:
        """Say whether nobody waits any more."""
        ...

    def set_result(self, answer: Told_contra, /) -> None:
        """Take the answer."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Take what stood in its way."""
        ...


class Gathering(Generic[Asked, Answer]):
    """Asks in batches of at most `most_together`; while `at_once` batches are under way, the next one gathers.

    `ask_all` answers a batch in its order; what it raises, each of the batch is told. More than `most_waiting` in the
    queue raises Busy.
    """

    def __init__(
        self,
        ask_all: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]],
        *,
        most_together: int,
        at_once: int = 2,
        most_waiting: int = 4096,
    ) -> None:
        self._ask_all, self._most_together, self._at_once = ask_all, most_together, at_once
        self._most_waiting = most_waiting
        self._waiting: list[tuple[Asked, Waiter[Answer]]] = []
        self._flights: set[asyncio.Task[None]] = set()

    async def ask(self, one: Asked) -> Answer:
        """Return the answer to one question, asked after this call began."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.enter(one, answer)
        return await answer

    def enter(self, one: Asked, waiter: Waiter[Answer]) -> None:
        """Have somebody told the answer to a question, asked after this call, in a later turn of the loop."""
        if len(self._waiting) >= self._most_waiting:
            raise Busy("too many wait already")
        self._waiting.append((one, waiter))
        if len(self._flights) < self._at_once:
            # The task starts in the loop's next turn: whoever asks in this one comes along.
            flight = asyncio.create_task(self._fly())
            self._flights.add(flight)
            flight.add_done_callback(self._flights.discard)  # One that was cancelled before its first step, too.

    async def _fly(self) -> None:
        try:
            await self._answer_all()
        finally:
            # In the same step in which it found that nobody waits: whoever comes after that needs another one.
            self._flights.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _answer_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._most_together], self._waiting[self._most_together :]
            wanted = [(one, waiter) for one, waiter in batch if not waiter.done()]
            if not wanted:
                continue
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


def _fail(batch: Sequence[tuple[Asked, Waiter[Answer]]], error: Exception) -> None:
    for _, waiter in batch:
        if not waiter.done():
            waiter.set_exception(error)
