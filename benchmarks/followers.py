"""Many followers in one process on uvloop: a replica and connections each, as in a sidecar, and nothing else of one.

No HTTP and no reports of presence: five hundred whole sidecars want more CPU than two cores have to spare. All log in
as the first sidecar.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from benchmarks.adoption import WAVE, Adoption, CountingFeed
from benchmarks.issuer import ISSUER
from keyturn.clock import SystemClock
from keyturn.process.following import connect_as
from keyturn.process.logging import configure_logging
from keyturn.process.pinned import read_root
from keyturn.process.running import keep_running
from keyturn.process.settings import LogSettings, RedisSettings
from keyturn.verifier.follower import Follower
from keyturn.verifier.freshness import Freshness
from keyturn.verifier.replica import Replica

_USER = "sidecar-1"


async def follow(directory: Path, redis_url: str, count: int) -> None:
    """Follow until the process ends; prints an empty line when all replicas are ready."""
    configure_logging(LogSettings(level="error"), process="followers")
    store = RedisSettings(url=redis_url, credentials=directory / "redis")
    root, clock, adoption = read_root(directory / "root.jwk"), SystemClock(), Adoption(count)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for start in range(0, count, WAVE):
            wave = []
            for _ in range(start, min(start + WAVE, count)):
                hearing = connect_as(stack, store, _USER, subscribing=True)
                feed = CountingFeed(connect_as(stack, store, _USER), pubsub=hearing)
                follower = Follower(feed, Replica(issuer=ISSUER, freshness=Freshness()), clock, root=root)
                group.create_task(keep_running("follower", follower.run, clock=clock))
                wave.append(follower)
            await asyncio.gather(*(follower.ready() for follower in wave))
            for follower in wave:
                adoption.watch(follower)
        print(flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    first, last = map(int, sys.argv[3:5])
    uvloop.run(follow(Path(sys.argv[1]), sys.argv[2], last + 1 - first))
