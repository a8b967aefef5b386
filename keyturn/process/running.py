"""How a process starts, ends, and keeps its background tasks alive."""

import asyncio
import errno
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Self

import structlog

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.errors import ConfigurationError
from keyturn.process.logging import CRASHED, STOPPED_BY_FORCE, STOPPING, TASK_RESTARTED, configure_logging, logger
from keyturn.process.settings import LogSettings

FINE, CRASH, MISCONFIGURED = 0, 1, 2
GRACE_SECONDS = 10.0
ONE_WORD_SECONDS = 0.5
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
HEALTHY_AFTER_SECONDS = 30.0
_NO_PLACE_TO_LISTEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


def run(
    main: Callable[[], Awaitable[None]],
    *,
    name: str,
    grace_seconds: float = GRACE_SECONDS,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> int:
    """Run a process until it ends or is told to, and return its exit status.

    0: ended, or was ended by SIGINT or SIGTERM: `main` is cancelled and has `grace_seconds` to leave cleanly (a
    second signal does not wait). 2: a ConfigurationError or a busy port, one line on standard error.
    1: anything else, logged as `crashed`; its stack only when the log level is debug.
    """
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        try:
            return runner.run(_until_told(main, name=name, grace_seconds=grace_seconds))
        except KeyboardInterrupt:  # Before our own handler stood.
            return FINE


def settle() -> None:
    """Let the garbage collector pass over all that stands once a process is ready; call it once, at its start.

    Else each full collection walks through all modules again, which stops every answer for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()


async def _until_told(main: Callable[[], Awaitable[None]], *, name: str, grace_seconds: float) -> int:
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    impatient_from = float("inf")

    def tell() -> None:
        nonlocal impatient_from
        if loop.time() >= impatient_from:
            _leave_at_once(name)
        if not told.is_set():
            told.set()
            # Some tools signal a process and its group: what comes at once is the same word twice.
            impatient_from = loop.time() + ONE_WORD_SECONDS

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, tell)
    work = asyncio.ensure_future(_to_its_end(main))
    waiting = asyncio.ensure_future(told.wait())
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if told.is_set() and not work.done():
        _log(name).info(STOPPING)
        work.cancel()
        await asyncio.wait({work}, timeout=grace_seconds)
        if not work.done():
            _leave_at_once(name)
    return _status(work, name=name, told=told.is_set())


async def _to_its_end(main: Callable[[], Awaitable[None]]) -> int:
    try:
        await main()
    except SystemExit as end:  # Wrong usage, as argparse says it.
        return end.code if isinstance(end.code, int) else FINE if end.code is None else CRASH
    return FINE


def _status(work: "asyncio.Future[int]", *, name: str, told: bool) -> int:
    if work.cancelled() and told:
        return FINE
    error = asyncio.CancelledError() if work.cancelled() else work.exception()  # It may have cancelled itself.
    if error is None:
        return work.result()
    for cause in _leaves(error):
        if isinstance(cause, ConfigurationError):
            return refuse(name, str(cause))
        if isinstance(cause, OSError) and cause.errno in _NO_PLACE_TO_LISTEN:
            return refuse(name, f"{cause.strerror or cause} (listen: choose another port, or end who has it)")
    _log(name).error(CRASHED, exc_info=next(_leaves(error), error))
    return CRASH


def refuse(name: str, message: str) -> int:
    """Print the one line of a process that cannot start, and return its exit status, 2."""
    print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
    return MISCONFIGURED


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _leave_at_once(name: str) -> None:
    """End without waiting: something does not let go."""
    _log(name).error(STOPPED_BY_FORCE)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(CRASH)


def _log(name: str) -> structlog.typing.FilteringBoundLogger:
    if not structlog.is_configured():  # It ended before its settings were read.
        configure_logging(LogSettings(), process=name)
    return logger("process")


class Supervisor:
    """Background tasks that are started again when they end, for as long as the `async with` block lasts.

    A ConfigurationError is not tried again: it ends the block.
    """

    def __init__(self, *, clock: Clock) -> None:
        self.restarts: dict[str, int] = {}
        self._clock = clock
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, stack)

    async def forever(self) -> None:
        """Wait until the block is cancelled, or ended by a ConfigurationError of one of its tasks."""
        await asyncio.get_running_loop().create_future()

    def keep_running(self, name: str, start: Callable[[], Awaitable[None]]) -> None:
        """Run `start()` again whenever it returns or raises, after a growing pause; `name` is for the log."""
        self.restarts[name] = 0
        task = self._group.create_task(self._keep(name, start), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, name: str, start: Callable[[], Awaitable[None]]) -> None:
        def count() -> None:
            self.restarts[name] += 1

        await keep_running(name, start, clock=self._clock, on_restart=count)


async def keep_running(
    name: str,
    start: Callable[[], Awaitable[None]],
    *,
    clock: Clock,
    on_restart: Callable[[], None] | None = None,
    first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    longest_pause_seconds: float = LONGEST_PAUSE_SECONDS,
    healthy_after_seconds: float = HEALTHY_AFTER_SECONDS,
) -> None:
    """Run `start()` again and again until cancelled; pauses double, with jitter, until a run has lasted a while.

    Each restart is logged. A ConfigurationError is raised: no retry mends it.
    """
    failures = 0
    while True:
        began = clock.boottime()
        failure: BaseException | None = None
        try:
            await start()
        except ConfigurationError:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failure = error  # It cancelled itself, as a library may: nobody told us to end.
        except Exception as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from error  # It failed at cleaning up after it was told to end.
            failure = error
        failures = 1 if clock.boottime() - began >= healthy_after_seconds else failures + 1
        longest = min(longest_pause_seconds, first_pause_seconds * 2.0 ** min(failures - 1, 32))
        pause = entropy.jitter(longest / 2, longest)
        logger("process").warning(
            TASK_RESTARTED, task=name, failures=failures, pause_seconds=round(pause, 3), exc_info=failure
        )
        if on_restart is not None:
            on_restart()
        await clock.sleep(pause)
