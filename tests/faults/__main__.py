"""`python -m tests.faults --table [--only WORD]`: the long form of drills and attacks, as tables for the documentation.

It takes about eight minutes, and prints each row as soon as it is known.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

from tests.faults.attack_table import ATTACKS, Row
from tests.faults.doorman import Way, doorman_before
from tests.faults.drills import Fault, Outcome, Until, drill
from tests.faults.fleet import EVERYTHING, running_fleet
from tests.faults.load import Pace
from tests.faults.mishaps import answers, behind, cut, emptied, failing_over, frozen, killed, passed, restored
from tests.faults.people import People, people_of
from tests.faults.withstanding import Withstood, withstand

PACE = Pace(between_revocations_seconds=0.05, between_rotations_seconds=2.0)
SETTINGS = {"FRESHNESS__STALE": "5s", "FRESHNESS__EXPIRED": "15m", "ROTATION__LEASE": "5s"}  # As they come.
FROZEN_SECONDS, AWAY_SECONDS = 30.0, 10.0
MANY = 5  # So many processes that say the same are everybody.

Setting = AbstractAsyncContextManager[tuple[People, Fault]]


class Drill(NamedTuple):
    """A row of the table of faults: what happens, where, and how long."""

    happens: str
    setting: Callable[[], Setting]
    until: Until


def whole(fault: Fault) -> Callable[[], Setting]:
    """Let something happen to the store of a whole fleet."""

    @asynccontextmanager
    async def setting() -> AsyncIterator[tuple[People, Fault]]:
        async with running_fleet(*EVERYTHING, settings=SETTINGS) as fleet, people_of(fleet) as people:
            yield people, fault

    return setting


def through_a_door(way: Way, *names: str) -> Callable[[], Setting]:
    """Let these processes be cut off in one direction."""

    @asynccontextmanager
    async def setting() -> AsyncIterator[tuple[People, Fault]]:
        async with (
            running_fleet(*EVERYTHING, settings=SETTINGS) as fleet,
            doorman_before(fleet.server.port) as doorman,
            behind(doorman, fleet, *names),
            people_of(fleet) as people,
        ):
            yield people, cut(doorman, way)

    return setting


PUBLISHERS = ("keyservice", "revocation")
DRILLS = (
    Drill("the server is killed, and back at once", whole(killed), answers),
    Drill(f"the server is killed, and away for {AWAY_SECONDS:g} s", whole(killed), passed(AWAY_SECONDS)),
    Drill(f"the server is frozen for {FROZEN_SECONDS:g} s", whole(frozen), passed(FROZEN_SECONDS)),
    Drill(
        f"a sidecar hears nothing for {AWAY_SECONDS:g} s",
        through_a_door(Way.FROM_STORE, "sidecar-2"), passed(AWAY_SECONDS),
    ),
    Drill(
        f"a sidecar is not heard for {AWAY_SECONDS:g} s",
        through_a_door(Way.TO_STORE, "sidecar-2"), passed(AWAY_SECONDS),
    ),
    Drill(
        f"the publishers hear nothing for {AWAY_SECONDS:g} s",
        through_a_door(Way.FROM_STORE, *PUBLISHERS), passed(AWAY_SECONDS),
    ),
    Drill(
        f"the publishers are not heard for {AWAY_SECONDS:g} s",
        through_a_door(Way.TO_STORE, *PUBLISHERS), passed(AWAY_SECONDS),
    ),
    Drill("the server comes back empty", whole(emptied), answers),
    Drill("the server comes back from an older copy", whole(restored), answers),
    Drill("a replica that lacks the newest writes becomes the primary", failing_over, answers),
)  # fmt: skip


async def print_faults(only: str) -> None:
    """Print the table of faults."""
    print(
        "| fault | answers | revocations | rotations | false accepts | false rejects while fresh | fresh again after |"
    )
    print("|---|---|---|---|---|---|---|")
    for one in DRILLS:
        if only in one.happens:
            async with one.setting() as (people, fault):
                print(row_of_fault(one, await drill(people, fault, one.until, pace=PACE)), flush=True)


def row_of_fault(one: Drill, outcome: Outcome) -> str:
    """Return a row of that table."""
    verdict, slowest = outcome.verdict, max(outcome.back_seconds.values())
    back = "never left it" if slowest == 0 else f"{slowest:.1f} s"
    figures = (outcome.answers, outcome.revocations, outcome.rotations)
    wrong = (len(verdict.false_accepts), len(verdict.rejected_though_fresh))
    return " | ".join(["", one.happens, *(f"{figure:,}" for figure in (*figures, *wrong)), back, ""]).strip()


async def print_attacks(only: str) -> None:
    """Print the table of attacks."""
    print("| he | accepted | sidecars | newcomer | revoking | who is told | all well after |")
    print("|---|---|---|---|---|---|---|")
    async with running_fleet(*EVERYTHING) as fleet:
        for row in ATTACKS:
            if only in row.does:
                async with people_of(fleet) as people:
                    print(row_of_attack(row, await withstand(people, row.attack, row.notices)), flush=True)


def row_of_attack(row: Row, outcome: Withstood) -> str:
    """Return a row of that table."""
    accepted = "; ".join(outcome.accepted) or "nothing"
    order = "503" if outcome.order is None else str(outcome.order)
    told = told_by_event(outcome.noticed) or "nobody: it changes nothing"
    cells = (row.does, accepted, outcome.state, outcome.newcomer, order, told, f"{outcome.well_seconds:.1f} s")
    return " | ".join(["", *cells, ""]).strip()


def told_by_event(noticed: dict[str, set[str]]) -> str:
    """Return each log event with who logged it."""
    by_event: dict[str, list[str]] = {}
    for name, events in sorted(noticed.items()):
        for event in events - {"trust_adopted"}:
            by_event.setdefault(event, []).append(name)
    return ", ".join(f"`{event}` ({_whom(names)})" for event, names in sorted(by_event.items()))


def _whom(names: Iterable[str]) -> str:
    kinds = list(dict.fromkeys(name.split("-")[0] for name in names))
    return "everybody" if len(kinds) >= MANY else ", ".join(kinds)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--table", action="store_true", required=True, help="print both tables")
    parser.add_argument("--only", default="", help="only rows with this word")
    only: str = parser.parse_args().only

    async def tables() -> None:
        if any(only in one.happens for one in DRILLS):
            await print_faults(only)
        if any(only in row.does for row in ATTACKS):
            await print_attacks(only)

    asyncio.run(tables())


if __name__ == "__main__":
    main()
