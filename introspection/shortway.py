"""The short way of introspection: a caller's next question about an opaque token, from bytes to bytes."""

import asyncio
import re
from collections.abc import Sequence
from typing import Final

from aiohttp import web
from prometheus_client import Counter

from introspection.judge import Judge
from introspection.memory import Remembered
from introspection.render import JSON, as_json
from keyturn.contract.errors import FeedUnavailable, StoreUnavailable
from keyturn.contract.trust import Trust
from keyturn.verifier.verdict import Kind, Verdict
from serving.application import NOTES, RequestNotes
from serving.authentication import Caller
from serving.gathering import Gathering
from serving.listening import MOST_CONNECTIONS
from serving.parts import Parts
from serving.problems import Busy
from serving.routing import UNEXPECTED
from serving.shortway import Replies, Reply, offer

LASTS_AGAIN: Final = "client_secret_basic"
"""The one way to prove who asks that stands in the head and holds as often as it is sent."""

ANSWER_SECONDS: Final = 2.0
"""As long as the store may take for one answer; then the long way begins, which has its own time."""

_MOST_TOGETHER = 1024
_HINT = rb"token_type_hint=[a-z_]{1,32}"
_TOKEN = rb"kt_at_[A-Za-z0-9_-]{48}"
_QUESTION = re.compile(rb"token=(%b)(?:&%b)?|%b&token=(%b)" % (_TOKEN, _HINT, _HINT, _TOKEN))


class _Asker:
    """A caller on one connection, by the trust document of then."""

    __slots__ = ("audiences", "caller", "facts", "notes", "trust")

    def __init__(self, caller: Caller, trust: Trust, notes: RequestNotes) -> None:
        self.caller, self.trust, self.notes = caller, trust, notes
        self.audiences = caller.client.audiences
        self.facts: dict[str, str] = {}

    def facts_of(self, verdict: Verdict) -> dict[str, str]:
        """Return what a line of the log says of an answer; each on this way is a fresh yes, and they are alike."""
        if not self.facts:
            self.facts = {
                "client_id": self.caller.client_id, "answer": verdict.kind.value, "reason": verdict.reason,
                "state": verdict.state.value, "rendering": "json",
            }  # fmt: skip
        return self.facts


class _Question:
    """One question about a token that is remembered; whoever asked waits for the reply."""

    __slots__ = ("asker", "began", "one", "reply")

    def __init__(self, asker: _Asker, one: Remembered, reply: Reply, began: float) -> None:
        self.asker, self.one, self.began = asker, one, began
        self.reply: Reply | None = reply

    def done(self) -> bool:
        """Say whether the reply was told; a connection that is gone by then drops it."""
        return self.reply is None

    def set_result(self, answer: bytes | None) -> None:
        """Tell the answer, once."""
        reply, self.reply = self.reply, None
        if reply is not None:
            reply(answer)

    def set_exception(self, _error: Exception) -> None:
        """Send the question the long way, which says what there is to say."""
        self.set_result(None)


class ShortAnswers:
    """Offers the short way to callers who proved themselves by HTTP Basic, and answers what comes by it.

    Questions that come together are answered together: no task for each, and the store is asked once for all.
    """

    def __init__(self, parts: Parts, judge: Judge, answers: Counter) -> None:
        self._parts, self._judge = parts, judge
        self._yes = answers.labels(Kind.ACTIVE.value)
        self._replies = Replies(parts.clock, content_type=JSON)
        self._questions: Gathering[_Question, bytes | None] = Gathering(
            self._answer_all, most_together=_MOST_TOGETHER, most_waiting=MOST_CONNECTIONS
        )

    def offer(self, request: web.Request, caller: Caller) -> None:
        """Offer it to a caller who was just told of an active token, as JSON."""
        if caller.method != LASTS_AGAIN:
            return
        asker = _Asker(caller, self._parts.replica.trust, request.app[NOTES])
        offer(request, lambda body, reply: self._ask(asker, body, reply))

    def _ask(self, asker: _Asker, body: bytes, reply: Reply) -> bool:
        """Have it answered if it asks about one token that is remembered for this caller."""
        question = _QUESTION.fullmatch(body)
        if question is None or self._parts.replica.trust is not asker.trust:
            return False
        token = question[question.lastindex or 0]
        one = self._judge.recall(token.decode("ascii"), asker.audiences)
        if one is None:
            return False
        asked = _Question(asker, one, reply, self._parts.clock.boottime())
        try:
            self._questions.enter(asked, asked)
        except Busy:
            return False
        return True

    async def _answer_all(self, questions: Sequence[_Question]) -> list[bytes | None]:
        """Return a yes for each token that is active still, by the trust document that its caller was proved by."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                now = await self._judge.follow()
        except (StoreUnavailable, FeedUnavailable, Busy, TimeoutError):
            return [None] * len(questions)
        except Exception:
            self._parts.log.exception(UNEXPECTED)
            return [None] * len(questions)
        if now is None:
            return [None] * len(questions)
        trust, ended = self._parts.replica.trust, self._parts.clock.boottime()
        answers = [self._answer(one, now, ended) if one.asker.trust is trust else None for one in questions]
        self._yes.inc(len(answers) - answers.count(None))
        return answers

    def _answer(self, question: _Question, now: float, ended: float) -> bytes | None:
        asker = question.asker
        verdict = self._judge.confirm(question.one, asker.audiences, now)
        if verdict is None:
            return None
        asker.notes.take(
            method="POST", path="/introspect", status=200, seconds=ended - question.began,
            facts=asker.facts_of(verdict),
        )  # fmt: skip
        return self._replies.ok(as_json(verdict))
