"""`POST /token` (RFC 6749) and the server's metadata (RFC 8414)."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from aiohttp import hdrs, web

from authorization.asking import REPEATABLE, read_asked
from authorization.issuing import Issuing
from authorization.metadata import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    GRANT_TYPES,
    MAX_AGE_SECONDS,
    REFRESH_TOKEN,
    algorithm_of_answers,
    metadata,
    metadata_path,
)
from keyturn.contract.tokens import LARGEST_TOKEN_BYTES
from keyturn.contract.trust import TokenFormat
from serving.authentication import Authenticator, Caller
from serving.forms import FORM_TYPE, LONGEST_VALUE, Form, read_form
from serving.openapi import CLIENT, EVERYBODY, OTHER_FIELDS, Schema, answer, body, record, text
from serving.parts import Parts
from serving.problems import OAuthError, Style, json_answer
from serving.routing import add_route, note

_TOKEN_ANSWER = record(
    {
        "access_token": text(LARGEST_TOKEN_BYTES),
        "token_type": {"const": "Bearer"},
        "expires_in": {"type": "integer", "minimum": 1, "description": "Seconds"},
        "scope": text(LONGEST_VALUE),
        "refresh_token": text(LARGEST_TOKEN_BYTES, about="Where the client may have one; each is good once"),
    },
    optional=["scope", "refresh_token"],
    description="RFC 6749, 5.1",
)
_TOKEN_OPERATION: Schema = {
    "operationId": "token",
    "summary": "Issue an access token (RFC 6749, 4.1.3, 4.4 and 6)",
    "tags": ["tokens"],
    "security": CLIENT,
    "requestBody": body(
        FORM_TYPE,
        record(
            {"grant_type": {"enum": list(GRANT_TYPES)}}
            | {
                name: text(LONGEST_VALUE, shortest=0)
                for name in (
                    "code", "redirect_uri", "code_verifier", "refresh_token", "scope", "resource", "audience",
                    "client_id", "client_secret",
                )
            }
            | {"token_format": {"enum": list(TokenFormat)}},
            optional=[
                "code", "redirect_uri", "code_verifier", "refresh_token", "scope", "resource", "audience",
                "client_id", "client_secret", "token_format",
            ],
            **OTHER_FIELDS,
        ),
    ),
    "responses": {
        "200": answer("The token; never cached", _TOKEN_ANSWER),
        "400": {"description": "RFC 6749, 5.2"},
        "500": {"description": "server_error: the root does not let this service have such a token signed"},
    },
}  # fmt: skip
_METADATA_OPERATION: Schema = {
    "operationId": "metadata",
    "summary": "Authorization server metadata (RFC 8414)",
    "tags": ["metadata"],
    "security": EVERYBODY,
    "responses": {
        "200": answer(
            "It may be cached",
            record({"issuer": text(2048), "token_endpoint": text(2048), "jwks_uri": text(2048)}, closed=False),
        )
    },
}


GrantHandler: TypeAlias = Callable[[web.Request, Form, Caller], Awaitable[web.Response]]
"""Answers a token request of one grant type, from a client that may use it."""


class AuthorizationRoutes:
    """Handlers over what issues tokens, one for each grant type."""

    def __init__(
        self,
        parts: Parts,
        issuing: Issuing,
        *,
        refresh: GrantHandler,
        answers_alg: str,
        status_lists: bool,
        redeem: GrantHandler | None = None,
    ) -> None:
        """Answer by `issuing`, refresh tokens by `refresh`, and codes by `redeem`, where users can sign in."""
        self._parts, self._issuing, self._authenticator = parts, issuing, Authenticator(parts)
        self._answers_alg, self._status_lists = answers_alg, status_lists
        self._handlers: Mapping[str, GrantHandler] = {
            CLIENT_CREDENTIALS: self._client_credentials,
            REFRESH_TOKEN: refresh,
            **({} if redeem is None else {AUTHORIZATION_CODE: redeem}),
        }

    def add_routes(self, app: web.Application) -> None:
        """Add the token endpoint and the metadata."""
        add_route(app, "POST", "/token", self.token, style=Style.OAUTH, operation=_TOKEN_OPERATION)
        path = metadata_path(self._parts.issuer)
        add_route(app, "GET", path, self.describe, style=Style.OAUTH, operation=_METADATA_OPERATION)

    async def describe(self, _request: web.Request) -> web.Response:
        """Return the metadata, which may be cached."""
        parts = self._parts
        signed = algorithm_of_answers(parts.replica, self._answers_alg)
        told = metadata(
            parts.issuer, status_lists=self._status_lists, signs_answers=signed,
            signs_in=AUTHORIZATION_CODE in self._handlers,
        )  # fmt: skip
        response = json_answer(told)
        response.headers[hdrs.CACHE_CONTROL] = f"public, max-age={MAX_AGE_SECONDS}"
        response.headers.popall(hdrs.PRAGMA, None)
        return response

    async def token(self, request: web.Request) -> web.Response:
        """Answer a token request; every answer is `no-store` (RFC 6749, 5.1)."""
        form = await read_form(request, repeatable=REPEATABLE)
        caller = await self._authenticator.authenticate(request, form, public=True)
        note(request, client_id=caller.client_id)
        grant_type = form.get("grant_type")
        if grant_type is None:
            raise OAuthError("invalid_request", "grant_type is missing")
        handler = self._handlers.get(grant_type)
        if handler is None:
            raise OAuthError("unsupported_grant_type")
        if grant_type not in caller.client.grant_types:
            raise OAuthError("unauthorized_client", "not a grant of this client")
        self._parts.require_replica()
        return await handler(request, form, caller)

    async def _client_credentials(self, request: web.Request, form: Form, caller: Caller) -> web.Response:
        """Issue a token to the client itself; there is no refresh token (RFC 6749, 4.4.3)."""
        asked = read_asked(form, caller.client)
        note(request, token_format=asked.token_format.value)
        return json_answer(await self._issuing.to_itself(asked, caller.client_id))
