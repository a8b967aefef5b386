"""Followers at a replica: they hear what the primary is told, and are stale where the replica is late, never wrong."""

from contextlib import AsyncExitStack
from dataclasses import replace

from keyturn.contract.positions import Lane
from keyturn.feed.redis import PRESENCE, bell_channel
from keyturn.process.following import StoreConnections
from keyturn.verifier.freshness import State
from stack.server import EmbeddedServer
from tests.stores.living import FRESHNESS, Living, living
from tests.stores.pairs import Pair
from tests.stores.sentinels import NAME, SentinelGroup
from tests.waiting import eventually

STALE_SECONDS = FRESHNESS.stale_after_seconds + 3
BACK_SECONDS = 15.0


async def works(system: Living, name: str) -> None:
    """Revoke, and see all followers hold it and be fresh."""
    place = await system.revoke(name)
    await eventually(
        lambda: system.fresh() and system.at(Lane.REVOCATIONS, place), within_seconds=BACK_SECONDS, saying=system.told
    )
    assert system.revoked(name) == [True, True]


async def subscribers(pair: Pair, *, at_replica: bool) -> int:
    """Count those who listen for the revocations lane's doorbell at one of the two."""
    async with pair.redis(at_replica=at_replica) as redis:
        ((_, count),) = await redis.pubsub_numsub(bell_channel(Lane.REVOCATIONS))
    return int(count)


async def test_followers_hear_the_doorbell_at_the_replica(pair: Pair) -> None:
    """The primary pushes to its replicas and its own publishers, whatever the number of sidecars."""
    async with pair.redis() as admin:
        await admin.flushall()
    async with living(pair.settings) as system:
        await works(system, "one")
        assert await subscribers(pair, at_replica=True) == len(system.followers) == 2
        assert await subscribers(pair, at_replica=False) == 1  # The publishers' own follower.


async def test_reports_go_to_the_primary(pair: Pair) -> None:
    """A replica takes no writes, and receipts count those who have reported."""
    async with AsyncExitStack() as stack:
        ways = StoreConnections(stack, pair.settings, "sidecar-1")
        await ways.feed(ways.client(), at_replica=True).report("sidecar-1", b"report", ttl_seconds=5)
        async with pair.redis() as redis:
            assert await redis.get(PRESENCE + "sidecar-1") == b"report"


async def test_a_replica_that_is_cut_off_makes_its_followers_stale_and_not_wrong(pair: Pair) -> None:
    """It answers still, with what was true; only the silence of the heartbeat gives it away."""
    async with pair.redis() as admin:
        await admin.flushall()
    async with living(pair.settings) as system:
        await works(system, "before")
        await pair.cut()
        try:
            place = await system.revoke("meanwhile")
            await eventually(lambda: system.states() == {State.STALE}, within_seconds=STALE_SECONDS)
            assert (system.revoked("before"), system.revoked("meanwhile")) == ([True, True], [False, False])
        finally:
            await pair.mend()
        await eventually(
            lambda: system.fresh() and system.at(Lane.REVOCATIONS, place), within_seconds=BACK_SECONDS,
            saying=system.told,
        )  # fmt: skip
        assert system.revoked("meanwhile") == [True, True]


async def test_a_frozen_replica_makes_its_followers_stale_until_it_thaws(pair: Pair) -> None:
    """No connection breaks; where there is no other replica to go to, they wait."""
    async with pair.redis() as admin:
        await admin.flushall()
    async with living(pair.settings) as system:
        await works(system, "before")
        pair.replica.freeze()
        try:
            await eventually(lambda: system.states() == {State.STALE}, within_seconds=STALE_SECONDS)
        finally:
            pair.replica.thaw()
        await works(system, "after")


async def test_followers_leave_a_replica_that_hangs_for_another(group: SentinelGroup) -> None:
    """Sentinel names the others; whoever failed us is not asked again as long as there are any."""
    settings = replace(group.settings, replica_url=f"redis://{NAME}/0")
    async with living(settings) as system:
        await works(system, "before")
        primary = await group.primary()
        held = [server for server in group.servers if server is not primary and await listened_to(group, server)]
        assert held
        assert not await listened_to(group, primary, besides=1)
        held[0].freeze()
        try:
            await works_again(system, "after")
            assert system.fresh()
        finally:
            held[0].thaw()


async def test_followers_leave_a_replica_that_is_cut_off_for_another(group: SentinelGroup) -> None:
    """It answers and is of no use: the sentinels say that it has lost its primary."""
    settings = replace(group.settings, replica_url=f"redis://{NAME}/0")
    async with living(settings) as system:
        await works(system, "before")
        primary = await group.primary()
        held = [server for server in group.servers if server is not primary and await listened_to(group, server)]
        async with group.client(held[0].port) as redis:
            await redis.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
        await works_again(system, "after")


async def works_again(system: Living, name: str) -> None:
    """Revoke, and wait as long as sentinels take to notice what is wrong with a replica."""
    place = await system.revoke(name)
    await eventually(
        lambda: system.fresh() and system.at(Lane.REVOCATIONS, place), within_seconds=20, saying=system.told
    )


async def listened_to(group: SentinelGroup, server: EmbeddedServer, *, besides: int = 0) -> bool:
    """Say whether anybody listens for a lane's doorbell at a server, besides so many."""
    async with group.client(server.port) as redis:
        ((_, count),) = await redis.pubsub_numsub(bell_channel(Lane.REVOCATIONS))
    return int(count) > besides
