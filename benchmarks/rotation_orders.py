"""Row P10 and the rotations of P14: from an order to the first token by the new key, with followers that report."""

import asyncio
import base64
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

from benchmarks.fleets import Asker, fleet
from benchmarks.load import LOAD_CPU, MeasurementSpoiledError, pinned
from benchmarks.rounds import Row
from benchmarks.services import Services, running
from keyturn.clock import SystemClock

FOLLOWERS, ROTATIONS = 50, 60
LONGEST_MS = 100.0
PAUSE_SECONDS = 1.2  # Between two orders: followers report once a second, so that the next key is known to all.
HURRY_SECONDS = 0.1  # Every other order then waits for reports, which it asks for.
CHECK_PAUSE_SECONDS = 0.002
LIVE_SECONDS = 60.0
GOOD, TOKENS_AT_HAND = 200, 20
NAMES = ("keyservice", "authorization", "revocation")


@dataclass
class Taken:
    """What a run of rotations came to."""

    seconds: list[float] = field(default_factory=list)
    checks: int = 0
    rejects: int = 0


def measure(directory: Path) -> list[Row]:
    """Measure the goal of P10: milliseconds, and not one good token rejected."""
    with pinned(LOAD_CPU):
        routine = asyncio.run(rotations(directory / "routine", pause_seconds=PAUSE_SECONDS, count=ROTATIONS))
        hurried = asyncio.run(rotations(directory / "hurried", pause_seconds=HURRY_SECONDS, count=ROTATIONS))
    figure, in_a_hurry = _p99_ms(routine), _p99_ms(hurried)
    what = f"rotation ordered -> first token by the new key, {FOLLOWERS} followers, p99 ms"
    hurry = f"the same ordered every {HURRY_SECONDS:g} s, before followers have reported by themselves"
    holds = figure <= LONGEST_MS and not routine.rejects
    goal = f"<= {LONGEST_MS:.0f}"
    return [
        Row(id="P10", what=what, goal=goal, figure=figure, holds=holds, facts=_facts(routine, "P10")),
        Row(id="P10 (hurry)", what=hurry, goal="-", figure=in_a_hurry, holds=None, facts=_facts(hurried, "in a hurry")),
    ]


def _p99_ms(taken: Taken) -> float:
    return round(quantiles(taken.seconds, n=100, method="inclusive")[98] * 1000, 2)


def _facts(taken: Taken, name: str) -> dict[str, float]:
    return {
        f"{name}, p50 ms": round(median(taken.seconds) * 1000, 2),
        f"{name}, slowest ms": round(max(taken.seconds) * 1000, 2),
        f"{name}, rotations": len(taken.seconds),
        f"{name}, good tokens checked": taken.checks,
        f"{name}, good tokens rejected": taken.rejects,
    }


async def rotations(home: Path, *, pause_seconds: float, count: int, followers: int = FOLLOWERS) -> Taken:
    """Rotate again and again while tokens are checked at every follower."""
    clock, taken = SystemClock(), Taken()
    processes = 1 if followers <= FOLLOWERS else 2  # One process cannot serve so many heartbeats.
    async with (
        running(home, *NAMES, verifiers=followers) as services,
        fleet(home, services.server.url(), followers, processes=processes) as sidecars,
    ):
        deadline = clock.boottime() + LIVE_SECONDS
        while await services.verifiers() < followers:
            if clock.boottime() > deadline:
                raise MeasurementSpoiledError(f"{await services.verifiers()} of {followers} followers report")
            await clock.sleep(0.1)
        tokens = [(await services.token()).encode("ascii") for _ in range(TOKENS_AT_HAND)]
        checking = asyncio.create_task(_check(sidecars.askers, tokens, taken, clock))
        for number in range(count):
            if checking.done():
                checking.result()
            taken.seconds.append(await _rotate(services, tokens, clock))
            if number % 20 == 19:  # noqa: PLR2004
                print(f"  {number + 1} rotations, {followers} followers", file=sys.stderr, flush=True)
            await clock.sleep(pause_seconds)
        checking.cancel()
        with suppress(asyncio.CancelledError):
            await checking
    return taken


async def _rotate(services: Services, tokens: list[bytes], clock: SystemClock) -> float:
    """Order a rotation, and get tokens until one is signed by another key."""
    before = _kid(tokens[-1])
    sent = clock.boottime()
    order = asyncio.create_task(services.order("/keys/rotate"))
    while _kid(token := (await services.token()).encode("ascii")) == before:
        pass
    took = clock.boottime() - sent
    tokens.append(token)
    del tokens[0]
    await order
    return took


async def _check(askers: Sequence[Asker], tokens: list[bytes], taken: Taken, clock: SystemClock) -> None:
    """Ask each follower in turn about the newest token and an old one, until cancelled."""
    turn = 0
    while True:
        asker = askers[turn % len(askers)]
        for token in (tokens[-1], tokens[turn % len(tokens)]):
            taken.rejects += await asker.ask(token) != GOOD
            taken.checks += 1
        turn += 1
        await clock.sleep(CHECK_PAUSE_SECONDS)


def _kid(token: bytes) -> str:
    header = token.partition(b".")[0]
    return str(json.loads(base64.urlsafe_b64decode(header + b"=" * (-len(header) % 4)))["kid"])
