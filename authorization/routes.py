"""`POST /token` (RFC 6749) and the server's metadata (RFC 8414)."""

from typing import Any

from aiohttp import hdrs, web

from authorization.asking import REPEATABLE, read_asked
from authorization.metadata import GRANT_TYPES, MAX_AGE_SECONDS, algorithm_of_answers, metadata, metadata_path
from authorization.minting import Minter
from keyturn.contract.errors import SigningRefused
from serving.authentication import Authenticator, Caller
from serving.forms import FORM_TYPE, Form, read_form
from serving.parts import Parts
from serving.problems import OAuthError, Style, json_answer
from serving.routing import add_route, note

_TEXT = {"type": "string"}
_TOKEN_OPERATION: dict[str, Any] = {
    "summary": "Issue an access token (RFC 6749, 4.4)",
    "requestBody": {
        "required": True,
        "content": {
            FORM_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"enum": list(GRANT_TYPES)},
                        "scope": _TEXT,
                        "resource": _TEXT,
                        "audience": _TEXT,
                        "token_format": {"enum": ["jwt", "opaque"]},
                        "client_id": _TEXT,
                        "client_secret": _TEXT,
                    },
                }
            }
        },
    },
    "responses": {
        "200": {"description": "access_token, token_type, expires_in, scope"},
        "400": {"description": "RFC 6749, 5.2"},
        "401": {"description": "invalid_client"},
        "503": {"description": "temporarily_unavailable; try again after Retry-After"},
    },
}


class AuthorizationRoutes:
    """Handlers over the minter."""

    def __init__(self, parts: Parts, minter: Minter, *, answers_alg: str) -> None:
        self._parts, self._minter, self._authenticator = parts, minter, Authenticator(parts)
        self._answers_alg = answers_alg
        self._issued = parts.metrics.counter("keyturn_tokens_issued", "Access tokens issued.", labels=("format",))

    def add_routes(self, app: web.Application) -> None:
        """Add the token endpoint and the metadata."""
        add_route(app, "POST", "/token", self.token, style=Style.OAUTH, operation=_TOKEN_OPERATION)
        described = {"summary": "Authorization server metadata (RFC 8414)", "responses": {"200": {"description": "It"}}}
        path = metadata_path(self._parts.issuer)
        add_route(app, "GET", path, self.describe, style=Style.OAUTH, operation=described)

    async def describe(self, _request: web.Request) -> web.Response:
        """Return the metadata, which may be cached."""
        parts = self._parts
        signed = algorithm_of_answers(parts.replica, self._answers_alg)
        answer = json_answer(metadata(parts.issuer, status_lists=self._minter.places, signs_answers=signed))
        answer.headers[hdrs.CACHE_CONTROL] = f"public, max-age={MAX_AGE_SECONDS}"
        answer.headers.popall(hdrs.PRAGMA, None)
        return answer

    async def token(self, request: web.Request) -> web.Response:
        """Answer a token request; every answer is `no-store` (RFC 6749, 5.1)."""
        form = await read_form(request, repeatable=REPEATABLE)
        caller = await self._authenticator.authenticate(request, form)
        note(request, client_id=caller.client_id)
        grant_type = form.get("grant_type")
        if grant_type is None:
            raise OAuthError("invalid_request", "grant_type is missing")
        if grant_type not in GRANT_TYPES:
            raise OAuthError("unsupported_grant_type")
        if grant_type not in caller.client.grant_types:
            raise OAuthError("unauthorized_client", "not a grant of this client")
        self._parts.require_replica()
        return await self._client_credentials(request, form, caller)

    async def _client_credentials(self, request: web.Request, form: Form, caller: Caller) -> web.Response:
        """Issue a token to the client itself; there is no refresh token (RFC 6749, 4.4.3)."""
        asked = read_asked(form, caller.client)
        try:
            minted = await self._minter.mint(asked, subject=caller.client_id, client_id=caller.client_id)
        except SigningRefused as error:  # Our identity's trouble, not the client's.
            raise OAuthError("server_error", status=500) from error
        self._issued.labels(asked.token_format.value).inc()
        note(request, token_format=asked.token_format.value)
        content = {"access_token": minted.token, "token_type": "Bearer", "expires_in": minted.expires_in}
        if asked.scopes:
            content["scope"] = " ".join(asked.scopes)
        return json_answer(content)
