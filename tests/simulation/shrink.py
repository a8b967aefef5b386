"""From a failing plan to a small one that fails in the same way: fewer happenings, shorter faults, a smaller fleet."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from tests.rotation.facts import Broken
from tests.simulation.plan import Happening, Plan
from tests.simulation.world import Run, run

MOST_RUNS = 400
_SHORTER = 0.5  # Of a fault's length, at each try.
_SHORTEST_SECONDS = 0.05


def kind_of(failure: BaseException) -> str:
    """Return what a failure is known by: the invariant that broke, else the type of the error."""
    return failure.invariant if isinstance(failure, Broken) else type(failure).__name__


def shrunk(plan: Plan, failure: BaseException, *, play: Callable[[Plan], Run] = run) -> tuple[Plan, Run]:
    """Return the smallest plan found within `MOST_RUNS` runs that fails like `failure`, and how it went."""
    wanted, runs = kind_of(failure), 0

    def fails(candidate: Plan) -> Run | None:
        nonlocal runs
        runs += 1
        went = play(candidate)
        return went if went.failure is not None and kind_of(went.failure) == wanted else None

    best, went = plan, play(plan)
    progress = True
    while progress and runs < MOST_RUNS:
        progress = False
        for candidate in _smaller(best):
            if runs >= MOST_RUNS:
                break
            if (found := fails(candidate)) is not None:
                best, went, progress = candidate, found, True
                break
    return best, went


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Yield plans that are smaller in one respect, the boldest first."""
    happenings = plan.happenings
    size = len(happenings)
    while size > 0:
        for start in range(0, len(happenings), size):
            yield _with(plan, [*happenings[:start], *happenings[start + size :]])
        size //= 2
    yield from _smaller_fleets(plan)
    for index, one in enumerate(happenings):
        if one.seconds > _SHORTEST_SECONDS:
            shorter = one._replace(seconds=max(_SHORTEST_SECONDS, one.seconds * _SHORTER))
            yield _with(plan, [*happenings[:index], shorter, *happenings[index + 1 :]])


def _smaller_fleets(plan: Plan) -> Iterator[Plan]:
    """Yield plans without one of the processes that nothing happens to."""
    busy = {one.whom for one in plan.happenings}
    for kind, fewest in (("workers", 0), ("revokers", 1), ("verifiers", 1)):
        names: tuple[str, ...] = getattr(plan, kind)
        for name in names:
            if name not in busy and len(names) > fewest:
                yield msgspec.structs.replace(plan, **{kind: tuple(one for one in names if one != name)})


def _with(plan: Plan, happenings: Sequence[Happening]) -> Plan:
    return msgspec.structs.replace(plan, happenings=tuple(happenings))
