"""The one place where a test waits by looking again and again."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable

from keyturn.clock import SystemClock

LOOK_AGAIN_SECONDS = 0.01


async def eventually(
    predicate: Callable[[], object | Awaitable[object]],
    *,
    within_seconds: float = 5.0,
    saying: Callable[[], object] | str = "",
) -> None:
    """Return as soon as `predicate` (which may be a coroutine function) holds.

    Fails the test after `within_seconds`, with what `saying` tells then.
    """
    clock = SystemClock()
    deadline = clock.boottime() + within_seconds
    while True:
        holds = predicate()
        if isawaitable(holds):
            holds = await asyncio.wait_for(holds, max(deadline - clock.boottime(), LOOK_AGAIN_SECONDS))
        if holds:
            return
        if clock.boottime() > deadline:
            told = saying() if callable(saying) else saying
            raise AssertionError(f"still not so after {within_seconds} s{f': {told}' if told else ''}")
        await clock.sleep(LOOK_AGAIN_SECONDS)
