"""Tokens whose key is not known here: one look where keys are told before they are refused."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from keyturn.contract.errors import FeedUnavailable, InvalidToken, IssuerKeysUnavailable
from keyturn.contract.tokens import parse_token
from keyturn.verifier.follower import Follower
from keyturn.verifier.issuers import IssuerKeys
from keyturn.verifier.policy import Policy
from keyturn.verifier.verdict import Kind, Verdict
from keyturn.verifier.verifier import TokenVerifier

MOST_WAITING = 256
"""How many requests may wait for a look at the feed; one more is answered 503 at once, so that a flood of invented
keys takes neither memory nor connections from good tokens."""
MOST_WAITING_ABROAD = 64
"""How many may wait for the keys of each other issuer: a slow one must not hold up tokens of ours."""
PATIENCE_SECONDS = 3.0
"""How long they wait for another issuer; then the answer is 503, and the look goes on without them."""
_LATE = frozenset({"unknown_kid", IssuerKeysUnavailable.code})


class Queue:
    """Those who wait for one look: at the feed, or at another issuer's keys."""

    def __init__(self, look: Callable[[], Awaitable[None]], *, most: int) -> None:
        self.waiting = self.asked = self.turned_away = 0
        self._look, self._most = look, most

    @property
    def full(self) -> bool:
        """Whether nobody more may wait; asking is counted."""
        if self.waiting < self._most:
            return False
        self.turned_away += 1
        return True

    async def look(self) -> None:
        """Look, together with all who wait at the same time; raises what looking raises."""
        self.waiting += 1
        self.asked += 1
        try:
            await self._look()
        finally:
            self.waiting -= 1


class Latecomers:
    """Judges a token again after a look, which all who wait at the same time share.

    The feed is looked at once in 100 ms at most, another issuer's keys once in 10 s.
    """

    def __init__(self, verifier: TokenVerifier, follower: Follower, issuers: Sequence[IssuerKeys] = ()) -> None:
        self._verifier, self._clock = verifier, verifier.clock
        self.ours = Queue(follower.catch_up, most=MOST_WAITING)
        self._others = {keys: Queue(keys.renew, most=MOST_WAITING_ABROAD) for keys in issuers}

    @property
    def queues(self) -> list[Queue]:
        """Return all of them."""
        return [self.ours, *self._others.values()]

    def queue_for(self, verdict: Verdict, token: bytes) -> Queue | None:
        """Return where a token may wait for another verdict; None where no look can change this one."""
        if verdict.reason not in _LATE:
            return None
        if verdict.kind is Kind.INACTIVE:
            return self.ours if self._names_us(token) else None
        issuer = self._verifier.issuer_of(token)
        return self._others[issuer] if issuer is not None and issuer.may_renew(self._clock.boottime()) else None

    async def judge(self, queue: Queue, token: bytes, policy: Policy) -> Verdict:
        """Wait for the queue's look and judge; where it failed the verdict is unknown."""
        if queue is not self.ours:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await queue.look()
            return self._verifier.judge(token, policy)
        try:
            await queue.look()
        except FeedUnavailable:
            state = self._verifier.replica.state(self._clock.now(), self._clock.boottime())
            return Verdict(Kind.UNKNOWN, "catch_up_failed", state)
        return self._verifier.judge(token, policy)

    def _names_us(self, token: bytes) -> bool:
        """Say whether the token names our issuer: another one's keys are not in our feed."""
        try:
            return parse_token(token).claims.get("iss") == self._verifier.replica.issuer
        except InvalidToken:
            return False
