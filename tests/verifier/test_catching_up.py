"""Catching up on demand: one flight for many, none that is too old."""

import asyncio

from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.feed.log import Top
from keyturn.feed.memory import MemoryFeed
from tests.clocks import ManualClock
from tests.verifier.followed import KEYS, REVOCATIONS, as_time_passes, revoke, revoked
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


class Asked(TwistedFeed):
    """A feed that keeps what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[str] = []

    async def all_tops(self) -> dict[Lane, Top | None]:
        """Return the newest places."""
        self.questions.append("all_tops")
        return await MemoryFeed.all_tops(self)

    async def events(self, lane: Lane, *, epoch: int, after: int) -> list[bytes]:
        """Return events."""
        self.questions.append(f"events after {after}")
        return await super().events(lane, epoch=epoch, after=after)

    async def snapshot(self, lane: Lane) -> bytes | None:
        """Return the newest snapshot."""
        self.questions.append("snapshot")
        return await super().snapshot(lane)


async def test_who_comes_back_after_a_cut_asks_once_and_reads_what_it_missed_only(clock: ManualClock) -> None:
    """Five hundred come back at the same time: a whole stream for each would be the next outage."""
    feed = Asked()
    world = await World(feed=feed, clock=clock).begin()
    publisher = await world.caught_up()
    async with world.following() as member:
        await revoke(world, publisher, *(f"heard-{number}" for number in range(9)))
        await eventually(lambda: revoked(member, "heard-8"))
        feed.questions.clear()
        feed.cut()
        feed.deaf = True
        await revoke(world, publisher, "missed")
        feed.deaf = False
        await as_time_passes(clock, 0.1, lambda: revoked(member, "missed"))
        assert feed.questions == ["all_tops", "events after 9"]
