"""Orders and schedules become events: once, whole, and whoever else is at it."""

import asyncio

import msgspec
import pytest

from keyservice.rotator import Order
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.keys import Phase, Use
from keyturn.contract.positions import Lane
from keyturn.contract.reports import Report, sign_report
from keyturn.contract.rotation import APPEND_SECONDS, Barrier
from keyturn.feed.memory import MemoryFeed
from tests.clocks import HastyClock, ManualClock
from tests.keyservice.building import POLICY, Inside, inside
from tests.world import World, new_statement_key


@pytest.fixture
async def world() -> World:
    """Return a world whose feed has begun, with one verifier identity."""
    return await World(clock=HastyClock(), verifiers={"api-1": new_statement_key()}).begin()


def phases(one: Inside) -> list[Phase]:
    """Return the phases of all keys, in order of publication."""
    return [key.phase for key in one.member.replica.keys]


def active_kid(one: Inside) -> str:
    """Return the kid that signs."""
    key = one.member.replica.keys.active("ES256", Use.ACCESS)
    assert key is not None
    return key.kid


async def report(world: World, place: tuple[int, int], count: int) -> None:
    """Leave a verifier's signed report on the board."""
    said = Report(
        verifier="api-1", incarnation="0", count=count, at=world.clock.now(), keys=place, revocations=(1, 0),
        state="fresh",
    )  # fmt: skip
    assert isinstance(world.feed, MemoryFeed)
    await world.feed.report("api-1", sign_report(world.verifiers["api-1"], said), ttl_seconds=60)


async def test_the_first_tick_makes_an_active_key_and_its_standbys_as_one_event(world: World) -> None:
    """A verifier must never see a key set without a standby: an emergency could come right then."""
    one = await inside(world)
    assert await one.rotator.tick() == 1
    assert phases(one) == [Phase.ACTIVE, Phase.PUBLISHED, Phase.PUBLISHED]
    assert one.member.replica.place(Lane.KEYS) == (1, 1)


async def test_two_workers_that_tick_at_once_make_one_set_of_keys(world: World) -> None:
    """Rule 7: arq's `unique` excludes nobody, so the feed's compare-and-set has to."""
    workers = [await inside(world) for _ in range(2)]
    await asyncio.gather(*(worker.rotator.tick() for worker in workers))
    for worker in workers:
        await worker.member.follower._read_all()
    assert phases(workers[0]) == phases(workers[1]) == [Phase.ACTIVE, Phase.PUBLISHED, Phase.PUBLISHED]
    assert active_kid(workers[0]) == active_kid(workers[1])


async def test_two_workers_that_rotate_at_once_rotate_once(world: World) -> None:
    """The loser decides again, finds the key changed since it was asked, and leaves it at that."""
    workers = [await inside(world) for _ in range(2)]
    await workers[0].rotator.tick()
    await workers[1].member.follower._read_all()
    before = active_kid(workers[0])
    outcomes = await asyncio.gather(*(worker.rotator.rotate("ES256", Order()) for worker in workers))
    for worker in workers:
        await worker.member.follower._read_all()
    assert active_kid(workers[0]) == active_kid(workers[1]) != before
    assert sum(outcome.event is not None for outcome in outcomes) == 1
    assert {outcome.kid for outcome in outcomes} == {active_kid(workers[0])}
    assert phases(workers[0]).count(Phase.RETIRING) == 1


async def test_a_rotation_waits_for_a_live_verifier_that_has_not_reported_the_standby(world: World) -> None:
    """Rule 1: a verifier without the key would reject good tokens; its report lets the key sign at once."""
    await report(world, (1, 0), 1)
    one = await inside(world)
    await one.rotator.tick()
    old = active_kid(one)
    outcome = await one.rotator.rotate("ES256", Order(report=True))
    assert not outcome.active
    assert active_kid(one) == old
    assert await one.rotator.tick() == 0
    await report(world, one.member.replica.place(Lane.KEYS), 2)
    await one.watch.look()
    assert await one.rotator.tick() == 1
    assert active_kid(one) == outcome.kid != old


async def test_asking_twice_for_a_rotation_that_waits_asks_once(world: World) -> None:
    """An operator's second attempt must not queue a second rotation behind the first."""
    await report(world, (1, 0), 1)
    one = await inside(world)
    await one.rotator.tick()
    first = await one.rotator.rotate("ES256", Order(report=True))
    second = await one.rotator.rotate("ES256", Order(report=True))
    assert first.kid == second.kid
    assert first.event is not None
    assert second.event is None


async def test_reports_count_for_nothing_until_the_set_is_complete(world: World) -> None:
    """A worker that began a moment ago cannot know who is live: only time lets a key sign."""
    one = await inside(world, complete=False)
    await one.rotator.tick()
    outcome = await one.rotator.rotate("ES256", Order())
    assert not outcome.active
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(POLICY.publication_seconds)
    assert await one.rotator.tick() == 1
    assert active_kid(one) == outcome.kid


async def test_an_emergency_is_one_event_that_waits_for_nobody(world: World) -> None:
    """Tombstone, activation and new standby together: at no moment may a set lack one of them."""
    await report(world, (1, 0), 1)
    one = await inside(world)
    await one.rotator.tick()
    stolen, place = active_kid(one), one.member.replica.place(Lane.KEYS)
    outcome = await one.rotator.revoke(stolen, Order(reason="stolen"))
    assert one.member.replica.place(Lane.KEYS) == (place[0], place[1] + 1)
    assert phases(one) == [Phase.REVOKED, Phase.ACTIVE, Phase.PUBLISHED, Phase.PUBLISHED]
    assert outcome.active
    assert outcome.kid == active_kid(one) != stolen
    assert isinstance(world.feed, MemoryFeed)
    assert stolen not in await world.feed.sealed_keys(), "the private half of a revoked key stays in the store"


async def test_revoking_a_key_twice_is_one_event_and_a_second_emergency_works(world: World) -> None:
    """At 3 a.m. people press twice; and the thief may have the successor, too."""
    one = await inside(world)
    await one.rotator.tick()
    first = active_kid(one)
    await one.rotator.revoke(first, Order())
    again = await one.rotator.revoke(first, Order())
    assert again.event is None
    second = await one.rotator.revoke(active_kid(one), Order())
    assert second.active
    assert phases(one).count(Phase.REVOKED) == 2
    assert phases(one).count(Phase.ACTIVE) == 1


async def test_revoking_a_standby_leaves_the_signing_key_alone(world: World) -> None:
    """A leaked standby is replaced without disturbing anybody's tokens."""
    one = await inside(world)
    await one.rotator.tick()
    active, standby = active_kid(one), one.member.replica.keys.standby("ES256", Use.ACCESS)
    assert standby is not None
    await one.rotator.revoke(standby.kid, Order())
    assert active_kid(one) == active
    assert phases(one).count(Phase.PUBLISHED) == 2


async def test_a_kid_that_never_was_cannot_be_revoked(world: World) -> None:
    """A typing error must not look like a revoked key."""
    one = await inside(world)
    await one.rotator.tick()
    with pytest.raises(KeyError):
        await one.rotator.revoke("nobody", Order())


async def test_a_retired_key_leaves_the_set_when_nothing_that_it_signed_can_live(world: World) -> None:
    """Rule 2: too early rejects good tokens, never would keep every key for ever."""
    one = await inside(world)
    await one.rotator.tick()
    old = active_kid(one)
    await one.rotator.rotate("ES256", Order())
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(APPEND_SECONDS + POLICY.aftermath_seconds - 0.01)
    await one.rotator.tick()
    assert one.member.replica.keys.get(old).phase is Phase.RETIRING  # type: ignore[union-attr]
    world.clock.advance(0.02)
    await one.rotator.tick()
    assert one.member.replica.keys.get(old).phase is Phase.REMOVED  # type: ignore[union-attr]


async def test_the_period_over_rotates_by_itself_and_missed_ticks_are_caught_up(world: World) -> None:
    """Arq does not catch up missed ticks; the rules look at facts, so the next tick does."""
    one = await inside(world, msgspec.structs.replace(POLICY, barrier=Barrier.TIME))
    await one.rotator.tick()
    old = active_kid(one)
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(POLICY.active_seconds * 3)
    assert await one.rotator.tick() >= 1
    assert active_kid(one) != old


async def test_an_append_whose_outcome_is_unknown_is_told_and_not_repeated(world: World) -> None:
    """A timeout may have landed: trying again blindly could rotate twice."""
    one = await inside(world)
    await one.rotator.tick()
    assert isinstance(world.feed, MemoryFeed)
    world.feed.reachable = False
    with pytest.raises(FeedUnavailable):
        await one.rotator.rotate("ES256", Order())


async def test_an_algorithm_that_is_added_later_does_not_sign_before_verifiers_hold_it(world: World) -> None:
    """Adding RS256 to a running issuer must not surprise anybody who holds the old set."""
    one = await inside(world)
    await one.rotator.tick()
    await report(world, (1, 0), 1)
    both = await inside(world, msgspec.structs.replace(POLICY, algorithms=("ES256", "EdDSA")))
    await both.rotator.tick()
    keys = both.member.replica.keys
    assert keys.active("EdDSA", Use.ACCESS) is None
    assert len(keys.of("EdDSA", Use.ACCESS, Phase.PUBLISHED)) == 2
    await report(world, both.member.replica.place(Lane.KEYS), 2)
    await both.watch.look()
    await both.rotator.tick()
    assert both.member.replica.keys.active("EdDSA", Use.ACCESS) is not None


async def test_an_order_for_later_waits_for_its_moment_and_an_earlier_one_takes_its_place(world: World) -> None:
    """`keys rotate --at`: a change window is kept by the feed, not by somebody's calendar."""
    one = await inside(world)
    await one.rotator.tick()
    old, now = active_kid(one), world.clock.now()
    outcome = await one.rotator.rotate("ES256", Order(not_before=now + 100))
    assert not outcome.active
    assert (await one.rotator.rotate("ES256", Order(not_before=now + 200))).event is None
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(99)
    assert await one.rotator.tick() == 0
    world.clock.advance(1)
    assert await one.rotator.tick() == 1
    assert active_kid(one) == outcome.kid != old
    later = await one.rotator.rotate("ES256", Order(not_before=world.clock.now() + 100))
    assert not later.active
    assert (await one.rotator.rotate("ES256", Order())).active, "an order for now waits behind one for later"
    assert one.member.replica.keys.requested("ES256", Use.ACCESS) is None


async def test_an_order_repeated_with_its_id_is_carried_out_once(world: World) -> None:
    """A client that saw a timeout repeats its order: at any service, rotating or revoking twice would be wrong."""
    one, other = await inside(world), await inside(world)
    await one.rotator.tick()
    first = await one.rotator.rotate("ES256", Order(event_id="order:1"))
    again = await one.rotator.rotate("ES256", Order(event_id="order:1"))
    await other.member.follower._read_all()
    elsewhere = await other.rotator.rotate("ES256", Order(event_id="order:1"))
    assert first.event is not None
    assert (again.event, elsewhere.event) == (None, None)
    assert {first.kid, again.kid, elsewhere.kid} == {active_kid(one)}
    assert (await one.rotator.rotate("ES256", Order(event_id="order:2"))).kid != first.kid
