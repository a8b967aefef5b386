"""Runs HTTP services for tests: over a small world, on a store of the test's choice, at a loopback port."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote_plus

from aiohttp import ClientSession, ClientTimeout
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from keyturn import entropy
from keyturn.clock import Clock, SystemClock
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential, secret_hash
from keyturn.contract.encoding import b64url
from keyturn.contract.keys import KeyChange
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry
from keyturn.contract.trust import Client
from keyturn.feed.assurance import Assurance
from keyturn.feed.redis import RedisFeed
from keyturn.process.belonging import Pinned
from keyturn.process.grants import LONGEST_GRANT_SECONDS
from keyturn.process.logging import logger
from keyturn.process.metrics import Metrics
from keyturn.process.settings import Settings
from serving.application import make_application
from serving.health import add_health
from serving.listening import listening
from serving.parts import Parts
from serving.promises import Promise, Promises
from serving.records import RecordKeys, RecordStore
from serving.service import Service
from tests.world import AUDIENCE, Member, World

CLIENT, RESOURCE, ADMIN = "client", "resource", "admin"


def new_secret() -> str:
    """Make a client secret."""
    return make_credential(CredentialKind.CLIENT_SECRET, entropy.token_bytes(RANDOM_BYTES))


def new_access_token() -> str:
    """Make an opaque access token."""
    return make_credential(CredentialKind.ACCESS, entropy.token_bytes(RANDOM_BYTES))


SECRETS = {name: new_secret() for name in (CLIENT, RESOURCE, ADMIN)}
CLIENTS = {
    CLIENT: Client(
        secret_hash=secret_hash(SECRETS[CLIENT]), grant_types=("client_credentials",), scopes=("read", "write"),
        audiences=(AUDIENCE,),
    ),
    RESOURCE: Client(secret_hash=secret_hash(SECRETS[RESOURCE]), audiences=(AUDIENCE,), may_introspect=True),
    ADMIN: Client(
        secret_hash=secret_hash(SECRETS[ADMIN]), grant_types=("client_credentials",), scopes=("keyturn:admin",),
        audiences=("keyturn:admin",), always_opaque=True,
    ),
}  # fmt: skip


def basic(client_id: str, secret: str | None = None) -> dict[str, str]:
    """Return the header by which a client proves itself, form-encoded as RFC 6749, 2.3.1 has it."""
    secret = SECRETS[client_id] if secret is None else secret
    encoded = b64encode(f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def new_record_keys() -> RecordKeys:
    """Make keys for a record store."""
    return RecordKeys("test", entropy.token_bytes(32), entropy.token_bytes(32))


class FickleRedis(FakeAsyncRedis):
    """A store in memory that can go away, and counts the round trips of pipelines."""

    def __init__(self, **options: Any) -> None:
        """Begin empty."""
        super().__init__(**options)
        self.away, self.trips = False, 0

    async def execute_command(self, *arguments: Any, **options: Any) -> Any:
        """Do a command, unless it is away."""
        self._look()
        return await cast("Any", super()).execute_command(*arguments, **options)

    def pipeline(self, *arguments: Any, **options: Any) -> Any:
        """Begin a pipeline, unless it is away."""
        self._look()
        self.trips += 1
        return cast("Any", super()).pipeline(*arguments, **options)

    def _look(self) -> None:
        if self.away:
            raise RedisConnectionError("gone")


@dataclass
class Standing:
    """A world on a Redis or Valkey, and what a service stands on there."""

    world: World
    redis: Redis
    parts: Parts
    member: Member
    records: RecordStore
    record_keys: RecordKeys

    def settings(self, directory: Path, **sections: Mapping[str, Any]) -> Settings:
        """Return settings with the sections of a service, and the files that they name in a directory."""
        keys = {name: b64url(getattr(self.record_keys, name)) for name in ("seal", "pepper")}
        write_secret(directory / "records.json", json.dumps({"id": self.record_keys.id, **keys}))
        tables = {"records": {"key_file": "records.json"}, "issuer": {"url": self.world.issuer}, **sections}
        return Settings(tables, {}, beside=directory)

    async def publish(self, *changes: KeyChange) -> None:
        """Append to the keys lane, by this service's replica."""
        await self.world.publisher(Lane.KEYS, self.member).append(changes)

    async def revoke(self, *entries: Entry, elsewhere: bool = False) -> None:
        """Append to the revocations lane; with `elsewhere` this service's replica only hears of it."""
        member = await self.world.caught_up() if elsewhere else self.member
        await self.world.publisher(Lane.REVOCATIONS, member).append(entries)

    async def put_opaque(self, **changes: Any) -> str:
        """Keep an opaque access token with the claims of `World.claims`, changed, and return it."""
        token, claims = new_access_token(), self.world.claims(**changes)
        await self.records.put(token, claims, expires_at=self.world.clock.now() + 3600)
        return token


@asynccontextmanager
async def standing(
    redis: Redis, *, pubsub: Redis | None = None, clock: Clock | None = None, deaf: bool = False, **changes: Any
) -> AsyncIterator[Standing]:
    """Begin a world on that store, and read it by one replica, which follows it unless it is `deaf`."""
    clock = clock or SystemClock()
    assurance = Assurance()
    feed = RedisFeed(redis, pubsub=pubsub or redis, assurance=assurance)
    world = World(feed=feed, clock=clock, **({"clients": CLIENTS} | changes))
    await world.begin()
    async with AsyncExitStack() as stack:
        member = await (world.caught_up() if deaf else stack.enter_async_context(world.following()))
        parts = Parts(
            clock=clock, redis=redis, feed=feed, replica=member.replica, follower=member.follower,
            log=logger("tests"), metrics=Metrics(process="tests"), skew_seconds=world.freshness.skew_seconds,
            pinned=Pinned(issuer=world.issuer, root=world.root.public, allow_dev=False),
            assurance=assurance,
        )  # fmt: skip
        keys = new_record_keys()
        promise = Promise(iss=world.issuer, seconds=LONGEST_GRANT_SECONDS, at=clock.now())
        await Promises(redis, keys).write(promise)
        yield Standing(world, redis, parts, member, RecordStore(redis, keys, clock), keys)


def write_secret(path: Path, content: str) -> None:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(content, encoding="utf-8")


@asynccontextmanager
async def serving_at(services: Sequence[Service], parts: Parts) -> AsyncIterator[ClientSession]:
    """Put services on a loopback port, and give an HTTP client whose URLs start there; the feed is not touched."""
    app = make_application(parts.log, clock=SystemClock())
    for service in services:
        service.add_routes(app)
    add_health(app, services, [parts])
    tasks = [asyncio.create_task(service.run()) for service in services]
    try:
        async with listening(app, "127.0.0.1:0") as address, client_of(address) as session:
            yield session
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def client_of(address: str) -> ClientSession:
    """Return an HTTP client whose URLs start at HOST:PORT."""
    return ClientSession(f"http://{address}", timeout=ClientTimeout(total=10))
