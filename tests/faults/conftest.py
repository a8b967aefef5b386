"""One fleet for the tests that leave it whole, and people at it."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.faults.fleet import EVERYTHING, Fleet, running_fleet
from tests.faults.people import People, people_of


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """Run everything, from when a test first asks for it."""
    with asyncio.Runner() as runner:
        context = running_fleet(*EVERYTHING)
        running = runner.run(context.__aenter__())
        yield running
        runner.run(context.__aexit__(None, None, None))


@pytest.fixture
async def people(fleet: Fleet) -> AsyncIterator[People]:
    """Wait until the whole fleet is well again after the test before, and use it."""
    async with people_of(fleet) as people:
        yield people
