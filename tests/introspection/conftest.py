"""The introspection service on a small world whose replica hears of changes only when it asks."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientSession

from introspection.app import IntrospectionService
from keyturn.contract.credentials import secret_hash
from keyturn.contract.trust import Client
from tests.building import CLIENTS, RESOURCE, SECRETS, FickleRedis, Standing, basic, serving_at, standing
from tests.clocks import LeapingClock
from tests.world import AUDIENCE

SHOP = Client(secret_hash=secret_hash("shop"))
OTHER, BOTH = "other-resource", "two-resources"


class Answer(NamedTuple):
    """What came back."""

    status: int
    body: bytes
    headers: dict[str, str]


Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
def store() -> FickleRedis:
    """Return an empty store."""
    return FickleRedis()


@pytest.fixture
def clock() -> LeapingClock:
    """Return the service's clock."""
    return LeapingClock()


@pytest.fixture
async def stage(store: FickleRedis, clock: LeapingClock) -> AsyncIterator[Standing]:
    """Begin a world with an active key; its tokens are `shop`'s."""
    asking: Any = {"secret_hash": secret_hash(SECRETS[RESOURCE]), "may_introspect": True}
    clients = {
        **CLIENTS,
        "shop": SHOP,
        OTHER: Client(**asking, audiences=("https://other.example",)),
        BOTH: Client(**asking, audiences=("https://other.example", AUDIENCE)),
        "nothing": Client(**asking),
        "public": Client(secret_hash="", may_introspect=True, audiences=(AUDIENCE,)),
    }
    async with standing(store, deaf=True, clients=clients, clock=clock) as one:
        await one.publish(*one.world.first_key())
        yield one


@pytest.fixture
async def session(stage: Standing, tmp_path: Path) -> AsyncIterator[ClientSession]:
    """Serve the introspection service."""
    async with serving_at([IntrospectionService(stage.settings(tmp_path), stage.parts)], stage.parts) as client:
        yield client


@pytest.fixture
def ask(session: ClientSession) -> Ask:
    """Return a function that asks about a token, as `resource` unless it is told another."""

    async def one(token: str | bytes, client_id: str = RESOURCE, **form: str) -> Answer:
        text = token.decode() if isinstance(token, bytes) else token
        headers = basic(client_id, SECRETS.get(client_id, SECRETS[RESOURCE]))
        async with session.post("/introspect", data={"token": text, **form}, headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name != "Date"}
            return Answer(answer.status, await answer.read(), kept)

    return one
