"""A document that is about to expire is told of once a day by everybody who lives by it."""

import asyncio
from itertools import pairwise

import pytest
from structlog.testing import capture_logs

from keyturn.contract.trust import DAY_SECONDS
from keyturn.process.expiry import TRUST_EXPIRES_SOON, export_expiry, watch_expiry
from keyturn.process.logging import logger
from keyturn.process.metrics import Metrics
from keyturn.verifier.replica import Replica
from tests.clocks import HastyClock, ManualClock
from tests.waiting import eventually
from tests.world import World


class Counted(HastyClock):
    """A clock on which a loop runs as fast as it can, until so many days have passed."""

    async def days(self, replica: Replica, count: float) -> list[float]:
        """Watch for that long; return how many days were left at each warning."""
        end = self.now() + count * DAY_SECONDS
        with capture_logs() as logs:
            task = asyncio.create_task(watch_expiry(replica, self, logger("tests")))
            await eventually(lambda: self.now() >= end, within_seconds=30)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return [line["days_left"] for line in logs if line["event"] == TRUST_EXPIRES_SOON]


@pytest.mark.parametrize(("lives", "watched", "warnings"), [(60, 3, 0), (32, 5, 3), (2, 3, 3), (-1, 2, 2)])
async def test_it_is_said_once_a_day_from_thirty_days_before(lives: int, watched: int, warnings: int) -> None:
    """Often enough that somebody reads it, and not so often that everybody filters it away."""
    clock = Counted()
    world = World(clock=clock)
    member = world.member()
    member.replica.adopt_trust(world.trust(expires_at=clock.now() + lives * DAY_SECONDS))
    said = await clock.days(member.replica, watched)
    assert abs(len(said) - warnings) <= 1  # The last moment is one look more or less.
    assert bool(said) is bool(warnings)
    assert all(left <= 30 for left in said)
    assert all(0.99 <= one - other <= 1.11 for one, other in pairwise(said))


async def test_a_renewed_document_ends_the_warnings() -> None:
    """Who has renewed must hear that it has arrived by the silence."""
    clock = Counted()
    world = World(clock=clock)
    member = world.member()
    assert await clock.days(member.replica, 1) == []  # Nothing adopted: not expired but young.
    member.replica.adopt_trust(world.trust(expires_at=clock.now() + 5 * DAY_SECONDS))
    assert await clock.days(member.replica, 1)
    member.replica.adopt_trust(world.trust(version=2, expires_at=clock.now() + 365 * DAY_SECONDS))
    assert await clock.days(member.replica, 2) == []


def test_the_gauge_is_the_earliest_of_a_process() -> None:
    """Where services share a process, one that has not heard of the renewal is the one to alarm for."""
    world, metrics = World(clock=ManualClock()), Metrics(process="tests")
    early, late = world.member().replica, world.member().replica
    export_expiry(metrics, [early, late])
    assert b"keyturn_trust_expires_timestamp_seconds 0.0" in metrics.render()
    early.adopt_trust(world.trust(expires_at=2_000_000_000))
    late.adopt_trust(world.trust(version=2, expires_at=2_100_000_000))
    assert b"keyturn_trust_expires_timestamp_seconds 2e+09" in metrics.render()
