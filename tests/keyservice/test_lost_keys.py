"""A failover that loses an event loses what was written and erased beside it, too: both come back with the event."""

from copy import deepcopy

import pytest

from keyservice.rotator import Order
from keyturn.contract.events import KeysEvent
from keyturn.contract.keys import Phase, Use
from keyturn.contract.positions import Lane, Position
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.recovery import PATIENCE_SECONDS
from tests.clocks import HastyClock
from tests.keyservice.building import Inside, inside
from tests.world import World


@pytest.fixture
async def world() -> World:
    """Return a world whose feed has begun, and in which waiting takes no time."""
    return await World(clock=HastyClock()).begin()


def store_of(world: World) -> MemoryFeed:
    """Return the world's store."""
    assert isinstance(world.feed, MemoryFeed)
    return world.feed


async def mend(world: World, one: Inside) -> None:
    """Do what a publisher does that finds the store elsewhere."""
    assert not await one.publisher.beat()
    await world.recovery(one.publisher, one.member, beside=one.keyring.beside).mend()


async def test_sealed_keys_come_back_with_the_event_that_published_them_and_erased_ones_do_not(world: World) -> None:
    """A key that nobody can open signs nothing; the sealed form of a revoked key must not outlive it."""
    store, one = store_of(world), await inside(world)
    await one.rotator.tick()
    await one.keyring.refresh()
    before = deepcopy((store._chains, store._sealed))
    active = one.member.replica.keys.active("ES256", Use.ACCESS)
    assert active is not None
    await one.rotator.revoke(active.kid, Order(reason="leaked"))
    after = dict(store._sealed)
    assert active.kid not in after
    store._chains, store._sealed = before
    await mend(world, one)
    assert store._sealed == after
    late = await inside(world)
    assert await late.keyring.refresh() == []
    assert late.signer.unready() == "the store has not confirmed the key set within the signer's lease"


async def test_who_does_not_know_the_sealed_keys_leaves_an_event_to_who_does(world: World) -> None:
    """A replica that has heard of the event but opened nothing yet would bring back a key that nobody can open."""
    store, one, two = store_of(world), await inside(world), await inside(world)
    await one.rotator.tick()
    await two.member.follower.catch_up()
    await two.keyring.refresh()
    before = deepcopy((store._chains, store._sealed))
    await one.rotator.rotate("ES256", Order())
    await two.member.follower.catch_up()
    published = {key.kid for key in two.member.replica.keys.of("ES256", Use.ACCESS, Phase.PUBLISHED)}
    store._chains, store._sealed = before
    await mend(world, two)
    assert not await store.confirm(Lane.KEYS, _position(two)), "it appended what it knows only in part"
    await mend(world, one)
    assert await store.confirm(Lane.KEYS, _position(two))
    assert published <= store._sealed.keys()


async def test_where_nobody_knows_them_the_event_comes_back_all_the_same(world: World) -> None:
    """A tombstone in the same event matters more than a standby that has to be replaced."""
    store, one, two = store_of(world), await inside(world), await inside(world)
    await one.rotator.tick()
    await two.member.follower.catch_up()
    before = deepcopy((store._chains, store._sealed))
    active = one.member.replica.keys.active("ES256", Use.ACCESS)
    assert active is not None
    await one.rotator.revoke(active.kid, Order(reason="leaked"))
    revoked = active.kid
    await two.member.follower.catch_up()
    store._chains, store._sealed = before
    assert revoked in store._sealed
    assert not await two.publisher.beat()
    recovery = world.recovery(two.publisher, two.member, beside=two.keyring.beside)
    await recovery.mend()
    await world.clock.sleep(PATIENCE_SECONDS)
    await recovery.mend()
    assert await store.confirm(Lane.KEYS, _position(two))
    assert revoked not in store._sealed, "what the event erased is erased again"


async def test_an_event_of_the_other_lane_stands_alone(world: World) -> None:
    """Nothing is ever written beside a revocation."""
    one = await inside(world)
    member = await world.caught_up()
    signed = await world.publisher(Lane.REVOCATIONS, member).append([])
    assert not isinstance(signed.event, KeysEvent)
    beside = one.keyring.beside(signed)
    assert (dict(beside.beside.sealed), list(beside.beside.erased), beside.whole) == ({}, [], True)


def _position(one: Inside) -> Position:
    position = one.member.replica.position(Lane.KEYS)
    assert position is not None
    return position
