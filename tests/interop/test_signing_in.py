"""Users sign in to a running system: by clients of other makers, at a terminal, at the page for development."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client

from keyturn import entropy
from keyturn.contract.encoding import b64url
from tests.interop.node_process import node_process
from tests.interop.system import ROOT, System
from tests.waiting import eventually

BACK = "http://127.0.0.1:49152/callback"


class Browser:
    """A user's browser: one cookie jar, and a form that it fills in."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def page_of(self, link: str) -> httpx2.Response:
        """Open a client's link, and return the page on which the user signs in."""
        begun = await self._http.get(link)
        assert begun.status_code == 303, begun.text
        return await self._http.get(begun.headers["Location"])

    async def visit(self, link: str, name: str = "alice", answer: str = "allow") -> str:
        """Sign in, and return where the client has its user sent back to, not followed."""
        page = await self.page_of(link)
        told = dict(parse_qsl(urlsplit(str(page.url)).query))
        answered = await self._http.post(str(page.url).partition("?")[0], data={**told, "name": name, "answer": answer})
        assert answered.status_code == 303, answered.text
        finished = await self._http.get(answered.headers["Location"])
        assert finished.status_code == 303, finished.text
        return str(finished.headers["Location"])


@pytest.fixture
async def http() -> AsyncIterator[httpx2.AsyncClient]:
    """Return a client that follows nobody by itself."""
    async with httpx2.AsyncClient(follow_redirects=False) as client:
        yield client


@pytest.fixture
def browser(http: httpx2.AsyncClient) -> Browser:
    """Return a browser that was never here."""
    return Browser(http)


@pytest.fixture
async def metadata(system: System) -> dict[str, Any]:
    """Return what the issuer says of itself."""
    return await system.metadata()


@pytest.fixture
async def app(system: System) -> AsyncIterator[AsyncOAuth2Client]:
    """Return Authlib's client as the public client of the system."""
    async with AsyncOAuth2Client(
        system.env["KEYTURN_APP_ID"], token_endpoint_auth_method="none", redirect_uri=BACK, scope="read",
        code_challenge_method="S256",
    ) as client:  # fmt: skip
        yield client


async def passes(system: System, http: httpx2.AsyncClient, token: str) -> bool:
    """Say whether the sidecar lets a token pass."""
    headers = {"Authorization": f"Bearer {token}"}
    return (await http.get(f"{system.env['KEYTURN_SIDECAR_URL']}/nginx/default", headers=headers)).status_code == 200


def test_the_metadata_says_how_users_sign_in(metadata: dict[str, Any], system: System) -> None:
    """RFC 8414, 2; RFC 9207, 3; RFC 7636, 5: what a client library reads before it sends anybody anywhere."""
    assert metadata["authorization_endpoint"] == f"{system.issuer}/authorize"
    assert metadata["response_types_supported"] == ["code"]
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    assert metadata["authorization_response_iss_parameter_supported"] is True
    assert "none" in metadata["token_endpoint_auth_methods_supported"]
    assert "none" in metadata["revocation_endpoint_auth_methods_supported"]
    assert "none" not in metadata["introspection_endpoint_auth_methods_supported"]
    assert set(metadata["grant_types_supported"]) == {"client_credentials", "authorization_code", "refresh_token"}


async def test_authlib_signs_a_user_in_refreshes_and_revokes(
    app: AsyncOAuth2Client, metadata: dict[str, Any], system: System, browser: Browser, http: httpx2.AsyncClient
) -> None:
    """Authlib, unmodified: code, PKCE, refresh and RFC 7009 as a public client."""
    verifier = b64url(entropy.token_bytes(32))
    link, state = app.create_authorization_url(metadata["authorization_endpoint"], code_verifier=verifier)
    back = await browser.visit(link, "alice")
    assert back.startswith(f"{BACK}?code=kt_ac_")
    exchange: dict[str, Any] = {"authorization_response": back, "code_verifier": verifier, "state": state}
    token = await app.fetch_token(metadata["token_endpoint"], **exchange)
    assert await passes(system, http, token["access_token"])
    next_token = await app.refresh_token(metadata["token_endpoint"], refresh_token=token["refresh_token"])
    assert next_token["refresh_token"] != token["refresh_token"]
    assert await passes(system, http, next_token["access_token"])
    revoked = await app.revoke_token(metadata["revocation_endpoint"], next_token["refresh_token"])
    assert revoked.status_code == 200
    for one in (token, next_token):  # RFC 7009, 2.1: the grant goes with it.
        await eventually(lambda: _is_gone(system, http, one["access_token"]))  # noqa: B023 - awaited in this turn
    with pytest.raises(OAuthError):
        await app.refresh_token(metadata["token_endpoint"], refresh_token=next_token["refresh_token"])


async def _is_gone(system: System, http: httpx2.AsyncClient, token: str) -> bool:
    return not await passes(system, http, token)


async def test_a_code_that_comes_again_ends_all_that_came_of_it(
    app: AsyncOAuth2Client, metadata: dict[str, Any], system: System, browser: Browser, http: httpx2.AsyncClient
) -> None:
    """Checklist, token endpoint (1), through all services: written down, revoked, pushed, refused."""
    verifier = b64url(entropy.token_bytes(32))
    link, state = app.create_authorization_url(metadata["authorization_endpoint"], code_verifier=verifier)
    exchange = {"authorization_response": await browser.visit(link), "code_verifier": verifier, "state": state}
    token = await app.fetch_token(metadata["token_endpoint"], **exchange)
    assert await passes(system, http, token["access_token"])
    with pytest.raises(OAuthError) as refused:
        await app.fetch_token(metadata["token_endpoint"], **exchange)
    assert refused.value.error == "invalid_grant"
    await eventually(lambda: _is_gone(system, http, token["access_token"]), within_seconds=10)
    with pytest.raises(OAuthError):
        await app.refresh_token(metadata["token_endpoint"], refresh_token=token["refresh_token"])


async def test_oauth4webapi_signs_a_user_in_and_refreshes(system: System, http: httpx2.AsyncClient) -> None:
    """`oauth4webapi`, unmodified: it checks `iss` and `state` by itself, and each member of the answers."""
    options = {"issuer": system.issuer, "client": system.env["KEYTURN_APP_ID"], "redirect": BACK}
    async with node_process("signin.mjs", **options) as node:
        told = await node.ask(name="bob")
    assert (told.get("scope"), told.get("turned")) == ("read", True), told
    assert await passes(system, http, told["token"])


async def test_a_person_signs_in_at_a_terminal(
    system: System, browser: Browser, http: httpx2.AsyncClient, tmp_path: Path
) -> None:
    """`keyturn token get --sign-in` as a shell runs it; the refresh token turns in its file."""
    keyturn, file = [sys.executable, "-m", "keyturn.cli", "token"], tmp_path / "refresh"
    environment = os.environ | system.env | {"PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *keyturn, "get", "--sign-in", "--refresh-token-file", str(file),
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    assert process.stderr is not None
    link = (await asyncio.wait_for(process.stderr.readline(), 30)).decode().removeprefix("visit ").strip()
    page = await http.get(await browser.visit(link, "carol"))
    assert page.text == "Back to the terminal: this window can be closed.\n"
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert await passes(system, http, out.decode().strip())
    first = file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    process = await asyncio.create_subprocess_exec(
        *keyturn, "refresh", "--token-file", str(file), env=environment, stdout=subprocess.PIPE, cwd=tmp_path
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert await passes(system, http, out.decode().strip())
    assert file.read_text() != first


async def test_the_page_for_development_says_what_it_is_and_runs_nothing(
    app: AsyncOAuth2Client, metadata: dict[str, Any], system: System, browser: Browser, http: httpx2.AsyncClient
) -> None:
    """It believes everybody: so it is labelled, on this origin alone, and takes nothing that could run."""
    link, _ = app.create_authorization_url(metadata["authorization_endpoint"], code_verifier="v" * 43)
    page = await browser.page_of(link)
    assert "No password is asked for" in page.text
    assert "<script" not in page.text
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Content-Type"].startswith("text/html")
    challenge = dict(parse_qsl(urlsplit(str(page.url)).query))["login_challenge"]
    address = f"{system.issuer}/signin"
    for told, headers, status in (
        ({}, {}, 400),
        ({"login_challenge": "../keys/rotate"}, {}, 400),
        ({"login_challenge": '"><script>'}, {}, 400),
        ({"login_challenge": "A" * 60}, {}, 404),
        ({"login_challenge": challenge}, {"Host": "evil.example"}, 400),
    ):
        for answer in (
            await http.get(address, params=told, headers=headers),
            await http.post(address, data={**told, "name": "mallory"}, headers=headers),
        ):
            assert answer.status_code == status
            assert answer.headers["Content-Type"].startswith("text/plain")
    for name in ("", "app", "x" * 513):  # No name, a client's, too long.
        answer = await http.post(address, data={"login_challenge": challenge, "name": name})
        assert answer.status_code == 400
    assert "error=access_denied" in await browser.visit(link, answer="deny")


async def test_a_client_without_a_secret_does_nothing_but_sign_users_in(
    system: System, http: httpx2.AsyncClient
) -> None:
    """RFC 7662, 4; RFC 7009, 2.1; RFC 6749, 4.4: whoever knows its name is it, so its name opens nothing else."""
    token, named = await system.new_token(), {"client_id": system.env["KEYTURN_APP_ID"]}
    for path, form, told in (
        ("/introspect", {"token": token}, (401, "invalid_client")),
        ("/revoke", {"token": token}, (400, "invalid_grant")),
        ("/token", {"grant_type": "client_credentials"}, (400, "unauthorized_client")),
    ):
        answer = await http.post(f"{system.issuer}{path}", data={**named, **form})
        assert (answer.status_code, answer.json()["error"]) == told
    assert await passes(system, http, token)
