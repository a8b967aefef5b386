"""What a feed does where somebody else has written to its store."""

from collections.abc import Awaitable
from typing import cast

import pytest

from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.feed.log import Beside
from keyturn.feed.redis import SEALED_KEY, head_key
from tests.feed.conftest import Store
from tests.feed.test_feed import head, next_event, standing
from tests.world import World


async def test_a_stored_moment_that_is_no_honest_one_silences_no_publisher(world: World, store: Store) -> None:
    """One field written once by a thief, or a clock that was put right, must not take the heartbeat for ever."""
    start, now = await standing(world), world.clock.now()
    assert await world.feed.beat(head(world, start, at=now + 3600))
    assert not await world.feed.beat(head(world, start, at=now + 3599))
    assert await world.feed.beat(head(world, start, at=now + 1))
    if store.redis is None:
        return
    key = head_key(Lane.KEYS)
    for count, at in enumerate(("9" * 20, "", "z", "9" * 30, None), start=2):
        twist = store.redis.hdel(key, "at") if at is None else store.redis.hset(key, "at", at)
        await cast("Awaitable[int]", twist)
        assert await world.feed.beat(head(world, start, at=now + count)), at


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
