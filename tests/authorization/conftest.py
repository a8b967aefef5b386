"""The authorization service on a small world, with a signer beside it."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession
from redis.asyncio import Redis

from authorization.app import AuthorizationService
from keyturn import entropy
from keyturn.clock import Clock, SystemClock
from keyturn.contract.credentials import secret_hash
from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import ed25519_private_jwk
from keyturn.contract.trust import Client, MaySign, TokenFormat
from serving.listening import listening
from tests.authorization.door import OF_USERS, ROLES, Door, door_on
from tests.authorization.signer import FakeSigner
from tests.building import CLIENT, CLIENTS, SECRETS, FickleRedis, Standing, basic, serving_at, standing, write_secret
from tests.described import check_described
from tests.families import APP, TWO
from tests.world import AUDIENCE

Ask = Callable[..., Any]
OTHER_APP = "other-refresher"
"""A client that may hold refresh tokens, as `refresher` may."""


@pytest.fixture
def identity() -> Any:
    """Make the service's identity."""
    return entropy.new_statement_key()


@pytest.fixture
def store() -> FickleRedis:
    """Return an empty store."""
    return FickleRedis()


@pytest.fixture
def clock() -> Clock:
    """Return the clock that everything goes by."""
    return SystemClock()


@asynccontextmanager
async def stage_on(redis: Redis, identity: Any, **options: Any) -> AsyncIterator[Standing]:
    """Begin a world with an active key and clients of several kinds."""
    secret = secret_hash(SECRETS[CLIENT])
    grants: Any = {"secret_hash": secret, "grant_types": ("client_credentials",)}
    clients: Mapping[str, Client] = {
        **CLIENTS,
        **OF_USERS,
        "wide": Client(**grants, scopes=("read", "write"), audiences=(AUDIENCE, TWO, "urn:three")),
        "opaque": Client(**grants, scopes=("read",), audiences=(AUDIENCE,), token_format=TokenFormat.OPAQUE),
        "careless": Client(**grants, scopes=("keyturn:admin", "read"), audiences=(AUDIENCE,)),
        "odd": Client(**grants, audiences=(AUDIENCE, "https://odd.example/#part")),
        "bare": Client(**grants),
        "refused": Client(**grants, audiences=(AUDIENCE,)),
        **{
            name: Client(
                secret_hash=secret, grant_types=("refresh_token",), scopes=("read", "write"), audiences=(AUDIENCE, TWO)
            )
            for name in (APP, OTHER_APP)
        },
    }
    async with standing(
        redis, clients=clients, client_roles=ROLES, services={"authorization": StatementKey(identity)},
        may_sign={"authorization": (MaySign(typ="at+jwt", any_audience=True),)}, **options,
    ) as one:  # fmt: skip
        await one.publish(*one.world.first_key())
        yield one


@pytest.fixture
async def stage(identity: Any, store: FickleRedis, clock: Clock) -> AsyncIterator[Standing]:
    """Begin it on the store in memory."""
    async with stage_on(store, identity, clock=clock) as one:
        yield one


@asynccontextmanager
async def signer_of(stage: Standing, directory: Path) -> AsyncIterator[FakeSigner]:
    """Run the signer on its socket."""
    fake = FakeSigner(stage)
    async with listening(fake.application(), f"unix:{directory}/run/sign.sock"):
        yield fake


@pytest.fixture
async def signer(stage: Standing, tmp_path: Path) -> AsyncIterator[FakeSigner]:
    """Run it for the stage."""
    async with signer_of(stage, tmp_path) as fake:
        yield fake


@pytest.fixture
async def session(stage: Standing, signer: FakeSigner, identity: Any, tmp_path: Path) -> AsyncIterator[ClientSession]:
    """Serve the authorization service."""
    write_secret(tmp_path / "identity.jwk", encode_json(ed25519_private_jwk(identity)).decode())
    own = {"identity_file": "identity.jwk", "signer": f"unix:{tmp_path}/run/sign.sock"}
    service = AuthorizationService(stage.settings(tmp_path, authorization=own), stage.parts)
    async with serving_at([service], stage.parts) as client:
        yield client


@pytest.fixture
async def door(stage: Standing, signer: FakeSigner, identity: Any, tmp_path: Path) -> AsyncIterator[Door]:
    """Serve it where users can sign in."""
    async with door_on(stage, identity, tmp_path, signer=f"unix:{tmp_path}/run/sign.sock") as one:
        yield one


@pytest.fixture
def ask(session: ClientSession) -> Ask:
    """Return a function that asks for a token, as `client` unless it is told another."""

    async def one(
        client_id: str = CLIENT, fields: list[tuple[str, str]] | None = None, **form: str
    ) -> tuple[ClientResponse, Any]:
        pairs = [("grant_type", "client_credentials"), *form.items()] if fields is None else fields
        secret = SECRETS.get(client_id, SECRETS[CLIENT])
        async with session.post("/token", data=pairs, headers=basic(client_id, secret)) as answer:
            told = await answer.json()
        async with session.get("/openapi.json") as described:
            description = await described.json()
        kind = answer.content_type
        check_described(description, ("POST", "/token"), status=answer.status, kind=kind, content=told)
        return answer, told

    return one
