"""What may happen to the store, or to somebody's way to it; each lasts as long as its block, and then it is back."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from stack.ports import LOOPBACK
from tests.faults.doorman import Doorman, Way
from tests.faults.drills import Fault, Until
from tests.faults.fleet import Fleet
from tests.faults.people import People
from tests.faults.recorder import CLOCK
from tests.waiting import eventually


@asynccontextmanager
async def killed(people: People) -> AsyncIterator[None]:
    """Kill the server (SIGKILL), and start it again on its data."""
    await people.fleet.server.kill()
    yield
    await people.fleet.server.restart()


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
