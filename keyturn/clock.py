"""The only reader of time: wall clock, boot-time clock and sleep, handed to whoever needs them."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # Linux counts suspend; elsewhere the nearest.


class Clock(Protocol):
    """What the rest of the code may know of time; seconds everywhere."""

    def now(self) -> float:
        """Return the wall clock as Unix seconds."""
        ...

    def boottime(self) -> float:
        """Return seconds on a clock that never goes back and counts suspend, where the system has one."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for that many seconds."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        # Bound as they are: a verdict from the cache reads both, and a call in between would be felt there.
        self.now: Callable[[], float] = time.time
        self.boottime: Callable[[], float] = partial(time.clock_gettime, _BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        """Wait for that many seconds."""
        await asyncio.sleep(seconds)
