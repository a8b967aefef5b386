"""The demo's clients: Authlib for tokens and steady traffic, a tight poll where a figure is measured."""

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client

from keyturn.clock import Clock
from keyturn.contract.errors import KeyturnError
from stack.ledger import Held, Ledger

STEADY_PAUSE_SECONDS = 0.01
POLL_PAUSE_SECONDS = 0.0005
PATIENCE_SECONDS = 8.0


class DemoFailed(KeyturnError):
    """The stack did not do what the demo asked of it."""

    code = "demo_failed"


class Traffic:
    """Everything that the demo sends, over keep-alive connections."""

    def __init__(self, env: Mapping[str, str], ledger: Ledger, clock: Clock, session: aiohttp.ClientSession) -> None:
        self.issuer = env["KEYTURN_ISSUER"]
        self.sidecars = env["KEYTURN_SIDECAR_URLS"].split(",")
        self._ledger, self._clock, self._session = ledger, clock, session
        self._env = env
        self._issuing, self._checking = self._new_client("CLIENT", "read"), self._new_client("CLIENT", "read")
        self._admin = self._new_client("ADMIN", "keyturn:admin")
        self._admin_token = ""

    async def close(self) -> None:
        """Close Authlib's connections."""
        for client in (self._issuing, self._checking, self._admin):
            await client.aclose()

    async def sign_in(self) -> Held:
        """Get a token by client credentials, again and again while the issuer says that it cannot now."""
        deadline = self._clock.boottime() + PATIENCE_SECONDS
        while True:
            try:
                token = await self._issuing.fetch_token(f"{self.issuer}/token", grant_type="client_credentials")
                return self._ledger.took(token["access_token"])
            except (httpx2.HTTPError, OAuthError, KeyError, ValueError) as error:
                if self._clock.boottime() > deadline:
                    raise DemoFailed(f"no token can be had: {type(error).__name__}") from error
                await self._clock.sleep(0.1)

    async def check(self, held: Held, sidecar: str, client: AsyncOAuth2Client | None = None) -> int:
        """Ask a sidecar about a token as a gateway does, by Authlib's client; the ledger judges the answer."""
        before, client = held.life, client or self._checking
        client.token = {"access_token": held.token, "token_type": "Bearer"}
        response = await client.get(f"{sidecar}/nginx/default")
        self._ledger.answered(held, before, response.status_code, sidecar)
        return int(response.status_code)

    async def steadily(self) -> None:
        """Check live tokens at every sidecar in turn, and dead ones now and then, until cancelled."""
        turn = 0
        async with self._new_client("CLIENT", "read") as client:
            while True:
                turn += 1
                pool = self._ledger.live() if turn % 5 else self._ledger.held
                if pool:
                    await self.check(pool[turn % len(pool)], self.sidecars[turn % len(self.sidecars)], client)
                await self._clock.sleep(STEADY_PAUSE_SECONDS)

    async def order(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send an operator's order with `wait=all`; raises DemoFailed unless every live verifier adopted it."""
        if not self._admin_token:
            token = await self._admin.fetch_token(f"{self.issuer}/token", grant_type="client_credentials")
            self._admin_token = token["access_token"]
        headers = {"Authorization": f"Bearer {self._admin_token}"}
        url = f"{self.issuer}{path}?wait=all&timeout=5"
        async with self._session.post(url, json=dict(body), headers=headers) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            if response.status != 200:  # noqa: PLR2004
                raise DemoFailed(f"{path} answered {response.status}: {answer}")
            return answer

    async def until_refused(self, held: Held) -> float:
        """Poll every sidecar with a token until each refuses it; return when the last did (boot-time seconds)."""
        return max(await asyncio.gather(*(self._until_401(held, sidecar) for sidecar in self.sidecars)))

    async def until_signed_by_another(self, kid: str) -> float:
        """Get tokens until one is signed by another key; return when it came (boot-time seconds)."""
        deadline = self._clock.boottime() + PATIENCE_SECONDS
        while self._clock.boottime() < deadline:
            if (await self.sign_in()).kid != kid:
                return self._clock.boottime()
        raise DemoFailed("no token came from the new key")

    async def _until_401(self, held: Held, sidecar: str) -> float:
        headers = {"Authorization": f"Bearer {held.token}"}
        deadline = self._clock.boottime() + PATIENCE_SECONDS
        while self._clock.boottime() < deadline:
            async with self._session.get(f"{sidecar}/nginx/default", headers=headers) as response:
                if response.status == 401:  # noqa: PLR2004
                    return self._clock.boottime()
            await self._clock.sleep(POLL_PAUSE_SECONDS)
        raise DemoFailed(f"{sidecar} still passes a revoked token")

    def _new_client(self, name: str, scope: str) -> AsyncOAuth2Client:
        """Return a client of Authlib's, which authenticates by HTTP Basic as it does by default."""
        return AsyncOAuth2Client(
            self._env[f"KEYTURN_{name}_ID"], self._env[f"KEYTURN_{name}_SECRET"], scope=scope,
            timeout=PATIENCE_SECONDS, trust_env=False,
        )  # fmt: skip
