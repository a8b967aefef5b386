"""One system for all tests of this folder."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.interop.system import System, running_system


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """Run the system once; tests may rotate its keys, and revoke their own tokens."""
    with asyncio.Runner() as runner:
        running = running_system()
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))
