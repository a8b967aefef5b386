"""`POST /introspect` (RFC 7662)."""

from typing import Any

from aiohttp import web

from introspection.judge import Judge
from introspection.render import render
from keyturn.contract.tokens import LARGEST_TOKEN_BYTES
from keyturn.verifier.verdict import Kind, Verdict
from serving.authentication import Caller, authenticate_client
from serving.forms import FORM_TYPE, read_form
from serving.parts import Parts
from serving.problems import OAuthError, Style
from serving.routing import add_route, note

_TEXT = {"type": "string"}
_OPERATION: dict[str, Any] = {
    "summary": "Say whether a token is active for the resource server that asks (RFC 7662)",
    "requestBody": {
        "required": True,
        "content": {
            FORM_TYPE: {
                "schema": {
                    "type": "object",
                    "required": ["token"],
                    "properties": {"token": _TEXT, "token_type_hint": _TEXT},
                }
            }
        },
    },
    "responses": {
        "200": {"description": 'active and its claims, or exactly {"active":false}'},
        "400": {"description": "invalid_request"},
        "401": {"description": "invalid_client: not a client that may introspect"},
        "503": {"description": "nothing can be said now; try again after Retry-After"},
    },
}


class IntrospectionRoutes:
    """Handlers over the judge."""

    def __init__(self, parts: Parts, judge: Judge) -> None:
        self._parts, self._judge = parts, judge
        about = "What introspection said."
        self._answers = parts.metrics.counter("keyturn_introspections", about, labels=("answer",))

    def add_routes(self, app: web.Application) -> None:
        """Add every route of the service."""
        add_route(app, "POST", "/introspect", self.introspect, style=Style.OAUTH, operation=_OPERATION)

    async def introspect(self, request: web.Request) -> web.Response:
        """Answer one question. `token_type_hint` is not needed: a token's form says what it is."""
        form = await read_form(request)
        caller = authenticate_client(request, form, self._parts.replica)
        note(request, client_id=caller.client_id)
        if not caller.client.may_introspect:
            basic = caller.method == "client_secret_basic"
            raise OAuthError("invalid_client", "not a client that may introspect", status=401, basic=basic)
        token = form.get("token")
        if token is None:
            raise OAuthError("invalid_request", "token is missing")
        verdict = await self._judge_one(token, caller)
        self._answers.labels(verdict.kind.value).inc()
        note(request, answer=verdict.kind.value, reason=verdict.reason, state=verdict.state.value)
        return render(verdict)

    async def _judge_one(self, token: str, caller: Caller) -> Verdict:
        if len(token) > LARGEST_TOKEN_BYTES:
            return Verdict(Kind.INACTIVE, "oversized", self._parts.state())
        return await self._judge.judge(token, caller)
