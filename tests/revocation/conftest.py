"""The revocation service on a real Valkey, with a verifier that follows it and reports."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, encode_basic_auth
from redis.asyncio import Redis

from keyturn import entropy
from keyturn.contract.encoding import b64url
from keyturn.contract.events import RevocationsEvent, open_event
from keyturn.contract.jwk import ed25519_private_jwk
from keyturn.contract.positions import Lane
from keyturn.contract.trust import REDIRECTS_ROLE, Client
from keyturn.process.redis import connect
from keyturn.process.settings import Settings
from keyturn.verifier.policy import Policy
from keyturn.verifier.reporter import Reporter
from revocation.app import RevocationService
from serving.records import RecordKeys, RecordStore
from serving.service import Service
from tests.building import ADMIN, CLIENT, CLIENTS, SECRETS, Standing, new_access_token, serving_at, standing
from tests.families import begin
from tests.waiting import eventually
from tests.world import Member, new_statement_key, policy

VERIFIER = "sidecar-1"
PROVIDER = "https://login.example/tenant/"  # Another issuer, whose tokens live for two hours.
APP, OTHER_ADMIN = "app", "other-admin"  # A public client, and an operator beside ADMIN.
KNOWN: dict[str, Any] = {
    "clients": CLIENTS
    | {APP: Client(secret_hash="", grant_types=("authorization_code", "refresh_token")), OTHER_ADMIN: CLIENTS[ADMIN]},
    "client_roles": {REDIRECTS_ROLE + APP: ({"uri": "https://app.example/back"},)},
}


def private_file(path: Path, content: str | bytes) -> Path:
    """Write a file that only we may read."""
    path.touch(mode=0o600)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def authorization(who: str) -> dict[str, str]:
    """Return the header by which a client proves who it is."""
    return {"Authorization": encode_basic_auth(who, SECRETS[who])}


def settings_of(stage: Standing, folder: Path, **changes: str) -> Settings:
    """Return the settings of a revocation service for that world, its files in a folder."""
    role = stage.world.roles[Lane.REVOCATIONS]
    keys = {"id": "test", "seal": b64url(entropy.token_bytes(32)), "pepper": b64url(entropy.token_bytes(32))}
    names = {
        "KEYTURN_REDIS__URL": "redis://unused.invalid",
        "KEYTURN_REDIS__DURABLE": "true",
        "KEYTURN_ISSUERS__WORKFORCE__URL": PROVIDER,
        "KEYTURN_ISSUERS__WORKFORCE__TOKEN": "2h",
        "KEYTURN_RECORDS__KEY_FILE": str(private_file(folder / "records.json", json.dumps(keys))),
        "KEYTURN_REVOCATION__ROLE_KEY_FILE": str(
            private_file(folder / "role.jwk", json.dumps(ed25519_private_jwk(role._key)))
        ),
        "KEYTURN_REVOCATION__GENESIS_FILE": str(
            private_file(folder / "genesis.jws", stage.world.genesis(Lane.REVOCATIONS).compact)
        ),
    }
    return Settings({}, names | changes, beside=folder)


@dataclass
class Office:
    """The service, an HTTP client to it, and a verifier far away."""

    stage: Standing
    service: RevocationService
    http: ClientSession
    records: RecordStore
    verifier: Member
    policy: Policy

    async def refresh(self, **claims: Any) -> str:
        """Keep a family of refresh tokens of the client CLIENT and return its good one."""
        return await begin(self.stage, claims={"client_id": CLIENT} | claims)

    async def opaque(self, **claims: Any) -> str:
        """Keep an opaque access token of the client CLIENT and return it."""
        token = new_access_token()
        record = self.stage.world.claims(**({"client_id": CLIENT} | claims))
        await self.records.put(token, record, expires_at=self.stage.world.clock.now() + 300)
        return token

    def jwt(self, **claims: Any) -> str:
        """Return a signed token of the client CLIENT."""
        return self.stage.world.mint(**({"client_id": CLIENT} | claims)).decode()

    def passes(self, token: str) -> bool:
        """Say whether the verifier would let a token through now."""
        return self.verifier.verifier.judge(token.encode(), self.policy).kind == "active"

    async def revoke(self, token: str, *, who: str = CLIENT, query: str = "", **form: str) -> tuple[int, Any]:
        """Ask for the revocation of a token as RFC 7009 has it."""
        async with self.http.post(
            f"/revoke{query}", data={"token": token, **form}, headers=authorization(who)
        ) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def admin(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, key: str | None = None, **claims: Any
    ) -> Any:
        """Ask as an operator, with an idempotency key if one is given; return status and JSON."""
        token = await self.opaque(**({"client_id": ADMIN, "scope": "keyturn:admin", "sub": ADMIN} | claims))
        headers = {"Authorization": f"Bearer {token}"} | ({} if key is None else {"Idempotency-Key": key})
        async with self.http.request(method, path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def events(self) -> list[RevocationsEvent]:
        """Return what stands in the lane."""
        parts = self.stage.parts
        compacts = await parts.feed.events(Lane.REVOCATIONS, epoch=1, after=0)
        opened = [open_event(one, Lane.REVOCATIONS, parts.replica.trust.role(Lane.REVOCATIONS)) for one in compacts]
        return [one.event for one in opened if isinstance(one.event, RevocationsEvent)]

    def figure(self, name: str, **labels: str) -> float:
        """Return what a metric shows, 0 for one that never moved."""
        told = ",".join(f'{label}="{value}"' for label, value in labels.items())
        start = f"{name}{{{told}}} " if told else f"{name} "
        lines = self.stage.parts.metrics.render().decode().splitlines()
        return next((float(line.removeprefix(start)) for line in lines if line.startswith(start)), 0.0)

    @property
    def position(self) -> tuple[int, int]:
        """Return where the lane stands."""
        return self.stage.parts.replica.place(Lane.REVOCATIONS)


@asynccontextmanager
async def office_on(
    valkey: Redis,
    url: str,
    folder: Path,
    *,
    beside: Sequence[Service] = (),
    trust: Mapping[str, Any] | None = None,
    **changes: str,
) -> AsyncIterator[Office]:
    """Run the whole on a Valkey, with the services `beside` in one application; `trust` says more of its document."""
    async with AsyncExitStack() as stack:
        bell = connect(url, client_name="tests-bell", subscribing=True)
        stack.push_async_callback(bell.aclose)
        verifiers = {VERIFIER: new_statement_key()}
        stage = await stack.enter_async_context(
            standing(valkey, pubsub=bell, verifiers=verifiers, **{**KNOWN, **(trust or {})})
        )
        world = stage.world
        far = await stack.enter_async_context(world.following())
        await world.publisher(Lane.KEYS, far).append(world.first_key())
        settings = settings_of(stage, folder, **changes)
        service = RevocationService(settings, stage.parts)
        reporter = Reporter(stage.parts.feed, verifiers[VERIFIER], far.replica, world.clock, verifier=VERIFIER)
        far.follower.on_change.append(reporter.notice)
        reporting = asyncio.create_task(reporter.run())
        http = await stack.enter_async_context(serving_at([service, *beside], stage.parts))
        keys = RecordKeys.parse((folder / "records.json").read_bytes())
        await eventually(lambda: service.unready() is None, saying=service.unready)
        stage.record_keys = keys  # The service's own.
        office = Office(stage, service, http, RecordStore(valkey, keys, world.clock), far, policy())
        await eventually(lambda: service._watch.all() and office.passes(office.jwt()))
        yield office
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)


@pytest.fixture
async def office(valkey: Redis, valkey_url: str, tmp_path: Path) -> AsyncIterator[Office]:
    """Run the whole for one test."""
    async with office_on(valkey, valkey_url, tmp_path) as one:
        yield one
