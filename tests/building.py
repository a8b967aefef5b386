"""Runs HTTP services for tests: over a small world, on a store of the test's choice, at a loopback port."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, ClientTimeout
from redis.asyncio import Redis

from keyturn import entropy
from keyturn.clock import Clock, SystemClock
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential, secret_hash
from keyturn.contract.trust import Client
from keyturn.feed.redis import RedisFeed
from keyturn.process.logging import logger
from keyturn.process.metrics import Metrics
from serving.parts import Parts
from serving.records import RecordKeys, RecordStore
from serving.service import Service, serve
from tests.waiting import eventually
from tests.world import AUDIENCE, World

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


def new_record_keys() -> RecordKeys:
    """Make keys for a record store."""
    return RecordKeys("test", entropy.token_bytes(32), entropy.token_bytes(32))


@dataclass
class Standing:
    """A world on a Redis or Valkey, and what a service stands on there."""

    world: World
    redis: Redis
    parts: Parts
    records: RecordStore

    async def put_opaque(self, **changes: Any) -> str:
        """Keep an opaque access token with the claims of `World.claims`, changed, and return it."""
        token, claims = new_access_token(), self.world.claims(**changes)
        await self.records.put(token, claims, expires_at=self.world.clock.now() + 3600)
        return token


@asynccontextmanager
async def standing(
    redis: Redis, *, pubsub: Redis | None = None, clock: Clock | None = None, **changes: Any
) -> AsyncIterator[Standing]:
    """Begin a world on that store, and follow it from one replica."""
    clock = clock or SystemClock()
    feed = RedisFeed(redis, pubsub=pubsub or redis)
    world = World(feed=feed, clock=clock, **({"clients": CLIENTS} | changes))
    await world.begin()
    async with world.following() as member:
        parts = Parts(
            clock=clock, redis=redis, feed=feed, replica=member.replica, follower=member.follower,
            log=logger("tests"), metrics=Metrics(process="tests"), skew_seconds=world.freshness.skew_seconds,
        )  # fmt: skip
        yield Standing(world, redis, parts, RecordStore(redis, new_record_keys(), clock))


@asynccontextmanager
async def serving_at(
    services: Sequence[Service], parts: Parts, *, listen: str = "127.0.0.1:0"
) -> AsyncIterator[ClientSession]:
    """Serve, and give an HTTP client whose URLs start there."""
    addresses: list[str] = []
    task = asyncio.create_task(
        serve(services, parts=[parts], listen=listen, log=parts.log, clock=SystemClock(), ready=addresses.append)
    )
    try:
        await eventually(lambda: addresses or task.done())
        if task.done():
            await task
        async with ClientSession(f"http://{addresses[0]}", timeout=ClientTimeout(total=10)) as session:
            yield session
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
