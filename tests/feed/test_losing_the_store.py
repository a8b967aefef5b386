"""A store that is away, frozen, emptied or in somebody else's hands: an error in time, never a wrong word."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import fakeredis
import pytest
from redis.asyncio import Redis

from keyturn.clock import SystemClock
from keyturn.contract.errors import FeedUnavailable, StreamSpoiled
from keyturn.contract.positions import Lane
from keyturn.feed.log import Beside, Listening, Top
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.redis import RedisFeed, head_key, stream_key
from keyturn.feed.snapshots import snapshot_key
from tests.feed.conftest import Store
from tests.feed.test_feed import head, next_event, standing
from tests.feed.valkey import Valkey
from tests.world import World

Feed = MemoryFeed | RedisFeed


@pytest.fixture(params=["memory", "fakeredis", "closed port"])
async def away(request: pytest.FixtureRequest) -> Feed:
    """Return a feed whose store cannot be reached."""
    if request.param == "memory":
        feed = MemoryFeed()
        feed.reachable = False
        return feed
    if request.param == "fakeredis":
        server = fakeredis.FakeServer()
        server.connected = False
        redis: Redis = fakeredis.FakeAsyncRedis(server=server)
    else:
        redis = Redis(port=1, socket_connect_timeout=1.0)
    return RedisFeed(redis, pubsub=redis)


async def listen(feed: Feed) -> None:
    """Subscribe."""
    async with feed.listen() as bell:
        await bell.next(1)


async def watch(feed: Feed) -> None:
    """Subscribe to reports."""
    async with feed.watch() as bell:
        await bell.next(1)


WORLD = World()
GENESIS = WORLD.genesis(Lane.KEYS)
ASKED: dict[str, Callable[[Feed], Awaitable[object]]] = {
    "append": lambda feed: feed.append(next_event(WORLD, GENESIS.position), after=GENESIS.position),
    "beat": lambda feed: feed.beat(head(WORLD, GENESIS.position, at=1), beater="one"),
    "confirm": lambda feed: feed.confirm(Lane.KEYS, GENESIS.position),
    "open_epoch": lambda feed: feed.open_epoch(GENESIS, after=None),
    "keep_snapshot": lambda feed: feed.keep_snapshot(GENESIS),
    "top": lambda feed: feed.top(Lane.KEYS),
    "events": lambda feed: feed.events(Lane.KEYS, epoch=1, after=0),
    "snapshot": lambda feed: feed.snapshot(Lane.KEYS),
    "chunks": lambda feed: feed.chunks(Lane.REVOCATIONS, ["a-digest"]),
    "trust": lambda feed: feed.trust(),
    "keep_trust": lambda feed: feed.keep_trust(b"document"),
    "sealed_keys": lambda feed: feed.sealed_keys(),
    "listen": listen,
    "report": lambda feed: feed.report("sidecar-1", b"word", ttl_seconds=1),
    "reports": lambda feed: feed.reports(["sidecar-1"]),
    "server_run": lambda feed: feed.server_run(),
    "watch": watch,
}


@pytest.mark.parametrize("what", ASKED)
async def test_whatever_is_asked_of_a_store_that_is_away_says_so(away: Feed, what: str) -> None:
    """One error for all losses: who asked answers 503, and nobody takes silence for "nothing is there"."""
    with pytest.raises(FeedUnavailable):
        await ASKED[what](away)


async def test_a_frozen_server_is_an_error_in_time_and_its_doorbell_is_silent(own_valkey: Valkey) -> None:
    """Connections to a frozen server stay open; only a deadline notices, and leaving must not wait for an answer."""
    redis, pubsub, clock = own_valkey.client(socket_timeout=0.2), own_valkey.client(socket_timeout=None), SystemClock()
    world = await World(feed=RedisFeed(redis, pubsub=pubsub)).begin()
    start = await standing(world)
    began = clock.boottime()
    async with world.feed.listen() as bell:
        assert await bell.next(5) == Listening()
        own_valkey.signal(signal.SIGSTOP)
        assert await bell.next(0.05) is None
        with pytest.raises(FeedUnavailable):
            await world.feed.append(next_event(world, start), after=start)
        with pytest.raises(FeedUnavailable):
            await world.feed.top(Lane.KEYS)
    assert clock.boottime() - began < 2
    own_valkey.signal(signal.SIGCONT)
    async with asyncio.timeout(5):
        top = await world.feed.top(Lane.KEYS)  # Whether the append took effect, nobody could know before.
    assert top is not None
    await redis.aclose()
    await pubsub.aclose()


@pytest.mark.parametrize("store", ["valkey"], indirect=True)
async def test_a_server_that_lost_its_scripts_gets_them_again(store: Store, world: World) -> None:
    """A restart empties the script cache; the next append must not fail for it."""
    assert store.redis is not None
    start = await standing(world)
    first = next_event(world, start)
    await world.feed.append(first, after=start)
    await store.redis.script_flush()
    await world.feed.append(next_event(world, first.position), after=first.position)


@pytest.mark.parametrize("store", ["fakeredis", "valkey"], indirect=True)
@pytest.mark.parametrize("garbage", [b"", b"\xff\xfe", b"1:x:y", b"::", b"9" * 5000 + b":1:h"])
async def test_garbage_in_the_store_raises_nothing_but_our_own_errors(
    store: Store, world: World, garbage: bytes
) -> None:
    """Who can write to the store may stop the publisher, but must not crash it."""
    assert store.redis is not None
    await store.redis.hset(head_key(Lane.KEYS), "position", garbage)  # type: ignore[misc,arg-type]
    await store.redis.hset(snapshot_key(Lane.KEYS), "position", garbage)  # type: ignore[misc,arg-type]
    await store.redis.xadd(stream_key(Lane.KEYS, 1), {"other": garbage}, id="1-0")
    assert isinstance(await world.feed.top(Lane.KEYS), Top)
    assert await world.feed.events(Lane.KEYS, epoch=1, after=0) == [b""]
    assert not await world.feed.keep_snapshot(world.genesis(Lane.KEYS, sequence=3, hash="h" * 43))
    assert not await world.feed.confirm(Lane.KEYS, GENESIS.position)


@pytest.mark.parametrize("store", ["fakeredis", "valkey"], indirect=True)
async def test_a_lane_of_another_type_is_as_good_as_none_and_its_publisher_can_begin_it_anew(
    store: Store, world: World
) -> None:
    """One SET by a thief must not end a lane for ever; nor may what he prepared for the next epoch."""
    assert store.redis is not None
    start = await standing(world)
    for key in (head_key(Lane.KEYS), snapshot_key(Lane.KEYS), stream_key(Lane.KEYS, 2)):
        await store.redis.set(key, b"text")
    assert await world.feed.top(Lane.KEYS) is None
    second = world.genesis(Lane.KEYS, epoch=2)
    assert not await world.feed.open_epoch(second, after=str(start))
    assert await world.feed.open_epoch(second, after=None)
    assert await world.feed.snapshot(Lane.KEYS) == second.compact
    await world.feed.append(next_event(world, second.position), after=second.position)


@pytest.mark.parametrize("store", ["valkey"], indirect=True)  # fakeredis fails at a command that fails in a script.
@pytest.mark.parametrize("twist", ["an entry far ahead", "another type"])
async def test_a_stream_that_somebody_else_wrote_to_is_told_from_a_lost_race(
    store: Store, world: World, twist: str
) -> None:
    """Reading again would not help: only a new epoch does."""
    assert store.redis is not None
    start, key = await standing(world), stream_key(Lane.KEYS, 1)
    if twist == "another type":
        await store.redis.set(key, b"text")
    else:
        await store.redis.xadd(key, {"event": b"forged"}, id="999-0")
    with pytest.raises(StreamSpoiled):
        await world.feed.append(next_event(world, start), after=start, beside=Beside(sealed={"a-kid": b"box"}))
    assert await standing(world) == start
    assert await world.feed.sealed_keys() == {}
