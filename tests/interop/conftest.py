"""One system for all tests of this folder."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.interop.provider import CLIENT, Provider, running_provider
from tests.interop.system import System, running_system

ISSUERS = """
issuers = ["own", "provider"]

[issuers.provider]
url = "{issuer}"
token = "10m"
audience = "{audience}"
"""


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    """Run another provider once, whose issuer the system knows as `provider`."""
    with asyncio.Runner() as runner:
        running = running_provider()
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def system(provider: Provider) -> Iterator[System]:
    """Run the system once; tests may rotate its keys, and revoke their own tokens."""
    with asyncio.Runner() as runner:
        running = running_system(ISSUERS.format(issuer=provider.issuer, audience=CLIENT))
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))
