"""Sentinel puts another server in the primary's place: everybody goes there, and nothing is believed twice."""

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from keyturn import Verifier
from keyturn.contract.errors import ConfigurationError, FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.feed.log import Listening
from keyturn.feed.redis import head_key
from keyturn.process.following import StoreConnections
from keyturn.verifier.freshness import State
from tests.stores.living import FRESHNESS, Living, living
from tests.stores.sentinels import NAME, SentinelGroup
from tests.waiting import eventually
from tests.world import AUDIENCE

BACK_SECONDS = 15.0  # Far more than it takes, for a busy machine; the runbook has what was measured.


async def works(system: Living, name: str) -> None:
    """Append to both lanes, and see all followers hold it and be fresh."""
    place, key_place = await system.revoke(name), await system.new_key()
    await eventually(
        lambda: system.fresh() and system.at(Lane.REVOCATIONS, place) and system.at(Lane.KEYS, key_place),
        within_seconds=BACK_SECONDS, saying=system.told,
    )  # fmt: skip
    assert system.revoked(name) == [True, True]


async def test_a_killed_primary_is_replaced_and_everybody_follows(group: SentinelGroup) -> None:
    """Keys and revocations go on, and followers are fresh again without anybody's hand."""
    async with living(group.settings) as system:
        await works(system, "before")
        old = await group.kill_primary()
        await group.failed_over(old)
        await works(system, "after")
        assert system.revoked("before") == [True, True]


async def test_a_frozen_primary_is_left_and_does_not_win_anybody_back(group: SentinelGroup) -> None:
    """No connection breaks when a host hangs, and one that wakes up still takes itself for the primary."""
    async with living(group.settings) as system:
        await works(system, "before")
        old = await group.primary()
        old.freeze()
        await group.failed_over(old)
        await works(system, "after")
        old.thaw()
        async with group.client(old.port) as redis:
            assert (await redis.info("replication"))["role"] == "master"
        await works(system, "later")


async def test_an_ordered_failover_moves_everybody_off_a_server_that_lives_on(group: SentinelGroup) -> None:
    """Before maintenance: the old primary answers still, as a replica that takes no writes."""
    async with living(group.settings) as system:
        old = await group.primary()
        async with group.client(group.sentinel_ports[1]) as sentinel:
            await sentinel.execute_command("SENTINEL", "FAILOVER", NAME)  # type: ignore[no-untyped-call]
        await group.failed_over(old)
        await works(system, "after")


async def test_a_subscription_ends_with_its_primary_and_the_next_one_says_so(group: SentinelGroup) -> None:
    """Whatever rang in between was missed: `Listening` is what makes a follower read."""
    async with AsyncExitStack() as stack:
        ways = StoreConnections(stack, group.settings, "listener")
        feed = ways.feed(ways.client())
        async with feed.listen() as bell:
            assert isinstance(await bell.next(2), Listening)
            old = await group.kill_primary()
            with pytest.raises(FeedUnavailable):
                await bell.next(2)
        await group.failed_over(old)
        async with feed.listen() as bell:
            assert isinstance(await bell.next(2), Listening)


async def test_the_library_follows_too(group: SentinelGroup) -> None:
    """An API that checks tokens in its own process has no sidecar that would do it."""
    async with living(group.settings) as system:
        world, sentinels = system.world, group.settings.sentinels
        told: dict[str, Any] = {
            "issuer": world.issuer,
            "root": world.root.public,
            "audience": AUDIENCE,
            "freshness": FRESHNESS,
        }
        async with Verifier.connect(f"redis://{NAME}/0", sentinels=sentinels, **told) as verifier:
            assert verifier.state is State.FRESH
            old = await group.kill_primary()
            await group.failed_over(old)
            await works(system, "after")
            await eventually(lambda: verifier.state is State.FRESH, within_seconds=BACK_SECONDS)
            place = system.own.replica.place(Lane.REVOCATIONS)
            replica = verifier._verifier.replica
            await eventually(lambda: replica.place(Lane.REVOCATIONS) >= place, within_seconds=BACK_SECONDS)
        with pytest.raises(ConfigurationError, match="redis_url"):
            async with Verifier.connect(f"redis://{NAME}:6379/0", sentinels=sentinels, **told):
                pass


async def test_two_sentinels_may_be_lost(group: SentinelGroup) -> None:
    """Any one that answers says where the primary is; a set that cannot agree on another changes nothing."""
    settings = group.settings
    nobody = tuple(f"127.0.0.1:{port}" for port in (1, 2))
    async with AsyncExitStack() as stack:
        alone = replace(settings, sentinels=(*nobody, settings.sentinels[2]))
        assert await StoreConnections(stack, alone, "client").client().ping()
        lost = replace(settings, sentinels=nobody)
        with pytest.raises(RedisConnectionError, match="no sentinel that answers"):
            await StoreConnections(stack, lost, "client").client().ping()
        stranger = replace(settings, url="redis://feed_1/0")
        with pytest.raises(RedisConnectionError, match="by the name feed_1"):
            await StoreConnections(stack, stranger, "client").client().ping()


async def test_a_revocation_that_a_failover_lost_is_appended_again(group: SentinelGroup) -> None:
    """It was acknowledged by a primary that took it along; its publisher keeps what it signed, and notices."""
    async with living(group.settings) as system:
        await works(system, "kept")
        await group.in_step()
        async with group.losing_a_tail() as old:
            place = await system.revoke("lost")
            await eventually(lambda: system.at(Lane.REVOCATIONS, place))
        await group.failed_over(old)
        await works(system, "after")
        late = await system.world.caught_up()  # Somebody who reads what the new primary has.
        for jti in ("kept", "lost", "after"):
            assert late.replica.revokes(late.replica.names({"iss": system.world.issuer, "jti": jti})), jti


async def test_a_tail_can_be_lost_on_purpose(group: SentinelGroup) -> None:
    """What no replica had is gone with the primary: the harness shows what recovery has to deal with."""
    async with AsyncExitStack() as stack:
        redis = StoreConnections(stack, group.settings, "client").client()
        await _set(redis, "kept")
        await group.in_step()
        async with group.losing_a_tail() as old:
            await _set(redis, "lost")
        await group.failed_over(old)
        assert await redis.hget(head_key(Lane.KEYS), "position") == b"kept"  # type: ignore[misc]


async def _set(redis: Redis, position: str) -> None:
    await redis.hset(head_key(Lane.KEYS), "position", position)  # type: ignore[misc]
