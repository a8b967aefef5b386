"""`rediss://` with a private authority, on a real server: who is not the one that was meant is not spoken to."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.process.following import StoreConnections
from keyturn.process.redis import server_facts
from keyturn.process.settings import RedisSettings
from stack.server import EmbeddedServer
from tests.stores.encrypted import Authority, EncryptedServer
from tests.stores.living import living
from tests.waiting import eventually

NOT_VERIFIED = "CERTIFICATE_VERIFY_FAILED"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make the authority that the server's certificate is by."""
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[EncryptedServer]:
    """Run a server and its sentinel."""
    with asyncio.Runner() as runner:
        server = EncryptedServer(tmp_path_factory.mktemp("encrypted"), authority)
        runner.run(server.__aenter__())
        yield server
        runner.run(server.__aexit__())


async def refusal(settings: RedisSettings) -> str:
    """Return why a feed cannot be read."""
    async with AsyncExitStack() as stack:
        ways = StoreConnections(stack, settings, "tests")
        with pytest.raises(FeedUnavailable) as refused:
            await ways.feed(ways.client()).top(Lane.KEYS)
    return str(refused.value)


@pytest.mark.parametrize("watched", [False, True])
async def test_a_keyturn_lives_on_an_encrypted_store(
    server: EncryptedServer, authority: Authority, watched: bool
) -> None:
    """Publishing, following and being pushed to, straight and by the word of a sentinel that is encrypted, too."""
    settings = server.watched if watched else RedisSettings(url=server.url, ca_file=authority.ca_file)
    async with AsyncExitStack() as stack:
        redis = StoreConnections(stack, settings, "tests").client()
        assert (await server_facts(redis)).append_fsync == "always"
        await redis.flushall()
    async with living(settings) as system:
        place = await system.revoke("one")
        await eventually(lambda: system.at(Lane.REVOCATIONS, place), saying=system.told)
        assert system.revoked("one") == [True, True]


async def test_a_server_of_another_authority_is_refused(server: EncryptedServer, tmp_path: Path) -> None:
    """Somebody on the way with a certificate of his own would get the password."""
    other = Authority(tmp_path / "theirs")
    assert NOT_VERIFIED in await refusal(RedisSettings(url=server.url, ca_file=other.ca_file))
    assert NOT_VERIFIED in await refusal(RedisSettings(url=server.url))  # Nor do the system's authorities know ours.


async def test_a_certificate_for_another_address_is_refused(authority: Authority, tmp_path: Path) -> None:
    """The client library alone would take any certificate of the authority, such as the web server's."""
    async with EncryptedServer(tmp_path / "server", authority, certified="192.0.2.1") as server:
        told = await refusal(RedisSettings(url=server.url, ca_file=authority.ca_file))
    assert NOT_VERIFIED in told
    assert "IP address mismatch" in told


async def test_plain_text_and_tls_do_not_meet(
    server: EncryptedServer, authority: Authority, shared_valkey: EmbeddedServer
) -> None:
    """Neither side falls back to what the other speaks."""
    assert "ConnectionError" in await refusal(RedisSettings(url=server.url.replace("rediss:", "redis:")))
    plain = shared_valkey.url().replace("redis:", "rediss:")
    assert "TimeoutError: Timeout connecting" in await refusal(RedisSettings(url=plain, ca_file=authority.ca_file))
