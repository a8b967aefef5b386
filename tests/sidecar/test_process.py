"""The sidecar as an operator runs it: a process of its own, on a real server, as its own user."""

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.contract.encoding import decode_object
from keyturn.contract.positions import Lane
from keyturn.contract.trust import open_trust
from keyturn.feed.publisher import bootstrap
from keyturn.feed.redis import RedisFeed
from keyturn.process.redis import connect
from keyturn.process.values import Secret
from stack.ports import free_port
from stack.server import EmbeddedServer
from tests.sidecar.wire import Client
from tests.waiting import eventually

ISSUER = "https://issuer.example"
ROOT = Path(__file__).parents[2]


@dataclass
class Site:
    """A provisioned directory, and the server that belongs to it."""

    directory: Path
    server: EmbeddedServer
    redis: Redis

    async def begin(self, *, dev: bool = False) -> None:
        """Put the trust document and both lanes into the store, as the services do."""
        feed = RedisFeed(self.redis, pubsub=self.redis)
        root = decode_object((self.directory / "root.jwk").read_bytes())
        compact = (self.directory / "trust.jws").read_bytes()
        trust = open_trust(compact, root=root, allow_dev=dev)
        await feed.keep_trust(compact)
        for lane in Lane:
            await bootstrap(feed, (self.directory / "genesis" / f"{lane}.jws").read_bytes(), trust, lane)


@asynccontextmanager
async def _site(directory: Path, *, dev: bool = False) -> AsyncIterator[Site]:
    provision(directory, Plan(issuer=ISSUER, dev=dev), now=SystemClock().now())
    password = Secret.read(directory / "redis" / "default.password")
    users = directory / "redis" / "users.acl"
    async with EmbeddedServer(directory / "server", aclfile=users, user="default", password=password) as server:
        redis = connect(server.url("default"), client_name="tests", password=password)
        try:
            yield Site(directory, server, redis)
        finally:
            await redis.aclose()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Provision a directory and run its server; nothing is in it."""
    async with _site(tmp_path / "keyturn") as running:
        yield running


@asynccontextmanager
async def _process(site: Site, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    variables = {"KEYTURN_REDIS__URL": site.server.url(), **settings}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "keyturn.cli.main", "sidecar", "--config", str(site.directory / "keyturn.toml"),
        cwd=ROOT, env=kept | variables, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _ended(process: asyncio.subprocess.Process) -> tuple[int | None, str]:
    async with asyncio.timeout(15):
        _, told = await process.communicate()
    return process.returncode, told.decode()


async def _get(client: Client, path: str) -> tuple[int, bytes]:
    reply = await client.ask(f"GET {path} HTTP/1.1\r\nHost: s\r\n\r\n".encode())
    return reply.status, reply.body


async def test_it_becomes_ready_when_the_feed_begins_and_leaves_in_order(site: Site, tmp_path: Path) -> None:
    """The whole life: it starts before anything else, on a socket that nobody else can reach."""
    path = tmp_path / "gate" / "sidecar.sock"
    async with _process(site, KEYTURN_SIDECAR__LISTEN=f"unix:{path}") as process:
        await eventually(path.is_socket, within_seconds=15)
        client = Client(*await asyncio.open_unix_connection(str(path)))
        status, body = await _get(client, "/readyz")
        assert status == 503
        assert "sidecar" in json.loads(body)["reasons"]
        assert (await _get(client, "/nginx/default"))[0] == 401
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750

        await site.begin()

        async def ready() -> bool:
            return (await _get(client, "/readyz"))[0] == 200

        await eventually(ready, within_seconds=10)
        state = json.loads((await _get(client, "/state"))[1])
        assert (state["state"], state["verifier"], state["trust_version"]) == ("fresh", "sidecar-1", 1)
        assert await site.redis.exists("keyturn:presence:sidecar-1")
        running = await site.redis.get("keyturn:presence:sidecar-1")

        process.send_signal(signal.SIGTERM)
        code, told = await _ended(process)

        assert code == 0, told
        assert not path.exists()
        assert await site.redis.get("keyturn:presence:sidecar-1") != running  # The goodbye.
        await client.close()


async def test_a_trust_document_of_another_root_ends_it_with_status_2(site: Site, tmp_path: Path) -> None:
    """It would otherwise answer 503 for good, and nobody would know why."""
    await site.begin()
    provision(tmp_path / "other", Plan(issuer=ISSUER), now=SystemClock().now())
    (site.directory / "root.jwk").write_bytes((tmp_path / "other" / "root.jwk").read_bytes())

    async with _process(site, KEYTURN_SIDECAR__LISTEN=f"127.0.0.1:{free_port()}") as process:
        code, told = await _ended(process)

    assert code == 2
    assert told.splitlines()[-1].startswith(
        "sidecar: the store's trust document is not signed by this root (trust.root:"
    )


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("KEYTURN_ISSUER__URL", "https://other.example", f"the store belongs to issuer {ISSUER}"),
        ("KEYTURN_SIDECAR__IDENTITY_FILE", "identities/worker.jwk", "knows no verifier sidecar-1 with this key"),
        ("KEYTURN_SIDECAR__LISTEN", "0.0.0.0:8410", "needs client authentication"),
        ("KEYTURN_SIDECAR__DIALECTS", "apache", "is not a dialect (sidecar.dialects: choose from nginx)"),
        ("KEYTURN_POLICY__DEFAULT__SCOPES", "read write", "a scope is one word"),
        ("KEYTURN_POLICY__DEFAULT__AUDIENCE", "", "policy.default.audience"),
    ],
)
async def test_what_cannot_work_ends_it_with_one_clear_line(site: Site, setting: str, value: str, told: str) -> None:
    """The line names the setting and the mend."""
    await site.begin()
    settings = {"KEYTURN_SIDECAR__LISTEN": f"127.0.0.1:{free_port()}"}
    settings[setting] = str(site.directory / value) if setting.endswith("_FILE") else value

    async with _process(site, **settings) as process:
        code, said = await _ended(process)

    assert code == 2
    assert told in said.splitlines()[-1]


async def test_a_document_of_the_development_stack_is_refused_unless_allowed(tmp_path: Path) -> None:
    """A developer's keys must never vouch for production's tokens."""
    async with _site(tmp_path / "keyturn", dev=True) as site:
        await site.begin(dev=True)
        settings = {"KEYTURN_SIDECAR__LISTEN": f"127.0.0.1:{free_port()}", "KEYTURN_TRUST__ALLOW_DEV": "false"}
        async with _process(site, **settings) as process:
            code, told = await _ended(process)

    assert code == 2
    assert "development stack" in told.splitlines()[-1]


async def test_a_socket_in_a_directory_of_everybody_is_refused(site: Site, tmp_path: Path) -> None:
    """Who may write there could put his own socket in its place."""
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)

    async with _process(site, KEYTURN_SIDECAR__LISTEN=f"unix:{place}/s.sock") as process:
        code, told = await _ended(process)

    assert code == 2
    assert "chmod 750" in told.splitlines()[-1]


async def test_a_socket_left_behind_by_a_crash_is_taken_over_and_a_live_one_is_not(site: Site, tmp_path: Path) -> None:
    """A restart needs no hand, and two sidecars never fight over one gateway."""
    path = tmp_path / "gate" / "sidecar.sock"
    where = {"KEYTURN_SIDECAR__LISTEN": f"unix:{path}"}
    async with _process(site, **where) as first:
        await eventually(path.is_socket, within_seconds=15)
        for elsewhere, told_by in (("state", "belongs to a process"), ("another", "listens")):
            own = {"KEYTURN_STATE__DIRECTORY": str(site.directory / elsewhere)}
            async with _process(site, **where, **own) as second:
                code, told = await _ended(second)
                assert code == 2
                assert told_by in told.splitlines()[-1]
        first.kill()
        await first.wait()
    assert path.is_socket()

    async def answers() -> bool:
        try:
            client = Client(*await asyncio.open_unix_connection(str(path)))
        except OSError:
            return False
        status, _ = await _get(client, "/healthz")
        await client.close()
        return status == 200

    assert not await answers()
    async with _process(site, **where):
        await eventually(answers, within_seconds=15)
