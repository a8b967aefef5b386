"""A fake sidecar for the tests of its HTTP, and a real one for the rest."""

from collections.abc import AsyncIterator

import pytest

from tests.sidecar.beside import Beside, running_sidecar
from tests.sidecar.wire import FakeSidecar, fake_sidecar


@pytest.fixture
async def sidecar() -> AsyncIterator[FakeSidecar]:
    """Run a listener on a free port, with the limits as they ship and a clock that stands still."""
    async with fake_sidecar() as running:
        yield running


@pytest.fixture
async def beside() -> AsyncIterator[Beside]:
    """Run a sidecar that is ready, with one key that signs."""
    async with running_sidecar() as running:
        yield running
