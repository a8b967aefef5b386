"""A sign-in page for development: whoever can reach it is whoever they say. Part of the stack, and of no image."""

import asyncio
import re
from html import escape
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from keyturn.cli.answers import CannotTell
from keyturn.cli.environment import Credentials, Role
from keyturn.cli.origin import Answer, bearer, get_token, origin
from keyturn.contract.trust import LOGIN_SCOPE
from keyturn.process.values import Secret
from serving.forms import FORM_TYPE, Form, read_parameters
from serving.openapi import EVERYBODY, OTHER_FIELDS, Schema, answer, body, in_query, record, text
from serving.parts import Parts
from serving.problems import NO_STORE, PAGE_HEADERS, Busy, NotFound, OAuthError, Style
from serving.routing import add_route

PATH: Final = "/signin"
CLIENT_ID: Final = "signin"
LONGEST_NAME: Final = 512
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{1,4096}")
_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Development sign-in</title>
<h1>Development sign-in</h1>
<p>No password is asked for: this page is part of <code>make up</code>, for this machine alone, and believes
everybody.</p>
<p><b>{client}</b> asks for <b>{scopes}</b> at <b>{audiences}</b>.</p>
<form method="post" action="{path}">
<input type="hidden" name="login_challenge" value="{challenge}">
<p><label>Name <input name="name" autocomplete="username" maxlength="{longest}" autofocus></label>
<button name="answer" value="allow">Sign in</button> <button name="answer" value="deny">Refuse</button></p>
</form>
</html>
"""
_FIELDS: Final = {"login_challenge": text(4096), "name": text(LONGEST_NAME), "answer": {"enum": ["allow", "deny"]}}
_PAGE_OPERATION: Final[Schema] = {
    "operationId": "developmentSignIn",
    "summary": "Ask for a name, in development",
    "tags": ["development"],
    "security": EVERYBODY,
    "parameters": (in_query("login_challenge", text(4096), "As /authorize sent it along"),),
    "responses": {"200": answer("A form", {"type": "string"}, kind="text/html"), "404": {"description": "It is over"}},
}
_FORM_OPERATION: Final[Schema] = {
    "operationId": "developmentSignInAnswer",
    "summary": "Believe a name, in development",
    "tags": ["development"],
    "security": EVERYBODY,
    "requestBody": body(FORM_TYPE, record(_FIELDS, optional=list(_FIELDS), **OTHER_FIELDS)),
    "responses": {"303": answer("Back to /authorize"), "404": {"description": "It is over"}},
}


class DevelopmentSignIn:
    """The page, which speaks to `/logins` as any page of an operator's does: over HTTP, as a client of its own.

    A form that another site posts here changes nothing: it has no challenge of this browser's, and what it says is good
    in the browser alone that holds the cookie of `/authorize`.
    """

    name = "signin"

    def __init__(self, parts: Parts, directory: Path) -> None:
        """Know the page's secret from the directory of the stack."""
        self._parts = parts
        secret = Secret.read(directory / "clients" / f"{CLIENT_ID}.secret").reveal_text()
        self._credentials = Credentials(Role.SIGNIN, CLIENT_ID, secret)

    def add_routes(self, app: web.Application) -> None:
        """Add the page."""
        add_route(app, "GET", PATH, self.show, style=Style.PAGE, operation=_PAGE_OPERATION)
        add_route(app, "POST", PATH, self.answer, style=Style.PAGE, operation=_FORM_OPERATION)

    async def run(self) -> None:
        """Do nothing beside requests, until cancelled."""
        await asyncio.Event().wait()

    def unready(self) -> str | None:
        """Have no reason."""
        return None

    async def show(self, request: web.Request) -> web.Response:
        """Ask for a name."""
        _, challenge = await self._read(request)
        login = (await self._ask("GET", challenge, accept=(200, 404))).object()
        page = _PAGE.format(
            path=PATH, challenge=escape(challenge), client=escape(str(login["client_id"])), longest=LONGEST_NAME,
            scopes=escape(" ".join(login["scopes"]) or "nothing"), audiences=escape(" ".join(login["audiences"])),
        )  # fmt: skip
        return web.Response(text=page, content_type="text/html", headers={**NO_STORE, **PAGE_HEADERS})

    async def answer(self, request: web.Request) -> web.Response:
        """Believe the name, and send the browser back."""
        form, challenge = await self._read(request)
        said = {"sub": form.get("name", "")} if form.get("answer", "allow") == "allow" else {"error": "access_denied"}
        told = await self._ask("POST", challenge, accept=(200, 400, 404), json=said)
        if told.status == 400:  # noqa: PLR2004 - HTTP
            raise OAuthError("invalid_request", told.problem)
        headers = {**NO_STORE, **PAGE_HEADERS, hdrs.LOCATION: str(told.object()["redirect_to"])}
        return web.Response(status=303, headers=headers)

    async def _read(self, request: web.Request) -> tuple[Form, str]:
        """Return the parameters and the challenge; refuse everything but development, on this very origin."""
        self._parts.require_replica()
        if not self._parts.replica.trust.document.dev:
            raise NotFound("this page is for development")
        if request.host != urlsplit(self._parts.issuer).netloc:  # Another name that leads here (DNS rebinding).
            raise OAuthError("invalid_request", "this page has another address")
        form = await read_parameters(request)
        challenge = form.get("login_challenge", "")
        if form.twice or _CHALLENGE.fullmatch(challenge) is None:
            raise OAuthError("invalid_request", "there is no login_challenge: begin at the application")
        return form, challenge

    async def _ask(self, method: str, challenge: str, *, accept: tuple[int, ...], **asked: Any) -> Answer:
        try:
            async with origin(self._parts.issuer) as issuer:
                token = (await get_token(issuer, self._credentials, scope=LOGIN_SCOPE))["access_token"]
                told = await issuer.ask(
                    method, f"/logins/{challenge}", authorization=bearer(token), accept=accept, **asked
                )
        except CannotTell as error:
            raise Busy(str(error)) from error
        if told.status == 404:  # noqa: PLR2004 - HTTP
            raise NotFound("this sign-in is over: begin again at the application")
        return told
