"""One whole system under the access list that `keyturn init` makes."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from tests.faults.fleet import EVERYTHING, Fleet, running_fleet


@pytest.fixture(scope="session")
def listed_fleet() -> Iterator[Fleet]:
    """Run everything, from when a test first asks for it."""
    with asyncio.Runner() as runner:
        context = running_fleet(*EVERYTHING)
        running = runner.run(context.__aenter__())
        yield running
        runner.run(context.__aexit__(None, None, None))


@pytest.fixture
async def administrator(listed_fleet: Fleet) -> AsyncIterator[Redis]:
    """Log in to its store as the default user."""
    async with listed_fleet.redis() as redis:
        yield redis
