"""The feed over memory, over fakeredis and over a real Valkey: one suite for all three."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import fakeredis
import pytest
from redis.asyncio import Redis

from keyturn.feed.memory import MemoryFeed
from keyturn.feed.redis import RedisFeed
from tests.feed.valkey import Valkey
from tests.world import World


@dataclass
class Store:
    """A feed, its name, and what only a test does to it."""

    kind: str
    feed: MemoryFeed | RedisFeed
    cut: Callable[[], Awaitable[None]]  # Lose every subscription; fakeredis has no way to.
    redis: Redis | None = None
    pubsub: Redis | None = None


@pytest.fixture(scope="session")
def one_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """Run one Valkey for the session."""
    server = Valkey(tmp_path_factory.mktemp("feed-valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """Run a Valkey that this test may freeze or end."""
    server = Valkey(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "fakeredis", "valkey"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Return each kind of store in turn, empty."""
    if request.param == "memory":
        feed = MemoryFeed()

        async def cut() -> None:
            feed.cut()

        yield Store("memory", feed, cut)
        return
    if request.param == "fakeredis":
        server = fakeredis.FakeServer()
        redis: Redis = fakeredis.FakeAsyncRedis(server=server)
        pubsub: Redis = fakeredis.FakeAsyncRedis(server=server)
    else:
        valkey: Valkey = request.getfixturevalue("one_valkey")
        redis, pubsub = valkey.client(), valkey.client(socket_timeout=None)
        await redis.flushall()

    async def kill() -> None:
        await redis.client_kill_filter(_type="pubsub")

    yield Store(request.param, RedisFeed(redis, pubsub=pubsub), kill, redis, pubsub)
    await redis.aclose()
    await pubsub.aclose()


@pytest.fixture
async def world(store: Store) -> World:
    """Return a world whose lanes have begun on that store."""
    return await World(feed=store.feed).begin()
