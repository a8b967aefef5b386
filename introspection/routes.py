"""`POST /introspect`: RFC 7662, RFC 9701 or a phantom token, by `Accept`; and a batch of questions."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from aiohttp import hdrs, web

from introspection.batch import read_tokens, render_batch
from introspection.callers import Callers
from introspection.description import INTROSPECT, INTROSPECT_BATCH
from introspection.judge import Judge
from introspection.negotiating import Rendering, negotiate
from introspection.render import render
from introspection.shortway import PATH, ShortAnswers
from introspection.signed import SignedAnswers
from keyturn.contract.tokens import LARGEST_TOKEN_BYTES
from keyturn.verifier.verdict import Kind, Verdict
from serving.authentication import Caller
from serving.forms import Form, read_form
from serving.parts import Parts
from serving.problems import NO_STORE, OAuthError, Style
from serving.routing import add_route, note


class IntrospectionRoutes:
    """Handlers over the judge."""

    def __init__(self, parts: Parts, judge: Judge, signed: SignedAnswers) -> None:
        self._parts, self._judge, self._signed = parts, judge, signed
        self._callers = Callers(parts, judge)
        about = "What introspection said."
        self._answers = parts.metrics.counter("keyturn_introspections", about, labels=("answer",))
        self._short = ShortAnswers(parts, judge, self._answers)

    def add_routes(self, app: web.Application) -> None:
        """Add every route of the service."""
        self._short.add_to(app)
        for path, handler, operation in (
            (PATH, self.introspect, INTROSPECT),
            ("/introspect/batch", self.introspect_batch, INTROSPECT_BATCH),
        ):
            add_route(app, "POST", path, handler, style=Style.OAUTH, operation=operation)

    async def introspect(self, request: web.Request) -> web.Response:
        """Answer one question. `token_type_hint` is not needed: a token's form says what it is."""
        form = await read_form(request)
        trust = self._parts.replica.trust  # Of before: who is dropped while we ask the store was not proved by another.
        caller = await self._callers.identify(request, form)
        token = form.get("token")
        if token is None:
            raise OAuthError("invalid_request", "token is missing")
        self._callers.refuse_own(request, caller, (token,))
        rendering = _negotiate(request, among=tuple(Rendering))
        verdict = await self._judge_one(token, caller)
        self._answers.labels(verdict.kind.value).inc()
        note(
            request, answer=verdict.kind.value, reason=verdict.reason, state=verdict.state.value,
            rendering=rendering.name.lower(),
        )  # fmt: skip
        if rendering is Rendering.JSON and verdict.kind is Kind.ACTIVE:
            self._short.offer(request, caller, trust)
        return await self._render(rendering, verdict, token, caller)

    async def introspect_batch(self, request: web.Request) -> web.Response:
        """Answer many questions of one caller, who is known before the body is read."""
        caller = await self._callers.identify(request, Form())
        _negotiate(request, among=(Rendering.JSON,))
        tokens = await read_tokens(request)
        self._callers.refuse_own(request, caller, tokens)
        # Asked in one turn of the loop, they share one round trip to the store.
        verdicts = await asyncio.gather(*(self._judge_one(token, caller) for token in tokens))
        counts = Counter(verdict.kind.value for verdict in verdicts)
        for kind, count in counts.items():
            self._answers.labels(kind).inc(count)
        note(request, tokens=len(tokens), **counts)
        return render_batch(verdicts)

    async def _render(self, rendering: Rendering, verdict: Verdict, token: str, caller: Caller) -> web.Response:
        if verdict.kind is Kind.UNKNOWN or rendering is Rendering.JSON:
            return render(verdict)
        if rendering is Rendering.SIGNED:
            answer = await self._signed.answer(verdict, client_id=caller.client_id)
            return web.Response(body=answer, headers=NO_STORE, content_type=rendering.value)
        phantom = await self._signed.phantom(token, verdict)
        if phantom is None:  # There is no token to hand out; RFC 7662 has the words for that.
            return render(Verdict(Kind.INACTIVE, verdict.reason, verdict.state))
        return web.Response(body=phantom, headers=NO_STORE, content_type=rendering.value)

    async def _judge_one(self, token: str, caller: Caller) -> Verdict:
        if len(token) > LARGEST_TOKEN_BYTES:
            return Verdict(Kind.INACTIVE, "oversized", self._parts.state())
        verdict = await self._judge.judge(token, caller)
        self._callers.refuse_own_form(caller, verdict)
        return verdict


def _negotiate(request: web.Request, *, among: Sequence[Rendering]) -> Rendering:
    rendering = negotiate(request.headers.getall(hdrs.ACCEPT, []), among=among)
    if rendering is None:
        offered = ", ".join(one.value for one in among)
        raise OAuthError("invalid_request", f"nothing that Accept names is made here: {offered}", status=406)
    return rendering
