"""The introspection service on a small world whose replica hears of changes only when it asks."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientSession

from introspection.app import IntrospectionService
from keyturn import entropy
from keyturn.contract.credentials import secret_hash
from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import ed25519_private_jwk
from keyturn.contract.keys import Use
from keyturn.contract.purposes import ACCESS_TOKEN, INTROSPECTION_ANSWER
from keyturn.contract.trust import Client, MaySign
from serving.listening import listening
from tests.authorization.signer import FakeSigner
from tests.building import CLIENTS, RESOURCE, SECRETS, FickleRedis, Standing, basic, serving_at, standing, write_secret
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
async def stage(store: FickleRedis, clock: LeapingClock, identity: Any) -> AsyncIterator[Standing]:
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
    types = tuple(MaySign(typ=typ, any_audience=True) for typ in (INTROSPECTION_ANSWER, ACCESS_TOKEN))
    async with standing(
        store, deaf=True, clients=clients, clock=clock, services={"introspection": StatementKey(identity)},
        may_sign={"introspection": types},
    ) as one:  # fmt: skip
        answers = one.world.new_key(use=Use.INTROSPECTION)
        await one.publish(answers, one.world.activation(answers.kid), *one.world.first_key())
        yield one


@pytest.fixture
def identity() -> Any:
    """Make the service's identity."""
    return entropy.new_statement_key()


@pytest.fixture
async def signer(stage: Standing, tmp_path: Path) -> AsyncIterator[FakeSigner]:
    """Run the signer on its socket."""
    fake = FakeSigner(stage)
    fake.kids[INTROSPECTION_ANSWER] = next(key.kid for key in stage.member.replica.keys if key.use == "introspection")
    async with listening(fake.application(), f"unix:{tmp_path}/run/sign.sock"):
        yield fake


@pytest.fixture
async def session(
    stage: Standing, signer: FakeSigner, identity: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ClientSession]:
    """Serve the introspection service, whose own look at the store each second adds to no count."""
    monkeypatch.setattr("serving.probing.LOOK_SECONDS", 3600.0)
    write_secret(tmp_path / "identity.jwk", encode_json(ed25519_private_jwk(identity)).decode())
    own = {"identity_file": "identity.jwk", "signer": f"unix:{tmp_path}/run/sign.sock"}
    service = IntrospectionService(stage.settings(tmp_path, introspection=own), stage.parts)
    async with serving_at([service], stage.parts) as client:
        yield client


@pytest.fixture
def ask(session: ClientSession) -> Ask:
    """Return a function that asks about a token, as `resource` unless it is told another."""

    async def one(token: str | bytes, client_id: str = RESOURCE, *, accept: str | None = None, **form: str) -> Answer:
        text = token.decode() if isinstance(token, bytes) else token
        headers = basic(client_id, SECRETS.get(client_id, SECRETS[RESOURCE]))
        if accept is not None:
            headers["Accept"] = accept
        async with session.post("/introspect", data={"token": text, **form}, headers=headers) as answer:
            kept = {name: value for name, value in answer.headers.items() if name != "Date"}
            return Answer(answer.status, await answer.read(), kept)

    return one


@pytest.fixture
def slept(clock: LeapingClock, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the service's sleeps pass at once, in no time at all, and return them."""
    seconds, began = list[float](), clock.boottime()

    async def sleep(one: float) -> None:
        seconds.append(one)

    monkeypatch.setattr(clock, "sleep", sleep)
    monkeypatch.setattr(clock, "boottime", lambda: began)  # However long a busy machine takes.
    return seconds
