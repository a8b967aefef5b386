"""What a key service does after each change, without a second's delay."""

import asyncio
from typing import Any, cast

from keyservice.keyring import Keyring
from keyservice.rotator import Rotator
from keyservice.tending import Tending
from keyturn.process.logging import logger
from keyturn.verifier.follower import Follower
from tests.simulation.clock import SimulatedClock
from tests.simulation.loop import SimulatedLoop


class _Ring:
    """A keyring that counts how often it was asked."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop, self.asked = loop, list[float]()

    async def refresh(self) -> list[str]:
        """Take note."""
        self.asked.append(self.loop.time())
        return []


class _Follower:
    """Only the callbacks."""

    def __init__(self) -> None:
        self.on_change: list[Any] = []


def test_a_change_while_it_is_busy_is_looked_at_right_after() -> None:
    """Once it was overlooked until the next second: a key that was to sign at once was opened a second late."""
    loop = SimulatedLoop(1)
    ring, follower, clock = _Ring(loop), _Follower(), SimulatedClock(loop)

    class Busy:
        """A rotator that takes a tenth of a second."""

        async def tick(self) -> int:
            await clock.sleep(0.1)
            return 0

    async def main() -> None:
        tending = Tending(cast("Keyring", ring), cast("Rotator", Busy()), cast("Follower", follower), logger("tests"))
        task = asyncio.ensure_future(tending.run())
        await clock.sleep(0.05)
        for changed in follower.on_change:
            changed()
        await clock.sleep(0.5)
        task.cancel()

    async def nothing() -> None:
        """End at once."""

    loop.run_until_complete(main())
    loop.finish(nothing())
    assert ring.asked == [0.0, 0.1]
