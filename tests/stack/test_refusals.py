"""What cannot work is refused at the start: status 2 and one line that names the setting and the mend."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import load_ed25519_private
from keyturn.contract.trust import TrustDocument, open_trust, sign_trust
from keyturn.feed.redis import TRUST_KEY
from keyturn.process.pinned import read_root
from keyturn.process.redis import connect
from keyturn.process.values import Secret
from stack.ports import free_port
from stack.server import EmbeddedServer
from tests.faults.fleet import SERVICES, spawn
from tests.waiting import eventually

ISSUER = "http://127.0.0.1:8400"
WEB = (*SERVICES, "sidecar")
ALL = (*WEB, "worker")
READERS = ("authorization", "introspection", "revocation", "worker", "sidecar")  # Who takes trust from the store.
CLOCK = SystemClock()
WITHIN_SECONDS = 15.0


class Site:
    """A provisioned directory, and its store."""

    def __init__(self, directory: Path, server: EmbeddedServer) -> None:
        """Know both."""
        self.directory, self.server = directory, server

    async def refusal(self, kind: str, **settings: str) -> str:
        """Start a process that must refuse, and return its one line."""
        settings = {"REDIS__URL": self.server.url(), "KEYSERVICE__SIGNING_LISTEN": "unix:/nowhere/at/all"} | settings
        if kind != "worker":
            settings = {f"{kind.upper()}__LISTEN": f"127.0.0.1:{free_port()}"} | settings
        process = spawn(self.directory / "keyturn.toml", kind, settings, stderr=subprocess.PIPE)
        try:
            await eventually(lambda: process.poll() is not None, within_seconds=WITHIN_SECONDS)
        finally:
            process.kill()
        _, said = await asyncio.to_thread(process.communicate)
        lines = [line for line in said.decode().splitlines() if not line.startswith("{")]  # The log is JSON.
        assert process.returncode == 2, said.decode()
        assert len(lines) == 1, said.decode()
        assert lines[0].startswith(f"{kind}: ")
        return lines[0]

    def document(self, **changes: Any) -> bytes:
        """Sign a changed trust document by this site's root."""
        compact = (self.directory / "trust.jws").read_bytes()
        document: TrustDocument = open_trust(
            compact, root=read_root(self.directory / "root.jwk"), allow_dev=True
        ).document  # fmt: skip
        private = json.loads((self.directory / "root" / "private.jwk").read_text())
        return sign_trust(StatementKey(load_ed25519_private(private)), msgspec.structs.replace(document, **changes))

    async def store_trust(self, compact: bytes) -> None:
        """Put a trust document into the store."""
        password = Secret.read(self.directory / "redis" / "default.password")
        redis = connect(self.server.url(), client_name="tests", username="default", password=password)
        await redis.set(TRUST_KEY, compact)
        await redis.aclose()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Provision a directory and run its store, which is empty."""
    directory = tmp_path / "kt"
    provision(directory, Plan(issuer=ISSUER), now=CLOCK.now())
    password = Secret.read(directory / "redis" / "default.password")
    acl = directory / "redis" / "users.acl"
    async with EmbeddedServer(tmp_path / "valkey", aclfile=acl, user="default", password=password) as server:
        yield Site(directory, server)


def another(tmp_path: Path) -> Path:
    """Provision a directory that has nothing to do with the site."""
    provision(tmp_path / "another", Plan(issuer=ISSUER), now=CLOCK.now())
    return tmp_path / "another"


@pytest.mark.parametrize("kind", ALL)
async def test_a_root_that_is_not_there_or_private_is_refused(site: Site, kind: str) -> None:
    """A private root in an application's settings is worse than none."""
    said = await site.refusal(kind, TRUST__ROOT="/nowhere/root.jwk")
    assert "(trust.root: name the root.jwk" in said
    private = str(site.directory / "root" / "private.jwk")
    assert "(trust.root: name the root.jwk" in await site.refusal(kind, TRUST__ROOT=private)


@pytest.mark.parametrize("kind", READERS)
async def test_another_root_than_the_stores_is_refused(site: Site, tmp_path: Path, kind: str) -> None:
    """Who waits for a document that will never come tells nobody why."""
    await site.store_trust(site.document())
    said = await site.refusal(kind, TRUST__ROOT=str(another(tmp_path) / "root.jwk"))
    assert "the store's trust document is not signed by this root (trust.root: " in said


@pytest.mark.parametrize("kind", READERS)
async def test_another_issuers_store_is_refused(site: Site, kind: str) -> None:
    """One origin's revocations must not be taken for another's."""
    await site.store_trust(site.document(issuer="https://elsewhere.example"))
    said = await site.refusal(kind)
    assert "the store belongs to issuer https://elsewhere.example" in said
    assert "(issuer.url: " in said


@pytest.mark.parametrize("kind", READERS)
async def test_a_document_of_the_development_stack_is_refused(site: Site, kind: str) -> None:
    """Its root lies on somebody's laptop, unprotected."""
    await site.store_trust(site.document(dev=True))
    assert "(trust.allow_dev: " in await site.refusal(kind)


@pytest.mark.parametrize(
    ("changes", "word"), [({"expires_at": 1_000_000_000.0}, "expired"), ({"dev": True}, "marked dev")]
)
async def test_the_key_service_refuses_a_document_that_is_not_in_force(
    site: Site, changes: dict[str, Any], word: str
) -> None:
    """It would put the document into the store, and everybody would stop."""
    (site.directory / "trust.jws").write_bytes(site.document(**changes))
    said = await site.refusal("keyservice")
    assert word in said
    assert "(keyservice.trust_document: " in said


async def test_the_key_service_refuses_another_root_than_its_documents(site: Site, tmp_path: Path) -> None:
    """A document that no verifier would believe."""
    said = await site.refusal("keyservice", TRUST__ROOT=str(another(tmp_path) / "root.jwk"))
    assert "(keyservice.trust_document: " in said


async def test_the_key_service_refuses_a_store_of_another_root(site: Site, tmp_path: Path) -> None:
    """A setting that points at somebody else's store must not take that one's trust away."""
    theirs = (another(tmp_path) / "trust.jws").read_bytes()
    await site.store_trust(theirs)
    assert "the store's trust document is not signed by this root (trust.root: " in await site.refusal("keyservice")


@pytest.mark.parametrize("kind", ["keyservice", "worker"])
async def test_a_missing_kek_is_refused(site: Site, kind: str) -> None:
    """No key could be sealed or opened."""
    (site.directory / "kek.json").unlink()
    assert "(keyservice.kek_file: " in await site.refusal(kind)


@pytest.mark.parametrize(
    ("kind", "file", "setting"),
    [
        ("keyservice", "roles/keys.jwk", "keyservice.role_key_file"),
        ("keyservice", "kek.json", "keyservice.kek_file"),
        ("keyservice", "records.json", "records.key_file"),
        ("worker", "roles/keys.jwk", "keyservice.role_key_file"),
        ("worker", "kek.json", "keyservice.kek_file"),
        ("authorization", "identities/authorization.jwk", "authorization.identity_file"),
        ("authorization", "records.json", "records.key_file"),
        ("introspection", "records.json", "records.key_file"),
        ("revocation", "roles/revocations.jwk", "revocation.role_key_file"),
        ("revocation", "records.json", "records.key_file"),
        ("sidecar", "identities/sidecar-1.jwk", "sidecar.identity_file"),
        *((kind, f"redis/{kind}.password", "redis.credentials") for kind in (*SERVICES, "worker")),
        ("sidecar", "redis/sidecar-1.password", "redis.credentials"),
    ],
)
async def test_a_secret_that_others_can_read_is_refused(site: Site, kind: str, file: str, setting: str) -> None:
    """It may have been read already."""
    path = site.directory / file
    path.chmod(0o644)
    said = await site.refusal(kind)
    assert f"{path} is open to other users" in said
    assert f"({setting}: chmod 600 {path})" in said


@pytest.mark.parametrize("kind", ALL)
async def test_a_setting_that_does_not_exist_is_refused(site: Site, kind: str) -> None:
    """What was meant by it would silently not hold."""
    said = await site.refusal(kind, FRESHNESS__STALED="1s")
    assert "there is no such setting (freshness.staled: did you mean stale?)" in said
    said = await site.refusal(kind, REDIS__PASSWORD="sesame")
    assert "sesame" not in said
    assert "redis.password_file" in said


@pytest.mark.parametrize("kind", WEB)
async def test_a_busy_port_is_refused(site: Site, kind: str) -> None:
    """The store's own port is one that is taken."""
    await site.store_trust(site.document())
    address = f"127.0.0.1:{site.server.port}"
    said = await site.refusal(kind, **{f"{kind.upper()}__LISTEN": address})
    assert address in said
    assert f"({kind}.listen: choose another" in said
