"""An event that only a follower ever heard of, lost by a failover: who holds it must neither forget it nor end."""

import asyncio
from typing import Any

import pytest

from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.memory import MemoryFeed
from keyturn.verifier.follower import ASTRAY_SECONDS
from keyturn.verifier.freshness import State
from keyturn.verifier.replica import Replica
from tests.clocks import HastyClock
from tests.feed.conftest import Store
from tests.feed.test_mending import Backup
from tests.world import Member, World

KEYS, REVOCATIONS = Lane


class Branch:
    """A follower that stands on a branch, and a publisher that goes on along another."""

    def __init__(self, world: World, publisher: Member, follower: Member) -> None:
        self.world, self.publisher, self.follower = world, publisher, follower

    async def passes(self, seconds: int, *, beats: bool = True) -> None:
        """Let time pass: heads are signed, and the follower looks."""
        for _ in range(seconds):
            await self.world.clock.sleep(1.0)
            if beats:
                for lane in Lane:
                    await self.world.publisher(lane, self.publisher).beat()
            await self.follower.follower._read_all()

    def revoked(self, name: str) -> bool:
        """Say whether a token is revoked for the follower."""
        return self.follower.replica.revokes(self.follower.replica.names(self.world.claims(jti=name)))

    def state(self) -> State:
        """Return what the follower's replica may be used for."""
        return self.follower.replica.state(self.world.clock.now(), self.world.clock.boottime())


async def branched(lane: Lane, *, goes_on: bool = True) -> Branch:
    """Let a follower take an event, the store lose it, and another publisher go on without it."""
    feed = MemoryFeed()

    async def nothing() -> None:
        """Memory has no connection to cut."""

    store = Store("memory", feed, nothing)
    world = await World(feed=feed, clock=HastyClock()).begin()
    lost, publisher = await world.caught_up(), await world.caught_up()
    backup = await Backup(store).take()
    await world.publisher(lane, lost).append(content(world, lane, "lost"))
    follower = await world.caught_up()
    await backup.put_back()
    if goes_on:
        await world.publisher(lane, publisher).append(content(world, lane, "new"))
    return Branch(world, publisher, follower)


def content(world: World, lane: Lane, name: str) -> list[Any]:
    """Return what an event says."""
    return [world.new_key("EdDSA")] if lane is KEYS else [world.entry(SelectorKind.JTI, name)]


@pytest.mark.parametrize("lane", Lane)
async def test_a_follower_of_a_lost_branch_goes_where_the_publisher_stands(lane: Lane) -> None:
    """It once expired for ever: nobody opens an epoch where store and publisher agree."""
    branch = await branched(lane)
    await branch.passes(int(ASTRAY_SECONDS) + 2)
    assert branch.follower.replica.position(lane) == branch.publisher.replica.position(lane)
    assert branch.state() is State.FRESH
    assert "branch_left" in branch.follower.events()
    if lane is REVOCATIONS:
        assert branch.revoked("lost"), "its signer revoked it"
        assert branch.revoked("new")
    await branch.world.publisher(lane, branch.publisher).append(content(branch.world, lane, "later"))
    await branch.passes(1)
    assert branch.follower.replica.position(lane) == branch.publisher.replica.position(lane)


async def test_without_a_newer_head_nobody_leaves_his_branch() -> None:
    """Else who controls the store could lead a fleet back along any branch that there ever was."""
    branch = await branched(REVOCATIONS)
    held = branch.follower.replica.position(REVOCATIONS)
    await branch.passes(1)
    for lane in Lane:  # A word from the future of that branch: whatever the store says below is older.
        branch.follower.replica.heard(lane).note(branch.world.clock.now() + 60, branch.world.clock.boottime())
    await branch.passes(int(ASTRAY_SECONDS) + 2)
    assert branch.follower.replica.position(REVOCATIONS) == held
    assert "branch_left" not in branch.follower.events()


async def test_a_position_that_nobody_signed_makes_nobody_read_the_whole_store() -> None:
    """Else one HSET would cost each verifier a snapshot every three seconds."""
    branch = await branched(REVOCATIONS, goes_on=False)
    feed, reads = branch.world.feed, 0
    assert isinstance(feed, MemoryFeed)
    read_anew = branch.follower.follower.read_anew

    async def counted() -> Replica:
        nonlocal reads
        reads += 1
        return await read_anew()

    branch.follower.follower.read_anew = counted  # type: ignore[method-assign]
    feed._chains[REVOCATIONS].position = "1:1:" + "x" * 43
    await branch.passes(int(ASTRAY_SECONDS) * 3, beats=False)
    assert reads == 0


async def test_a_store_that_is_merely_behind_is_no_branch() -> None:
    """A rollback never counts as progress, whoever beats there."""
    branch = await branched(REVOCATIONS, goes_on=False)
    held = branch.follower.replica.position(REVOCATIONS)
    await branch.passes(int(ASTRAY_SECONDS) * 3)
    assert branch.follower.replica.position(REVOCATIONS) == held
    assert branch.state() is not State.FRESH


async def test_a_lanes_own_publisher_never_leaves_its_branch() -> None:
    """What it acknowledged must come into the next epoch."""
    branch = await branched(REVOCATIONS)
    branch.follower.follower.publishes.add(REVOCATIONS)
    held = branch.follower.replica.position(REVOCATIONS)
    await branch.passes(int(ASTRAY_SECONDS) * 3)
    assert branch.follower.replica.position(REVOCATIONS) == held


async def test_two_who_read_at_once_leave_a_branch_once() -> None:
    """A request that catches up, and the follower itself: the second once ended the follower with a KeyError."""
    branch = await branched(REVOCATIONS)
    await branch.passes(int(ASTRAY_SECONDS) - 1)
    await branch.world.clock.sleep(2.0)
    await branch.world.publisher(REVOCATIONS, branch.publisher).beat()
    reader = branch.follower.follower
    read_anew, began = reader.read_anew, asyncio.Event()
    both = 0

    async def slowly() -> Replica:
        nonlocal both
        both += 1
        if both == 2:
            began.set()
        await asyncio.wait_for(began.wait(), 5)
        return await read_anew()

    reader.read_anew = slowly  # type: ignore[method-assign]
    await asyncio.gather(reader._read_lane(REVOCATIONS), reader._read_lane(REVOCATIONS))
    assert both == 2
    assert branch.follower.events().count("branch_left") == 1
    assert branch.revoked("lost")
