"""Several rotators on one lane: whatever they race for, they make one set of keys and one rotation."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

from redis.asyncio import Redis

from keyturn.clock import SystemClock
from keyturn.contract.events import KeysEvent, open_event
from keyturn.contract.keys import Activated, KeySet, Phase, Published, Use
from keyturn.contract.positions import Lane
from keyturn.contract.trust import Trust, open_trust
from keyturn.feed.publisher import bootstrap
from keyturn.feed.redis import RedisFeed
from keyturn.process.pinned import read_root
from tests.faults.fleet import Fleet, running_fleet
from tests.waiting import eventually

ALGORITHMS = ("ES256", "RS256")
STANDBYS = 2
OTHER_USES = {Use.INTROSPECTION: 1, Use.STATUS: 1}  # And the standbys that each has unless settings say otherwise.
ROTATIONS = 3
ACTIVE_SECONDS = 2
SHORT_SECONDS = 1
ROTATORS = ("keyservice", "keyservice-2", "worker", "worker-2")
SETTINGS = {
    "ROTATION__ALGORITHMS": ",".join(ALGORITHMS),
    "ROTATION__STANDBYS": str(STANDBYS),
    "ROTATION__TOKEN": "60s",
}


class History:
    """The keys lane from its first event on, read and checked as any verifier does."""

    def __init__(self, feed: RedisFeed, trust: Trust) -> None:
        self._feed, self._trust = feed, trust

    async def events(self) -> list[KeysEvent]:
        """Return all events."""
        compacts = await self._feed.events(Lane.KEYS, epoch=1, after=0)
        events = [open_event(one, Lane.KEYS, self._trust.role(Lane.KEYS)).event for one in compacts]
        return [event for event in events if isinstance(event, KeysEvent)]

    async def keys(self) -> KeySet:
        """Return what the events add up to; raises BrokenChain for a step that no key can take."""
        keys = KeySet()
        for event in await self.events():
            keys = keys.after(event.changes, at=event.at, place=(event.epoch, event.sequence))
        return keys

    async def rotations(self) -> int:
        """Count the times that another key began to sign access tokens."""
        changes = [change for event in await self.events() for change in event.changes]
        access = {one.kid for one in changes if isinstance(one, Published) and one.use is Use.ACCESS}
        return sum(isinstance(one, Activated) and one.kid in access for one in changes) - len(ALGORITHMS)


@asynccontextmanager
async def history_of(fleet: Fleet) -> AsyncIterator[History]:
    """Read a fleet's keys lane."""
    trust = open_trust((fleet.directory / "trust.jws").read_bytes(), root=root_of(fleet), allow_dev=False)
    async with fleet.redis() as redis:
        yield History(RedisFeed(redis, pubsub=redis), trust)


def root_of(fleet: Fleet) -> dict[str, str]:
    """Return the pinned root."""
    return read_root(fleet.directory / "root.jwk")


async def begin_lanes(fleet: Fleet, redis: Redis) -> None:
    """Put trust document and genesis into the store, as key service and revocation do at the very first start."""
    feed = RedisFeed(redis, pubsub=redis)
    compact = (fleet.directory / "trust.jws").read_bytes()
    await feed.keep_trust(compact)
    trust = open_trust(compact, root=root_of(fleet), allow_dev=False)
    for lane in Lane:
        await bootstrap(feed, (fleet.directory / "genesis" / f"{lane}.jws").read_bytes(), trust, lane)


def is_one_set(keys: KeySet) -> bool:
    """Say whether each algorithm has one key that signs, and its standbys; so has each other use that has begun."""
    wanted = {(alg, Use.ACCESS): STANDBYS for alg in ALGORITHMS}
    wanted |= {(ALGORITHMS[0], key.use): OTHER_USES[key.use] for key in keys if key.use in OTHER_USES}
    return {(key.alg, key.use) for key in keys} == wanted.keys() and all(
        len(keys.of(alg, use, Phase.ACTIVE)) == 1 and len(keys.of(alg, use, Phase.PUBLISHED)) == standbys
        for (alg, use), standbys in wanted.items()
    )


async def all_at_once(fleet: Fleet, *workers: str) -> None:
    """Start workers, hold back what they write until all have read the lanes, and wait until their jobs are done.

    Each has a queue of its own: arq's `unique` must not be what keeps them apart, since it excludes nobody.
    """
    async with fleet.redis() as redis:
        await redis.client_pause(20_000, all=False)
        for worker in workers:
            (fleet.directory / f"{worker}.log").unlink(missing_ok=True)
            fleet.start(worker, WORKER__QUEUE=f"arq:{worker}")
        await fleet.until_ready(*workers)
        began = ("trust_adopted", "state_restored")  # The second time it has a disk of its own to begin with.
        await eventually(lambda: all(any(event in fleet.log(worker) for event in began) for worker in workers))
        await redis.client_unpause()
        # Both jobs are put into their queues at once then, and taken out when they have ended.
        await eventually(lambda: redis.exists(*(f"arq:{worker}" for worker in workers)))

        async def done() -> bool:
            return not await redis.exists(*(f"arq:{worker}" for worker in workers))

        await eventually(done, within_seconds=15, saying=fleet.last_words)


async def test_workers_that_begin_at_once_make_one_set_of_keys_and_then_one_rotation() -> None:
    """They have read the same lane and decide the same; the feed's compare-and-set lets one of them do it."""
    workers, settings = ("worker", "worker-2"), SETTINGS | {"ROTATION__ACTIVE": f"{ACTIVE_SECONDS}s"}
    async with running_fleet(settings=settings) as fleet, history_of(fleet) as history:
        async with fleet.redis() as redis:
            await begin_lanes(fleet, redis)
        await all_at_once(fleet, *workers)
        assert is_one_set(await history.keys())
        assert len(await history.events()) == 1 + len(OTHER_USES)
        for worker in workers:
            assert await fleet.end(worker) == 0
        first = (await history.events())[0]
        await eventually(lambda: SystemClock().now() > first.at + ACTIVE_SECONDS)
        await all_at_once(fleet, *workers)
        assert is_one_set(await history.keys())
        assert await history.rotations() == len(ALGORITHMS)


async def test_key_services_and_workers_that_rotate_by_schedule_rotate_once_a_period() -> None:
    """Four processes see the same second at which a key's period ends; a key that was rotated twice would sign less."""
    settings = SETTINGS | {"ROTATION__ACTIVE": f"{SHORT_SECONDS}s"}
    async with running_fleet(*ROTATORS, settings=settings) as fleet, history_of(fleet) as history:
        await eventually(
            lambda: enough(history), within_seconds=ROTATIONS * SHORT_SECONDS + 10, saying=fleet.last_words
        )
        keys = KeySet()
        for event in await history.events():
            keys = keys.after(event.changes, at=event.at, place=(event.epoch, event.sequence))
            assert is_one_set(keys)
        signing = [key for key in keys if key.use is Use.ACCESS]
        for alg in ALGORITHMS:
            moments = sorted(key.active_at for key in signing if key.alg == alg and key.active_at is not None)
            assert all(later - earlier >= SHORT_SECONDS for earlier, later in pairwise(moments))
            assert len(moments) >= ROTATIONS


async def enough(history: History) -> bool:
    """Say whether there have been enough rotations to look at."""
    return await history.rotations() >= ROTATIONS * len(ALGORITHMS)
