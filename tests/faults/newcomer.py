"""A follower that begins now, with nothing but the pinned root: it has to believe the store, or nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from keyturn.feed.redis import RedisFeed
from keyturn.process.pinned import read_root
from keyturn.verifier.follower import Follower
from keyturn.verifier.freshness import Freshness, State
from keyturn.verifier.policy import Policy
from keyturn.verifier.replica import Replica
from keyturn.verifier.verdict import Kind
from keyturn.verifier.verifier import TokenVerifier
from tests.faults.fleet import SKEW_SECONDS, Fleet
from tests.faults.recorder import CLOCK, Held

AUDIENCE = "https://api.example"


class Newcomer:
    """The production follower and verifier in this process; `noted` has the events that an operator would see."""

    def __init__(self, fleet: Fleet, feed: RedisFeed) -> None:
        """Begin with nothing."""
        freshness = Freshness(
            stale_after_seconds=fleet.stale_seconds, expired_after_seconds=fleet.expired_seconds,
            skew_seconds=SKEW_SECONDS,
        )  # fmt: skip
        self.noted: list[str] = []
        self.replica = Replica(issuer=fleet.issuer, freshness=freshness)
        self.follower = Follower(
            feed, self.replica, CLOCK, root=read_root(fleet.directory / "root.jwk"),
            note=lambda event, **_: self.noted.append(event),
        )  # fmt: skip
        self._verifier, self._policy = TokenVerifier(self.replica, CLOCK), Policy(audience=AUDIENCE)

    @property
    def state(self) -> State:
        """Return what it would say of itself."""
        return self.replica.state(CLOCK.now(), CLOCK.boottime())

    def passes(self, held: Held) -> bool:
        """Say whether it would let a token through."""
        return self._verifier.judge(held.text.encode(), self._policy).kind is Kind.ACTIVE


@asynccontextmanager
async def newcomer(fleet: Fleet) -> AsyncIterator[Newcomer]:
    """Let somebody follow the feed from now on."""
    async with fleet.redis() as redis, fleet.redis(subscribing=True) as subscriber:
        one = Newcomer(fleet, RedisFeed(redis, pubsub=subscriber))
        task = asyncio.create_task(one.follower.run())
        try:
            yield one
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
