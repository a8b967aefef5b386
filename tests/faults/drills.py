"""The drill: something happens to the store under load, and all that was said meanwhile is judged."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from tests.faults.judging import Verdict, back_to_fresh, judge
from tests.faults.load import Pace, load_on, progress
from tests.faults.people import People
from tests.faults.recorder import CLOCK
from tests.waiting import eventually

LATE_SECONDS = 10.0  # What a busy machine may make of the goal, fresh again within 3 s; the long form measures that.
WELL_SECONDS = 15.0  # Everything works again, on a busy machine.
_LAST_LIVE = 10  # Live tokens that everybody is asked about at the end.

Fault = Callable[[People], AbstractAsyncContextManager[None]]
Until = Callable[[People], Awaitable[None]]


@dataclass(frozen=True)
class Outcome:
    """What a drill came to."""

    verdict: Verdict
    back_seconds: dict[str, float]  # Until fresh again after the store was back, by sidecar.
    answers: int
    revocations: int
    rotations: int


async def drill(people: People, fault: Fault, until: Until, *, pace: Pace | None = None) -> Outcome:
    """Let a fault begin under load, hold it until then, end it, and ask about everything when all is well again.

    Fails where what was acknowledged does not hold in the end, or where the load cannot go on.
    """
    recorder = people.recorder
    async with load_on(people, pace or Pace()):
        await progress(people, revocations=10, rotations=1)
        assert await people.revoke_key(recorder.live()[-1].kid) == 200  # An emergency: what it ended stays ended.
        await progress(people, revocations=10, rotations=1)
        async with fault(people):
            await until(people)
        returned_at = CLOCK.boottime()
        await eventually(lambda: people.are("fresh"), within_seconds=WELL_SECONDS, saying=people.fleet.last_words)
        await progress(people, revocations=10, rotations=1)
    await eventually(people.well, within_seconds=WELL_SECONDS, saying=people.fleet.last_words)
    await everything_holds(people)
    return Outcome(
        verdict=judge(recorder, bound_seconds=people.fleet.stale_seconds),
        back_seconds=back_to_fresh(recorder, returned_at),
        answers=len(recorder.answers),
        revocations=len(recorder.acknowledged()),
        rotations=len(recorder.rotations),
    )


async def everything_holds(people: People) -> None:
    """Ask every sidecar and introspection about all that was acknowledged, and about some that is live."""
    recorder = people.recorder
    for held in recorder.acknowledged():
        assert await people.statuses(held) == [401] * len(people.sidecars())
        assert await people.introspect(held) is False
    for held in recorder.live()[-_LAST_LIVE:]:
        assert await people.statuses(held) == [200] * len(people.sidecars())
        assert await people.introspect(held) is True
