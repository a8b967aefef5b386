"""A hundred rotations under load, before the eyes of `jose`, PyJWT and a sidecar, which reject no good token."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from aiohttp import ClientSession, ClientTimeout, encode_basic_auth
from jwt import PyJWKClient

from keyturn.clock import SystemClock
from keyturn.entropy import uuid7
from tests.interop.node_process import NodeProcess
from tests.interop.system import AUDIENCE, System, running_system
from tests.interop.test_jose import node_service

ROTATIONS, MORE_ROTATIONS = 100, 2
COOL_DOWN_SECONDS = 0.1
PAUSE_SECONDS = 0.1  # After each: with what it takes itself, a client may ask again between any two.
LOADS = 3
KEPT = 200
CLOCK = SystemClock()
MOST_TRIES = 5


@dataclass
class Crowd:
    """Clients that get tokens, and those that check them, each in its own manner."""

    system: System
    http: ClientSession
    node: NodeProcess
    python: PyJWKClient
    tokens: list[str] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    rejected: list[tuple[str, Any]] = field(default_factory=list)
    kids: set[str] = field(default_factory=set)
    asking_node: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def post(self, path: str, who: str, **request: Any) -> dict[str, Any]:
        """Ask the issuer."""
        headers = {"Authorization": encode_basic_auth(*self.system.credentials(who))} if who else {}
        headers |= request.pop("headers", {})
        headers["Idempotency-Key"] = uuid7(CLOCK.now())
        for _ in range(MOST_TRIES):
            async with self.http.post(self.system.issuer + path, headers=headers, **request) as answer:
                if answer.status == 503:  # The store was late on a busy machine: ask again, as Retry-After has it.
                    await CLOCK.sleep(float(answer.headers["Retry-After"]))
                    continue
                assert answer.status == 200, await answer.text()
                return dict(await answer.json())
        raise AssertionError(f"{path} was 503 {MOST_TRIES} times")

    async def token(self, who: str = "CLIENT") -> str:
        """Return a fresh access token."""
        told = await self.post("/token", who, data={"grant_type": "client_credentials"})
        return str(told["access_token"])

    async def check(self, token: str) -> None:
        """Have a token checked by everybody."""
        await asyncio.gather(self._by_sidecar(token), self._by_jose(token), self._by_pyjwt(token))

    async def _by_sidecar(self, token: str) -> None:
        url = f"{self.system.env['KEYTURN_SIDECAR_URL']}/nginx/default"
        async with self.http.get(url, headers={"Authorization": f"Bearer {token}"}) as answer:
            self._note("sidecar", None if answer.status == 200 else answer.status)

    async def _by_jose(self, token: str) -> None:
        async with self.asking_node:
            told = await self.node.ask(token=token)
        self._note("jose", told.get("error"))

    async def _by_pyjwt(self, token: str) -> None:
        self._note("pyjwt", await asyncio.to_thread(self._decode, token))

    def _decode(self, token: str) -> str | None:
        try:
            key = self.python.get_signing_key_from_jwt(token)
            jwt.decode(token, key, algorithms=["ES256"], audience=AUDIENCE, issuer=self.system.issuer)
        except jwt.PyJWTError as refusal:
            return str(refusal)
        return None

    def _note(self, who: str, refusal: object) -> None:
        self.accepted[who] += refusal is None
        if refusal is not None:
            self.rejected.append((who, refusal))

    async def load(self) -> None:
        """Get tokens and have each checked at once, together with an older one, until cancelled."""
        while True:
            token = await self.token()
            self.tokens.append(token)
            self.kids.add(jwt.get_unverified_header(token)["kid"])
            await self.check(token)
            await self.check(self.tokens[len(self.tokens) * 7 % min(KEPT, len(self.tokens))])

    async def rotate(self, count: int) -> None:
        """Rotate so many times, each adopted by the sidecar before the next."""
        bearer = {"Authorization": f"Bearer {await self.token('ADMIN')}"}
        for _ in range(count):
            await self.post("/keys/rotate?wait=all", "", json={}, headers=bearer)
            await CLOCK.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def crowd_at(system: System, python: PyJWKClient, **options: Any) -> AsyncIterator[Crowd]:
    """Let a crowd at a system, with clients that have fetched the key set."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(ClientSession(timeout=ClientTimeout(total=10)))
        node = await stack.enter_async_context(node_service(system, **options))
        crowd = Crowd(system, http, node, python)
        await crowd.check(await crowd.token())
        yield crowd


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """Run a system of this test's own: nobody else may rotate its keys."""
    async with running_system() as system:
        yield system


async def test_a_hundred_rotations_under_load_reject_no_good_token_anywhere(system: System) -> None:
    """Who pulls asks again within its cool-down, and the standbys were in what it pulled before."""
    uri = (await system.metadata())["jwks_uri"]
    python = PyJWKClient(uri, lifespan=COOL_DOWN_SECONDS, cooldown_duration=COOL_DOWN_SECONDS)
    async with crowd_at(system, python, cooldownMs=int(COOL_DOWN_SECONDS * 1000)) as crowd:
        loads = [asyncio.create_task(crowd.load()) for _ in range(LOADS)]
        await crowd.rotate(ROTATIONS)
        for load in loads:
            assert not load.done(), load.exception()
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        assert crowd.rejected == []
        assert len(crowd.kids) > ROTATIONS * 0.9
        assert min(crowd.accepted.values()) > 3 * ROTATIONS, crowd.accepted
        assert set(crowd.accepted) == {"sidecar", "jose", "pyjwt"}
    # And two more, each followed by a check, with clients as they come: neither asks again for 30 s.
    async with crowd_at(system, PyJWKClient(uri)) as crowd:
        for _ in range(MORE_ROTATIONS):
            await crowd.rotate(1)
            token = await crowd.token()
            crowd.kids.add(jwt.get_unverified_header(token)["kid"])
            await crowd.check(token)
        assert crowd.rejected == []
        assert len(crowd.kids) == MORE_ROTATIONS
