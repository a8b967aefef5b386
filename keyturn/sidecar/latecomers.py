"""Tokens whose key this replica has not heard of: one look at the feed before they are refused."""

from keyturn.contract.errors import FeedUnavailable, InvalidToken
from keyturn.contract.tokens import parse_token
from keyturn.verifier.follower import Follower
from keyturn.verifier.policy import Policy
from keyturn.verifier.verdict import Kind, Verdict
from keyturn.verifier.verifier import TokenVerifier

MOST_WAITING = 256
"""How many requests may wait for a look at the feed; one more is answered 503 at once, so that a flood of invented
keys takes neither memory nor connections from good tokens."""


class Latecomers:
    """Judges a token again after a catch-up, which all who wait at the same time share (at most one in 100 ms)."""

    def __init__(self, verifier: TokenVerifier, follower: Follower) -> None:
        self.waiting = self.asked = self.turned_away = 0
        self._verifier, self._follower = verifier, follower

    @property
    def full(self) -> bool:
        """Whether nobody more may wait; asking is counted."""
        if self.waiting < MOST_WAITING:
            return False
        self.turned_away += 1
        return True

    def may_be_ours(self, token: bytes) -> bool:
        """Say whether the token names our issuer: another one's keys are not in our feed."""
        try:
            return parse_token(token).claims.get("iss") == self._verifier.replica.issuer
        except InvalidToken:
            return False

    async def judge(self, token: bytes, policy: Policy) -> Verdict:
        """Catch up with the feed and judge; where that failed the verdict is unknown."""
        self.waiting += 1
        self.asked += 1
        try:
            await self._follower.catch_up()
        except FeedUnavailable:
            replica, clock = self._verifier.replica, self._verifier.clock
            return Verdict(Kind.UNKNOWN, "catch_up_failed", replica.state(clock.now(), clock.boottime()))
        finally:
            self.waiting -= 1
        return self._verifier.judge(token, policy)
