"""Catching up on demand: one flight for many, none that is too old."""

import asyncio

from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from tests.clocks import ManualClock
from tests.verifier.followed import KEYS, REVOCATIONS, as_time_passes
from tests.verifier.twisted import TwistedFeed
from tests.waiting import eventually
from tests.world import World


async def test_many_who_ask_to_catch_up_share_one_flight(world: World, feed: TwistedFeed) -> None:
    """Unknown kids are free to send; each must not cost a read of the store."""
    member = await world.caught_up()
    before = feed.tops
    await asyncio.gather(*(member.follower.catch_up() for _ in range(50)))
    assert feed.tops - before == len(Lane)


async def test_who_asks_while_a_flight_is_reading_gets_one_that_begins_later(
    world: World, feed: TwistedFeed, clock: ManualClock
) -> None:
    """The flight under way may have passed the lane before the key was published: a good token would be refused."""
    publisher, member = await world.caught_up(), await world.caught_up()
    feed.gate = asyncio.Event()
    feed.gated_lane = REVOCATIONS
    first = asyncio.ensure_future(member.follower.catch_up())
    await eventually(lambda: feed.waiting == 1)  # The keys lane has been read already.
    published = world.new_key()
    await world.publisher(KEYS, publisher).append([published])
    second = asyncio.ensure_future(member.follower.catch_up())
    await clock.sleep(0)
    feed.gate.set()
    await first
    assert member.replica.keys.get(published.kid) is None
    await as_time_passes(clock, 0.05, second.done)
    await second
    assert member.replica.keys.get(published.kid) is not None


async def test_flights_are_paced_and_a_failed_one_fails_whoever_waits(
    world: World, feed: TwistedFeed, clock: ManualClock
) -> None:
    """At most one each 100 ms; and "could not tell" is no "is not there"."""
    member = await world.caught_up()
    await member.follower.catch_up()
    before = feed.tops
    feed.reachable = False
    asked = [asyncio.ensure_future(member.follower.catch_up()) for _ in range(3)]
    for _ in range(5):
        await clock.sleep(0)
    assert feed.tops == before  # It waits for its turn.
    clock.advance(0.11)
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {FeedUnavailable}
    feed.reachable = True
    clock.advance(0.11)
    await member.follower.catch_up()
