"""A fake sidecar for the tests of its HTTP."""

from collections.abc import AsyncIterator

import pytest

from tests.sidecar.wire import FakeSidecar, fake_sidecar


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    """Run a listener on a free port, with the limits as they ship and a clock that stands still."""
    async with fake_sidecar() as running:
        yield running
