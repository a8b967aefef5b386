"""A small Keyturn that lives on a real store: publishers of both lanes, and followers on connections of their own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from keyturn.clock import SystemClock
from keyturn.contract.errors import FeedError
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.publisher import Publisher
from keyturn.feed.recovery import Recovery
from keyturn.process.following import StoreConnections
from keyturn.process.settings import RedisSettings
from keyturn.verifier.freshness import Freshness, State
from tests.waiting import eventually
from tests.world import Member, World

CLOCK = SystemClock()
FRESHNESS = Freshness(skew_seconds=1.0, stale_after_seconds=3.0, expired_after_seconds=60.0)
ACCEPTED_SECONDS = 20.0


@dataclass
class Living:
    """What runs: `publishers` by lane on top of `own`, the replica of the process that they live in."""

    world: World
    own: Member
    publishers: dict[Lane, Publisher]
    followers: list[Member]

    async def revoke(self, jti: str) -> tuple[int, int]:
        """Revoke a token, asking again as clients do while the store cannot say; return the place."""
        entry = self.world.entry(SelectorKind.JTI, jti)
        return await self._append(Lane.REVOCATIONS, [entry])

    async def new_key(self) -> tuple[int, int]:
        """Publish a key; return the place."""
        return await self._append(Lane.KEYS, [self.world.new_key()])

    async def _append(self, lane: Lane, content: list[object]) -> tuple[int, int]:
        deadline = CLOCK.boottime() + ACCEPTED_SECONDS
        while True:
            try:
                signed = await self.publishers[lane].append(content)  # type: ignore[arg-type]
            except FeedError:
                assert CLOCK.boottime() < deadline, "the store did not come back"
                await CLOCK.sleep(0.05)
                await self._catch_up()
            else:
                return signed.position.place

    async def _catch_up(self) -> None:
        try:
            await self.own.follower.catch_up()
        except FeedError:
            return

    def revoked(self, jti: str) -> list[bool]:
        """Say of each follower whether it rejects a token."""
        names = [member.replica.names({"iss": self.world.issuer, "jti": jti}) for member in self.followers]
        return [member.replica.revokes(own) for member, own in zip(self.followers, names, strict=True)]

    def states(self) -> set[State]:
        """Return the states that followers are in."""
        return {member.replica.state(CLOCK.now(), CLOCK.boottime()) for member in self.followers}

    def fresh(self) -> bool:
        """Say whether all followers are fresh."""
        return self.states() == {State.FRESH}

    def at(self, lane: Lane, place: tuple[int, int]) -> bool:
        """Say whether all followers hold a place."""
        return all(member.replica.place(lane) >= place for member in self.followers)

    def told(self) -> object:
        """Return the last notes of everybody, for a test that fails."""
        return [member.noted[-5:] for member in (self.own, *self.followers)]


@asynccontextmanager
async def living(settings: RedisSettings, *, followers: int = 2) -> AsyncIterator[Living]:
    """Let a Keyturn live on an empty store, from when all followers are fresh."""
    async with AsyncExitStack() as stack:
        own_ways = StoreConnections(stack, settings, "publisher")
        world = World(feed=own_ways.feed(own_ways.client()), clock=CLOCK, freshness=FRESHNESS)
        await world.begin()
        own = await stack.enter_async_context(world.following())
        publishers = {lane: world.publisher(lane, own) for lane in Lane}
        beats = []
        for one in publishers.values():
            recovery = Recovery(
                one, world.feed, own.replica, CLOCK, read_anew=own.follower.read_anew,
                genesis=lambda lane=one.lane: world.genesis(lane).compact, note=ignored,  # type: ignore[misc]
            )  # fmt: skip
            beats.append(asyncio.ensure_future(one.run(own.follower.catch_up, recovery.mend)))
        stack.push_async_callback(_end, beats)
        members = []
        for number in range(followers):
            ways = StoreConnections(stack, settings, f"follower-{number}")
            feed = ways.feed(ways.client(), at_replica=True)
            members.append(await stack.enter_async_context(replace(world, feed=feed).following()))
        running = Living(world, own, publishers, members)
        await eventually(running.fresh)
        yield running


def ignored(event: str, **facts: object) -> None:
    """Hear what a recovery did; the followers show it."""


async def _end(tasks: Sequence["asyncio.Future[None]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
