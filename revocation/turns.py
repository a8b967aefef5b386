"""Turns at the event loop: what takes seconds goes on a millisecond at a time, and others have theirs in between."""

from typing import Final

from keyturn.clock import Clock

TURN_SECONDS: Final = 0.001  # A request has ten and more turns; one that costs nobody anything takes 0.03 ms.


class Turns:
    """When whoever works for long has to give way; look at `is_over` after each step, which takes microseconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_boottime = float("-inf")

    def is_over(self) -> bool:
        """Say whether others should have their turn."""
        return self._clock.boottime() >= self._until_boottime

    async def give_way(self) -> None:
        """Let everybody else have a turn, and begin another one."""
        await self._clock.sleep(0)
        self._until_boottime = self._clock.boottime() + TURN_SECONDS
