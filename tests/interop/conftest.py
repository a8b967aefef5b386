"""One system for all tests of this folder."""

import asyncio
from collections.abc import Iterator

import pytest

from stack.ports import free_port
from tests.interop.provider import CLIENT, Provider, running_provider
from tests.interop.system import System, running_system

ISSUERS = """
issuers = ["own", "provider"]

[issuers.provider]
url = "{issuer}"
token = "10m"
audience = "{audience}"

[streams.receiver]
audience = "https://receiver.example"
client = "resource"
"""


@pytest.fixture(scope="session")
def port() -> int:
    """Choose where the system will listen: the provider has to know it before."""
    return free_port()


@pytest.fixture(scope="session")
def provider(port: int) -> Iterator[Provider]:
    """Run another provider once, whose issuer the system knows as `provider`, and which tells it of logouts."""
    with asyncio.Runner() as runner:
        running = running_provider(
            backchannel_logout_uri=f"http://127.0.0.1:{port}/backchannel-logout",
            backchannel_logout_session_required=True,
        )
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def system(provider: Provider, port: int) -> Iterator[System]:
    """Run the system once; tests may rotate its keys, and revoke their own tokens."""
    with asyncio.Runner() as runner:
        running = running_system(ISSUERS.format(issuer=provider.issuer, audience=CLIENT), port=port)
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))
