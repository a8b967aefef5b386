"""A simulated machine's clocks: both follow the loop's virtual time, and the wall clock may be wrong."""

import asyncio

START = 1_800_000_295.0  # The wall time at moment 0: five seconds before a bucket of revocations runs out.
_BOOTED_SECONDS = 1_000.0


class SimulatedClock:
    """One process's clock; `ahead_seconds` is how far its wall clock is off, and may change at any moment."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, ahead_seconds: float = 0.0) -> None:
        """Begin with the wall clock that much ahead."""
        self._loop, self.ahead_seconds = loop, ahead_seconds

    def now(self) -> float:
        """Return the wall time as this machine has it."""
        return START + self._loop.time() + self.ahead_seconds

    def boottime(self) -> float:
        """Return seconds on the clock that never goes back and counts suspend."""
        return _BOOTED_SECONDS + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Wait for so many virtual seconds."""
        woken = self._loop.create_future()
        timer = self._loop.call_later(max(0.0, seconds), _wake, woken)
        try:
            await woken
        finally:
            timer.cancel()


def _wake(woken: "asyncio.Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)
