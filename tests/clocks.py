"""Clocks that tests move: one that stands still until told, one that leaps ahead."""

import asyncio
import heapq
from itertools import count

from keyturn.clock import SystemClock

START = 1_800_000_000.0


class ManualClock:
    """Both clocks stand still until `advance`; a sleeper wakes when its moment has come."""

    def __init__(self, now: float = START, *, boottime: float = 1_000.0) -> None:
        self._now = now
        self._boottime = boottime
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> float:
        """Return the wall clock as Unix seconds."""
        return self._now

    def boottime(self) -> float:
        """Return seconds on the clock that never goes back."""
        return self._boottime

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been advanced by that much; for nothing or less, give way once."""
        woken = asyncio.get_running_loop().create_future()
        if seconds <= 0:
            woken.get_loop().call_soon(_wake, woken)
        else:
            heapq.heappush(self._sleepers, (self._boottime + seconds, next(self._order), woken))
        await woken

    @property
    def sleepers(self) -> int:
        """How many sleeps are still to be woken."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move both clocks on, and wake whoever's moment has come, in the order of the moments."""
        self._now += seconds
        self._boottime += seconds
        while self._sleepers and self._sleepers[0][0] <= self._boottime:
            _wake(heapq.heappop(self._sleepers)[2])

    def set_wall(self, now: float) -> None:
        """Put the wall clock elsewhere, as an operator or a bad time server would; sleepers do not notice."""
        self._now = now


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


class HastyClock(ManualClock):
    """A clock that a sleep itself moves on: for code that paces itself, where nobody else waits."""

    async def sleep(self, seconds: float) -> None:
        """Let the time pass at once."""
        self.advance(max(0.0, seconds))
        await super().sleep(0)


class LeapingClock:
    """The system's clock, whose wall time a test can set ahead; everything else goes on."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0
        self._system = SystemClock()

    def now(self) -> float:
        """Return the wall time, with the leap."""
        return self._system.now() + self.ahead_seconds

    def boottime(self) -> float:
        """Return seconds on the clock that never goes back."""
        return self._system.boottime()

    async def sleep(self, seconds: float) -> None:
        """Wait for that many seconds."""
        await self._system.sleep(seconds)
