"""A pair of servers and a group with sentinels, which each test leaves as it was or has mended for the next."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.stores.pairs import Pair
from tests.stores.sentinels import SentinelGroup


@pytest.fixture(scope="session")
def running_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Run a pair for all tests of this folder."""
    with asyncio.Runner() as runner:
        pair = Pair(tmp_path_factory.mktemp("pair"))
        runner.run(pair.start())
        yield pair
        runner.run(pair.stop())


@pytest.fixture
async def pair(running_pair: Pair) -> AsyncIterator[Pair]:
    """Return the pair, and leave the primary with its own settings."""
    yield running_pair
    async with running_pair.redis() as admin:
        await admin.config_set("min-replicas-to-write", 0)


@pytest.fixture(scope="session")
def running_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelGroup]:
    """Run one group for all tests of this folder."""
    with asyncio.Runner() as runner:
        group = SentinelGroup(tmp_path_factory.mktemp("sentinels"))
        runner.run(group.__aenter__())
        yield group
        runner.run(group.__aexit__(None, None, None))


@pytest.fixture
async def group(running_group: SentinelGroup) -> SentinelGroup:
    """Return the group, empty and whole: three servers that run, two of them replicas in step."""
    await running_group.mended()
    return running_group
