"""Fixtures: a real Valkey for the whole run, emptied for each test, or one of a test's own to break."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from keyturn.process.redis import connect
from stack.server import EmbeddedServer


@pytest.fixture(scope="session")
def shared_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Run one Valkey, started when first asked for; tests leave its process alone."""
    server = EmbeddedServer(tmp_path_factory.mktemp("valkey"))
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(server.start())
        yield server
        runner.run(server.stop())


@pytest.fixture
async def valkey_url(shared_valkey: EmbeddedServer) -> str:
    """Return the URL of the shared Valkey, emptied."""
    redis = connect(shared_valkey.url(), client_name="tests")
    try:
        await redis.flushall()
        await redis.script_flush()
    finally:
        await redis.aclose()
    return shared_valkey.url()


@pytest.fixture
async def valkey(valkey_url: str) -> AsyncIterator[Redis]:
    """Connect to the shared Valkey, emptied."""
    redis = connect(valkey_url, client_name="tests")
    yield redis
    await redis.aclose()


@pytest.fixture
async def own_valkey(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """Run a Valkey of this test's own, to freeze, kill and restart."""
    async with EmbeddedServer(tmp_path / "valkey") as server:
        yield server
