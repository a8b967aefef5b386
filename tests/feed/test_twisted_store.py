"""What a feed does where somebody else has written to its store."""

from collections.abc import Awaitable
from typing import cast

import pytest

from keyturn.contract.envelope import StatementType
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.log import Beside
from keyturn.feed.publisher import LOOK_AT_SNAPSHOT_SECONDS
from keyturn.feed.redis import SEALED_KEY, head_key, snapshot_key
from tests.clocks import ManualClock
from tests.feed.conftest import Store
from tests.feed.test_feed import head, next_event, standing
from tests.world import World


async def test_a_stored_moment_that_is_no_honest_one_silences_no_publisher(world: World, store: Store) -> None:
    """One field written once by a thief, or a clock that was put right, must not take the heartbeat for ever."""
    start, now = await standing(world), world.clock.now()
    assert await world.feed.beat(head(world, start, at=now + 3600), beater="one")
    assert not await world.feed.beat(head(world, start, at=now + 3599), beater="one")
    assert await world.feed.beat(head(world, start, at=now + 1), beater="one")
    if store.redis is None:
        return
    key = head_key(Lane.KEYS)
    for count, at in enumerate(("9" * 20, "", "z", "9" * 30, None), start=2):
        twist = store.redis.hdel(key, "at") if at is None else store.redis.hset(key, "at", at)
        await cast("Awaitable[int]", twist)
        assert await world.feed.beat(head(world, start, at=now + count), beater="one"), at


@pytest.mark.parametrize("lane", Lane)
async def test_a_snapshot_that_was_destroyed_or_put_back_is_replaced(world: World, store: Store, lane: Lane) -> None:
    """One write once kept every new verifier from starting for ever, and nobody who ran noticed."""
    if store.redis is None:
        return
    assert isinstance(world.clock, ManualClock)
    member, key = await world.caught_up(), snapshot_key(lane)
    publisher = world.publisher(lane, member)
    assert not await publisher.mend_snapshot()
    genesis = await world.feed.snapshot(lane)
    assert genesis is not None
    content = [world.new_key("EdDSA")] if lane is Lane.KEYS else [world.entry(SelectorKind.JTI, "a-token")]
    await publisher.append(content)
    forged = world.roles[Lane.KEYS if lane is Lane.REVOCATIONS else Lane.REVOCATIONS].sign(
        StatementType.SNAPSHOT, b"{}"
    )
    for twisted in (b"junk", forged, genesis, None):
        if twisted is None:
            await store.redis.delete(key)
        else:
            fields = {"snapshot": twisted, "position": "1:999:x"}
            await cast("Awaitable[int]", store.redis.hset(key, mapping=fields))
        world.clock.advance(LOOK_AT_SNAPSHOT_SECONDS)
        assert await publisher.mend_snapshot(), twisted
        late = await world.caught_up()
        assert late.replica.position(lane) == member.replica.position(lane)


async def test_an_append_that_fails_half_way_has_done_nothing(world: World, store: Store) -> None:
    """A key that stands in the feed without its private half would be let sign, and could not."""
    if store.redis is None:
        return
    start = await standing(world)
    await store.redis.set(SEALED_KEY, b"no hash")
    with pytest.raises(FeedUnavailable):
        await world.feed.append(next_event(world, start), after=start, beside=Beside(sealed={"one": b"box"}))
    assert await standing(world) == start
    assert await world.feed.events(Lane.KEYS, epoch=1, after=0) == []
