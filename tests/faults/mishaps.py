"""What may happen to the store, or to somebody's way to it; each lasts as long as its block, and then it is back."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from keyturn.contract.positions import Lane
from stack.ports import LOOPBACK
from stack.server import EmbeddedServer
from tests.faults.doorman import Doorman, Way, doorman_before
from tests.faults.drills import Fault, Until
from tests.faults.fleet import EVERYTHING, STALE_SECONDS, Fleet, running_fleet
from tests.faults.intruder import Intruder
from tests.faults.load import progress
from tests.faults.people import People, people_of
from tests.faults.recorder import CLOCK
from tests.waiting import eventually

_DATA = "appendonlydir"  # Where the server keeps everything.


@asynccontextmanager
async def killed(people: People) -> AsyncIterator[None]:
    """Kill the server (SIGKILL), and start it again on its data."""
    await people.fleet.server.kill()
    yield
    await people.fleet.server.restart()


@asynccontextmanager
async def emptied(people: People) -> AsyncIterator[None]:
    """Kill the server, lose all of its data, and start it empty."""
    server = people.fleet.server
    await server.kill()
    await asyncio.to_thread(shutil.rmtree, server.directory / _DATA)
    yield
    await server.restart()


@asynccontextmanager
async def restored(people: People) -> AsyncIterator[None]:
    """Kill the server, and start it on a copy of its data from before the last revocations and rotations."""
    server = people.fleet.server
    data, copy = server.directory / _DATA, server.directory / "copy"
    await asyncio.to_thread(shutil.copytree, data, copy)
    await progress(people, revocations=10, rotations=1)
    await server.kill()
    await asyncio.to_thread(shutil.rmtree, data)
    await asyncio.to_thread(copy.rename, data)
    yield
    await server.restart()


@asynccontextmanager
async def frozen(people: People) -> AsyncIterator[None]:
    """Stop the server's time: every connection stands, and nothing answers."""
    people.fleet.server.freeze()
    try:
        yield
    finally:
        people.fleet.server.thaw()


def cut(doorman: Doorman, *ways: Way) -> Fault:
    """Lose what goes one way, or both, through a door; every connection stands."""

    @asynccontextmanager
    async def fault(people: People) -> AsyncIterator[None]:
        doorman.lost = frozenset(ways)
        try:
            yield
        finally:
            doorman.lost = frozenset()

    return fault


def failed_over(doorman: Doorman, replica: EmbeddedServer) -> Fault:
    """Kill the primary while its replica lacks the newest writes, and promote that one behind the same address."""

    @asynccontextmanager
    async def fault(people: People) -> AsyncIterator[None]:
        primary, fleet = people.fleet.server, people.fleet
        replica.freeze()
        try:
            async with fleet.redis() as redis:
                await redis.client_kill_filter(_type="slave")  # What is in its socket would still reach it.
            await progress(people, revocations=10, rotations=0)
            acknowledged = await _position(fleet)
            await primary.kill()
        finally:
            replica.thaw()
        yield
        fleet.server = replica
        assert await _position(fleet) < acknowledged, "nothing was lost"
        doorman.store_port = replica.port
        async with fleet.redis() as redis:
            await redis.replicaof("NO", "ONE")

    return fault


@asynccontextmanager
async def replica_of(fleet: Fleet) -> AsyncIterator[EmbeddedServer]:
    """Run a replica of a fleet's server, with the same users; it holds all that the server holds."""
    settings = {
        "replicaof": f"{LOOPBACK} {fleet.server.port}", "masteruser": "default",
        "masterauth": fleet.password.reveal_text(), "repl-diskless-sync-delay": "0",
    }  # fmt: skip
    replica = EmbeddedServer(
        fleet.directory.with_name("replica"), aclfile=fleet.directory / "redis" / "users.acl", user="default",
        password=fleet.password, settings=settings,
    )  # fmt: skip
    async with replica, fleet.redis() as redis:

        async def in_step() -> bool:
            return bool((await redis.info("replication")).get("slave0", {}).get("state") == "online")

        await eventually(in_step, within_seconds=20)
        yield replica


@asynccontextmanager
async def behind(doorman: Doorman, fleet: Fleet, *names: str) -> AsyncIterator[None]:
    """Let these processes reach the store through a door, for as long as the block lasts."""
    for name in names:
        assert await fleet.end(name) == 0
        fleet.start(name, REDIS__URL=f"redis://{LOOPBACK}:{doorman.port}/0")
    await fleet.until_ready(*names)
    yield
    for name in names:
        assert await fleet.end(name) == 0
        fleet.start(name)
    await fleet.until_ready(*names)


async def answers(people: People) -> None:
    """Wait until sidecars have answered a hundred times since."""
    since = CLOCK.boottime()
    await eventually(lambda: len(people.recorder.since(since)) >= 100, within_seconds=20)


def all_are(state: str, sidecars: Iterable[str] | None = None) -> Until:
    """Wait until sidecars, all of them if none is named, say that they are in a state."""

    async def until(people: People) -> None:
        async def are() -> bool:
            names = people.sidecars() if sidecars is None else sidecars
            return all([(await people.state(name))["state"] == state for name in names])

        limit = people.fleet.stale_seconds + 5 if state == "stale" else people.fleet.expired_seconds + 5
        await eventually(are, within_seconds=limit, saying=people.fleet.last_words)

    return until


def passed(seconds: float) -> Until:
    """Wait until that much time has passed."""

    async def until(people: People) -> None:
        end = CLOCK.boottime() + seconds
        await eventually(lambda: CLOCK.boottime() >= end, within_seconds=seconds + 5)

    return until


@asynccontextmanager
async def failing_over() -> AsyncIterator[tuple[People, Fault]]:
    """Run a fleet of its own on a server with a replica, behind one address, and give the fault that swaps them.

    Nobody may call such a store durable, so receipts wait until everybody was watched for E + S.
    """
    settings = {"REDIS__DURABLE": "false", "FRESHNESS__EXPIRED": f"{STALE_SECONDS + 2}s"}
    async with (
        running_fleet(settings=settings) as fleet,
        replica_of(fleet) as replica,
        doorman_before(fleet.server.port) as doorman,
    ):
        for name in EVERYTHING:
            fleet.start(name, REDIS__URL=f"redis://{LOOPBACK}:{doorman.port}/0")
        await fleet.until_ready(*EVERYTHING)
        async with people_of(fleet) as people:
            yield people, failed_over(doorman, replica)


async def _position(fleet: Fleet) -> tuple[int, int]:
    """Return where the store says that the revocations lane stands."""
    async with fleet.redis() as redis:
        return (await Intruder(redis).position(Lane.REVOCATIONS)).place
