"""The replica that most tests of the verifier begin with."""

import pytest

from keyturn.verifier.freshness import Freshness
from tests.clocks import ManualClock
from tests.verifier.bench import Bench
from tests.verifier.court import SKEW, Court
from tests.verifier.twisted import TwistedFeed
from tests.world import World


@pytest.fixture
async def bench() -> Bench:
    """Return a replica that stands at the beginning of both lanes."""
    clock = ManualClock()
    world = await World(clock=clock, freshness=Freshness(expired_after_seconds=60)).begin()
    return Bench(world, await world.caught_up(), clock)


@pytest.fixture
async def court() -> Court:
    """Return a verifier with one active key."""
    clock = ManualClock()
    world = await World(clock=clock, freshness=Freshness(expired_after_seconds=60, skew_seconds=SKEW)).begin()
    court = Court(world, await world.caught_up(), clock)
    await court.keys.append(world.first_key("ES256"))
    return court


@pytest.fixture
def clock() -> ManualClock:
    """Return the time of all."""
    return ManualClock()


@pytest.fixture
def feed() -> TwistedFeed:
    """Return a store in which a test can do everything but sign."""
    return TwistedFeed()


@pytest.fixture
async def world(feed: TwistedFeed, clock: ManualClock) -> World:
    """Return a world whose lanes have begun."""
    return await World(feed=feed, clock=clock).begin()
