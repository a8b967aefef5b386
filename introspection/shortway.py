"""The short way of introspection: a caller's next question about an opaque token, from bytes to bytes."""

import asyncio
import re
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from aiohttp import web
from prometheus_client import Counter

from introspection.judge import Judge
from introspection.memory import Remembered
from introspection.render import JSON, as_json
from keyturn.contract.errors import FeedUnavailable, StoreUnavailable
from keyturn.contract.trust import Trust
from keyturn.verifier.freshness import State
from keyturn.verifier.verdict import Kind
from serving.application import NOTES
from serving.authentication import Caller
from serving.gathering import Batches
from serving.listening import MOST_CONNECTIONS
from serving.parts import Parts
from serving.problems import Busy
from serving.routing import UNEXPECTED
from serving.shortway import Replies, Reply, offer

LASTS_AGAIN: Final = "client_secret_basic"
"""The one way to prove who asks that stands in the head and holds as often as it is sent."""

ANSWER_SECONDS: Final = 2.0
"""As long as the store may take for one answer; then the long way begins, which has its own time."""

PATH: Final = "/introspect"
_MOST_TOGETHER = 1024
_HINT = rb"token_type_hint=[a-z_]{1,32}"
_TOKEN = rb"kt_at_[A-Za-z0-9_-]{48}"
_QUESTION = re.compile(rb"(?:%b&)?token=(%b)|token=(%b)&%b" % (_HINT, _TOKEN, _TOKEN, _HINT))


class _Asker(NamedTuple):
    """A caller on one connection, by the trust document that he was proved by."""

    client_id: str
    audiences: tuple[str, ...]
    trust: Trust


_Question: TypeAlias = tuple[_Asker, Remembered, Reply, float]
"""Who asks, about a token that is remembered, who waits for the reply, and since when."""


class ShortAnswers:
    """Offers the short way to callers who proved themselves by HTTP Basic, and answers what comes by it.

    Questions that come together are answered together: no task for each, and the store is asked once for all.
    """

    def __init__(self, parts: Parts, judge: Judge, answers: Counter) -> None:
        self._parts, self._judge = parts, judge
        self._yes = answers.labels(Kind.ACTIVE.value)
        self._replies = Replies(parts.clock, content_type=JSON)
        self._questions: Batches[_Question] = Batches(
            self._answer_all, most_together=_MOST_TOGETHER, most_waiting=MOST_CONNECTIONS
        )

    def add_to(self, app: web.Application) -> None:
        """Note what is answered where the application's other requests are noted."""
        self._notes = app[NOTES]

    def offer(self, request: web.Request, caller: Caller, trust: Trust) -> None:
        """Offer it to a caller who was proved by that trust document, and just told of an active token, as JSON."""
        if caller.method == LASTS_AGAIN:
            asker = _Asker(caller.client_id, caller.client.audiences, trust)
            offer(request, partial(self._ask, asker))

    def _ask(self, asker: _Asker, body: bytes, reply: Reply) -> bool:
        """Have it answered if it asks about one token that is remembered for this caller."""
        question = _QUESTION.fullmatch(body)
        if question is None or self._parts.replica.trust is not asker.trust:
            return False
        one = self._judge.recall(question[question.lastindex or 0], asker.audiences)
        if one is None:
            return False
        try:
            self._questions.add((asker, one, reply, self._parts.clock.boottime()))
        except Busy:
            return False
        return True

    async def _answer_all(self, asked: list[_Question]) -> None:
        """Tell a yes for each token that is active still, by the trust document that its caller was proved by."""
        now: float | None = None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                now = await self._judge.follow()
        except (StoreUnavailable, FeedUnavailable, Busy, TimeoutError):
            pass  # The long way finds out by itself, and says what there is to say.
        except Exception:
            self._parts.log.exception(UNEXPECTED)
        finally:
            self._reply_all(asked, now)

    def _reply_all(self, asked: list[_Question], now: float | None) -> None:
        trust, ended, told = self._parts.replica.trust, self._parts.clock.boottime(), 0
        timing, writes = self._notes.timing(PATH, 200), self._notes.writes(PATH)
        for asker, one, reply, began in asked:
            answer: bytes | None = None
            try:
                if now is not None and asker.trust is trust:
                    answer = self._answer(asker, one, now)
                if answer is not None:
                    told += 1
                    if timing is not None:
                        timing.note(ended - began)
                    if writes:
                        self._write(asker, ended - began)
            except Exception:  # The long way says what is to be said.
                self._parts.log.exception(UNEXPECTED)
            try:
                reply(answer)
            except Exception:  # One connection's; the others still wait for their answers.
                self._parts.log.exception(UNEXPECTED)
        self._yes.inc(told)

    def _answer(self, asker: _Asker, one: Remembered, now: float) -> bytes | None:
        verdict = self._judge.confirm(one, asker.audiences, now)
        return None if verdict is None else self._replies.ok(as_json(verdict))

    def _write(self, asker: _Asker, seconds: float) -> None:
        """Write the line of an answer; each on this way is a fresh yes, and they are alike."""
        facts = {
            "client_id": asker.client_id, "answer": Kind.ACTIVE.value, "reason": "active",
            "state": State.FRESH.value, "rendering": "json",
        }  # fmt: skip
        self._notes.write(method="POST", path=PATH, status=200, seconds=seconds, facts=facts)
