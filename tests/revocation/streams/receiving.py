"""A revocation service's streams on a real Valkey, with a signer that only writes down what it was asked for."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import ClientSession, web
from redis.asyncio import Redis

from keyturn.contract.encoding import b64url, unb64url
from keyturn.contract.selectors import SelectorKind
from keyturn.process.redis import connect
from revocation.streams.letters import PURPOSE
from revocation.streams.routes import StreamRoutes
from revocation.streams.settings import StreamSettings
from revocation.streams.streams import Streams
from serving.sealing import Sealer
from tests.building import ADMIN, RESOURCE, Standing, basic, serving_at, standing

AUDIENCE = "https://receiver.example"
POLLED = StreamSettings(audience=AUDIENCE, client=RESOURCE)


class Notary:
    """Signs nothing: a token is its claims, for the test to read."""

    async def __aenter__(self) -> Self:
        """Open nothing."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close nothing."""

    async def sign(self, typ: str, claims: Mapping[str, Any]) -> str:
        """Return something of a JWT's form."""
        header, payload = (b64url(json.dumps(one).encode()) for one in ({"typ": typ}, dict(claims)))
        return f"{header}.{payload}.x"


def told(token: str) -> dict[str, Any]:
    """Return the claims of a Notary's token."""
    return dict(json.loads(unb64url(token.split(".")[1])))


class StreamService:
    """The streams alone, as a service."""

    name = "streams"

    def __init__(self, streams: Streams, stage: Standing) -> None:
        self.streams = streams
        self.routes = StreamRoutes(streams, stage.parts, records=stage.records)

    def add_routes(self, app: web.Application) -> None:
        """Add the routes."""
        self.routes.add_routes(app)

    async def run(self) -> None:
        """Do the background work."""
        await self.streams.run()

    def unready(self) -> str | None:
        """Say that all is well."""
        return None


@dataclass
class Post:
    """The service, and a client that polls it."""

    stage: Standing
    streams: Streams
    http: ClientSession
    routes: StreamRoutes

    async def revoke(self, *names: str, kind: SelectorKind = SelectorKind.SUBJECT) -> None:
        """Revoke each in an event of its own."""
        for name in names:
            await self.stage.revoke(self.stage.world.entry(kind, name))

    async def poll(self, *, who: str = RESOURCE, name: str = "one", **members: Any) -> tuple[int, dict[str, Any]]:
        """Poll as the receiver; at once, unless told otherwise."""
        body = {"returnImmediately": True} | members
        async with self.http.post(f"/streams/{name}/poll", json=body, headers=basic(who)) as answer:
            return answer.status, await answer.json()

    async def subjects(self, **members: Any) -> list[str]:
        """Return whose revocations a poll brings, in order."""
        status, answer = await self.poll(**members)
        assert status == 200, answer
        return [str(told(token)["sub_id"]["sub"]) for token in answer["sets"].values()]

    async def operator(self, path: str) -> tuple[int, dict[str, Any]]:
        """Ask as an operator."""
        token = await self.stage.put_opaque(client_id=ADMIN, sub=ADMIN, scope="keyturn:admin")
        async with self.http.get(path, headers={"Authorization": f"Bearer {token}"}) as answer:
            return answer.status, await answer.json()

    async def send_again(self, body: Any, *, name: str = "one", scope: str = "keyturn:admin") -> tuple[int, Any]:
        """Have dead letters told again, as an operator."""
        token = await self.stage.put_opaque(client_id=ADMIN, sub=ADMIN, scope=scope)
        path, headers = f"/streams/{name}/dead-letters/send", {"Authorization": f"Bearer {token}"}
        async with self.http.post(path, json=body, headers=headers) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def post_on(valkey: Redis, url: str, **streams: StreamSettings) -> AsyncIterator[Post]:
    """Run streams on a Valkey; `one` is polled, unless others are given."""
    async with AsyncExitStack() as stack:
        bell = connect(url, client_name="tests-bell", subscribing=True)
        stack.push_async_callback(bell.aclose)
        stage = await stack.enter_async_context(standing(valkey, pubsub=bell))
        yield await stack.enter_async_context(_serving(stage, streams or {"one": POLLED}))


@asynccontextmanager
async def another(post: Post, **streams: StreamSettings) -> AsyncIterator[Post]:
    """Run the same streams in another process on the same store, or after a restart."""
    async with _serving(post.stage, streams or {"one": POLLED}) as other:
        yield other


@asynccontextmanager
async def _serving(stage: Standing, settings: Mapping[str, StreamSettings]) -> AsyncIterator[Post]:
    sealer = Sealer(stage.record_keys, purpose=PURPOSE)
    streams = Streams(settings, stage.parts, signer=Notary(), sealer=sealer)
    service = StreamService(streams, stage)
    async with serving_at([service], stage.parts) as http:
        yield Post(stage, streams, http, service.routes)
