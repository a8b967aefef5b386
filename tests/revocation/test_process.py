"""`python -m revocation` as a process of its own, as the store's user of that name and with nothing more allowed."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientConnectorError, ClientSession

from keyturn import entropy
from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential
from keyturn.contract.positions import Lane
from keyturn.contract.trust import open_trust
from keyturn.feed.publisher import bootstrap
from keyturn.feed.redis import RedisFeed
from keyturn.process.pinned import read_root
from keyturn.process.redis import connect
from keyturn.process.values import Secret
from serving.records import RecordKeys, RecordStore
from stack.ports import free_port
from stack.server import EmbeddedServer
from tests.waiting import eventually

ISSUER = "https://issuer.example"
CLOCK = SystemClock()


@asynccontextmanager
async def started(directory: Path, **variables: str) -> AsyncIterator[Process]:
    """Run `python -m revocation` on that directory's keyturn.toml."""
    named = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "revocation", "--config", str(directory / "keyturn.toml"),
        env=named | {f"KEYTURN_{name}": value for name, value in variables.items()},
        cwd=Path(__file__).parents[2], stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def begun_without_the_revocations_lane(
    directory: Path, server: EmbeddedServer, password: Secret
) -> AsyncIterator[RecordStore]:
    """Store trust document and keys lane as the key service would; give the records."""
    redis = connect(server.url("default"), client_name="tests", password=password)
    feed = RedisFeed(redis, pubsub=redis)
    compact = (directory / "trust.jws").read_bytes()
    await feed.keep_trust(compact)
    trust = open_trust(compact, root=read_root(directory / "root.jwk"), allow_dev=True)
    await bootstrap(feed, (directory / "genesis" / "keys.jws").read_bytes(), trust, Lane.KEYS)
    yield RecordStore(redis, RecordKeys.parse((directory / "records.json").read_bytes()), CLOCK)
    await redis.aclose()


async def put_admin_token(records: RecordStore) -> str:
    """Keep an operator's token."""
    token = make_credential(CredentialKind.ACCESS, entropy.token_bytes(RANDOM_BYTES))
    now = CLOCK.now()
    claims = {
        "iss": ISSUER, "sub": "admin", "client_id": "admin", "aud": "keyturn:admin", "scope": "keyturn:admin",
        "iat": now, "exp": now + 300, "jti": entropy.uuid7(now), "grant_id": entropy.uuid7(now),
    }  # fmt: skip
    await records.put(token, claims, expires_at=now + 300)
    return token


async def test_it_begins_its_lane_revokes_and_ends_cleanly(tmp_path: Path) -> None:
    """Under its own access list: one command too few and the first revocation would fail in production."""
    directory, port = tmp_path / "kt", free_port()
    provision(directory, Plan(issuer=ISSUER, verifiers=("sidecar-1",)), now=CLOCK.now())
    password = Secret.read(directory / "redis" / "default.password")
    server = EmbeddedServer(
        tmp_path / "valkey", aclfile=directory / "redis" / "users.acl", user="default", password=password
    )
    async with (
        server,
        begun_without_the_revocations_lane(directory, server, password) as records,
        ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        variables = {
            "REDIS__URL": server.url(), "REDIS__DURABLE": "true", "REVOCATION__BOOTSTRAP": "true",
            "REVOCATION__LISTEN": f"127.0.0.1:{port}",
        }  # fmt: skip
        async with started(directory, **variables) as process:

            async def ready() -> bool:
                try:
                    async with http.get("/readyz") as response:
                        return response.status == 200
                except ClientConnectorError:
                    return process.returncode is not None

            await eventually(ready, within_seconds=15)
            headers = {"Authorization": f"Bearer {await put_admin_token(records)}"}
            order = {"selector": {"sub": "alice"}}

            async def vouched() -> bool:
                async with http.post("/revocations?wait=all", json=order, headers=headers) as response:
                    told = await response.json()
                    return response.status == 200 and told["durability"] == "local"

            await eventually(vouched)
            process.send_signal(signal.SIGTERM)
            _, log = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 0, log.decode()
    assert b"Traceback" not in log


@pytest.mark.parametrize(
    ("variable", "value", "setting"),
    [
        ("REVOCATION__ROLE_KEY_FILE", "/nowhere/role.jwk", "revocation.role_key_file"),
        ("REVOCATION__GENESIS_FILE", "/nowhere/genesis.jws", "revocation.genesis_file"),
        ("REVOCATION__LEEWAY", "1s", "revocation.leeway"),
        ("FRESHNESS__SKEW", "51s", "revocation.leeway"),
        ("REVOCATION__LISTEN", "here", "revocation.listen"),
    ],
)
async def test_a_setting_that_cannot_work_is_one_line_and_status_2(
    tmp_path: Path, variable: str, value: str, setting: str
) -> None:
    """It names the setting and the mend, before anything is served."""
    provision(tmp_path / "kt", Plan(issuer=ISSUER, verifiers=("sidecar-1",)), now=CLOCK.now())
    async with started(tmp_path / "kt", **{variable: value}) as process:
        _, said = await asyncio.wait_for(process.communicate(), 15)
    assert (process.returncode, said.count(b"\n")) == (2, 1)
    assert f"({setting}: ".encode() in said
