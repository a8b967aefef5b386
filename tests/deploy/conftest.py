"""One composition for all tests of this folder."""

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.composition import Composition


@pytest.fixture(scope="session")
def composition() -> Iterator[Composition]:
    """Run everything that compose.yaml describes; a short path, since sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="keyturn-") as directory, asyncio.Runner() as runner:
        running = Composition(Path(directory))
        runner.run(running.__aenter__())
        yield running
        runner.run(running.stop())
