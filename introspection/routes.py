"""`POST /introspect` (RFC 7662), one question or a batch."""

import asyncio
from collections import Counter

from aiohttp import web

from introspection.batch import read_tokens, render_batch
from introspection.description import INTROSPECT, INTROSPECT_BATCH
from introspection.judge import Judge
from introspection.render import render
from keyturn.contract.tokens import LARGEST_TOKEN_BYTES
from keyturn.verifier.verdict import Kind, Verdict
from serving.authentication import Caller, authenticate_client
from serving.forms import Form, read_form
from serving.parts import Parts
from serving.problems import OAuthError, Style
from serving.routing import add_route, note


class IntrospectionRoutes:
    """Handlers over the judge."""

    def __init__(self, parts: Parts, judge: Judge) -> None:
        self._parts, self._judge = parts, judge
        about = "What introspection said."
        self._answers = parts.metrics.counter("keyturn_introspections", about, labels=("answer",))

    def add_routes(self, app: web.Application) -> None:
        """Add every route of the service."""
        for path, handler, operation in (
            ("/introspect", self.introspect, INTROSPECT),
            ("/introspect/batch", self.introspect_batch, INTROSPECT_BATCH),
        ):
            add_route(app, "POST", path, handler, style=Style.OAUTH, operation=operation)

    async def introspect(self, request: web.Request) -> web.Response:
        """Answer one question. `token_type_hint` is not needed: a token's form says what it is."""
        form = await read_form(request)
        caller = self._authenticate(request, form)
        token = form.get("token")
        if token is None:
            raise OAuthError("invalid_request", "token is missing")
        verdict = await self._judge_one(token, caller)
        self._answers.labels(verdict.kind.value).inc()
        note(request, answer=verdict.kind.value, reason=verdict.reason, state=verdict.state.value)
        return render(verdict)

    async def introspect_batch(self, request: web.Request) -> web.Response:
        """Answer many questions of one caller, who is known before the body is read."""
        caller = self._authenticate(request, Form())
        tokens = await read_tokens(request)
        # Asked in one turn of the loop, they share one round trip to the store.
        verdicts = await asyncio.gather(*(self._judge_one(token, caller) for token in tokens))
        counts = Counter(verdict.kind.value for verdict in verdicts)
        for kind, count in counts.items():
            self._answers.labels(kind).inc(count)
        note(request, tokens=len(tokens), **counts)
        return render_batch(verdicts)

    def _authenticate(self, request: web.Request, form: Form) -> Caller:
        caller = authenticate_client(request, form, self._parts.replica)
        note(request, client_id=caller.client_id)
        if not caller.client.may_introspect:
            basic = caller.method == "client_secret_basic"
            raise OAuthError("invalid_client", "not a client that may introspect", status=401, basic=basic)
        return caller

    async def _judge_one(self, token: str, caller: Caller) -> Verdict:
        if len(token) > LARGEST_TOKEN_BYTES:
            return Verdict(Kind.INACTIVE, "oversized", self._parts.state())
        return await self._judge.judge(token, caller)
