"""The short way of introspection: a caller's next question about an opaque token, from bytes to bytes."""

import re
from functools import partial
from typing import Final

from aiohttp import web
from prometheus_client import Counter

from introspection.judge import Judge
from introspection.render import JSON, as_json
from keyturn.contract.trust import Trust
from keyturn.verifier.verdict import Kind
from serving.application import NOTES, RequestNotes
from serving.authentication import Caller
from serving.parts import Parts
from serving.shortway import Replies, offer

LASTS_AGAIN: Final = "client_secret_basic"
"""The one way to prove who asks that stands in the head and holds as often as it is sent."""

_HINT = rb"token_type_hint=[a-z_]{1,32}"
_QUESTION = re.compile(rb"(?:%b&)?token=(kt_at_[A-Za-z0-9_-]{48})(?:&%b)?" % (_HINT, _HINT))


class ShortAnswers:
    """Offers the short way to callers who proved themselves by HTTP Basic, and answers what comes by it."""

    def __init__(self, parts: Parts, judge: Judge, answers: Counter) -> None:
        self._parts, self._judge = parts, judge
        self._yes = answers.labels(Kind.ACTIVE.value)
        self._replies = Replies(parts.clock, content_type=JSON)

    def offer(self, request: web.Request, caller: Caller) -> None:
        """Offer it to a caller who was just told of an active token, as JSON."""
        if caller.method == LASTS_AGAIN:
            offer(request, partial(self._answer, caller, self._parts.replica.trust, request.app[NOTES]))

    async def _answer(self, caller: Caller, trust: Trust, notes: RequestNotes, body: bytes) -> bytes | None:
        """Return the answer if it is a yes about a remembered token, and the root still says the same of the caller."""
        began = self._parts.clock.boottime()
        question = _QUESTION.fullmatch(body)
        if question is None or self._parts.replica.trust is not trust:
            return None
        verdict = await self._judge.recall(question[1].decode("ascii"), caller.client.audiences)
        if verdict is None:
            return None
        self._yes.inc()
        notes.take(
            method="POST", path="/introspect", status=200, seconds=self._parts.clock.boottime() - began,
            facts={
                "client_id": caller.client_id, "answer": verdict.kind.value, "reason": verdict.reason,
                "state": verdict.state.value, "rendering": "json",
            },
        )  # fmt: skip
        return self._replies.ok(as_json(verdict))
