"""A deterministic event loop: virtual time, no input or output, no threads; a seed orders what is ready at once."""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any, Protocol

from tests.rotation.dice import Dice

OUTSIDE = Context()  # The context of what belongs to no process: the network and the server.
MOST_ROUNDS_AT_ONE_MOMENT = 100_000  # Beyond that, code runs in a circle and time never moves on.


class Owner(Protocol):
    """The process that a task belongs to."""

    frozen: bool

    def adopt(self, task: "asyncio.Task[Any]") -> None:
        """Take note of one more task."""
        ...


OWNER: ContextVar[Owner] = ContextVar("OWNER")


class NumberedTask(asyncio.Task[Any]):
    """A task that knows how many there were before it: an order that no address in memory decides."""

    number = 0


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs what is ready, then leaps to the next timer.

    asyncio promises an order only to the callbacks of one task; tasks that are ready at the same moment run in an
    order that the seed decides. What belongs to a frozen process waits until it is thawed. The first error that a
    callback lets out ends the run.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self, seed: int) -> None:
        """Begin at moment 0."""
        super().__init__()
        self.failure: BaseException | None = None
        self._moment, self._rounds = 0.0, 0
        self._dice, self._numbers = Dice(f"{seed}/order"), count()
        self._held: deque[asyncio.Handle] = deque()
        self._any_frozen = False

    def time(self) -> float:
        """Return the virtual seconds since the beginning."""
        return self._moment

    def create_task(self, coro: Any, **options: Any) -> NumberedTask:
        """Make a task, numbered, and known to the process in whose context it runs."""
        context: Context = options.pop("context", None) or copy_context()
        task = NumberedTask(coro, loop=self, context=context, **options)
        task.number = next(self._numbers)
        if (owner := context.get(OWNER)) is not None:
            owner.adopt(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, _executor: object, function: Callable[..., Any], *arguments: Any
    ) -> asyncio.Future[Any]:
        """Call it here and now: a thread would bring another's order in."""
        done = self.create_future()
        try:
            done.set_result(function(*arguments))
        except Exception as error:
            done.set_exception(error)
        return done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep the first error that a callback let out; a task that nobody asks any more is none."""
        if self.failure is None and "handle" in context:
            self.failure = context["exception"]

    def thaw(self) -> None:
        """Let those run again that are not frozen any more."""
        self._any_frozen = False
        self._ready.extend(self._held)
        self._held.clear()

    def freeze(self) -> None:
        """Look at who is frozen from now on."""
        self._any_frozen = True

    def finish(self, cleaning: Coroutine[Any, Any, None]) -> None:
        """Run a last coroutine, end every task that is left, and close."""
        try:
            self.failure, self._rounds = None, 0
            self.run_until_complete(cleaning)
            while left := asyncio.all_tasks(self):
                for task in left:
                    task.cancel()
                self.run_until_complete(asyncio.wait(left))
        finally:
            self.close()

    def _run_once(self) -> None:
        timers = self._scheduled
        if not self._ready:
            self._leap()
        while timers and timers[0].when() <= self._moment:
            due = heapq.heappop(timers)
            if not due.cancelled():
                self._ready.append(due)
        for handle in self._ordered():
            if not handle.cancelled():
                handle._run()
        if self.failure is not None:
            raise self.failure

    def _leap(self) -> None:
        timers = self._scheduled
        while timers and timers[0].cancelled():
            heapq.heappop(timers)
        if timers and timers[0].when() > self._moment:
            self._moment, self._rounds = timers[0].when(), 0
        elif not timers and not self._stopping:
            raise RuntimeError("nothing is left that could ever happen")

    def _ordered(self) -> list[asyncio.Handle]:
        """Take all that is ready: plain callbacks as they came, then tasks in the order that the seed throws."""
        self._rounds += 1
        if self._rounds > MOST_ROUNDS_AT_ONE_MOMENT:
            raise RuntimeError("time stands still: something runs in a circle")
        plain: list[asyncio.Handle] = []
        steps: dict[int, list[asyncio.Handle]] = {}
        for handle in self._ready:
            if self._any_frozen and self._is_frozen(handle):
                self._held.append(handle)
                continue
            task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
            if isinstance(task, NumberedTask):
                steps.setdefault(task.number, []).append(handle)
            else:
                plain.append(handle)
        self._ready.clear()
        numbers = sorted(steps)
        while len(numbers) > 1:
            plain.extend(steps[numbers.pop(self._dice.below(len(numbers)))])
        for number in numbers:
            plain.extend(steps[number])
        return plain

    def _is_frozen(self, handle: asyncio.Handle) -> bool:
        owner: Owner | None = handle._context.get(OWNER)  # type: ignore[attr-defined]
        return owner is not None and owner.frozen

    def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        """Leave it where it is: it is passed over when its moment comes."""

    def _process_events(self, _events: object) -> None:
        """Nothing comes from outside."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""


def outside(loop: asyncio.AbstractEventLoop, seconds: float, function: Callable[..., object], *arguments: Any) -> None:
    """Call it after so many seconds, on behalf of no process."""
    loop.call_later(seconds, function, *arguments, context=OUTSIDE)
