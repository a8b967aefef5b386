"""Row INTRO10K: what 10,000 revocations a second, pushed to introspection, do to the slowest of its answers."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

from benchmarks.issuer import ISSUER, TOKEN_SECONDS, Issuer, issuer
from benchmarks.load import LOAD_CPU, MeasurementSpoiledError, Sample, Target, pinned, sample
from benchmarks.p7 import introspection, require_active
from benchmarks.rounds import ROUNDS, Row
from keyturn import entropy
from keyturn.clock import SystemClock
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from revocation.writer import MOST_ENTRIES

PER_SECOND = 10_000
REACHED = 0.9
MOST_GROWTH = 2.0
SECONDS, WARM_UP_SECONDS = 3, 2


def measure(directory: Path) -> list[Row]:
    """Measure p99 without and with revocations, in turn."""
    with pinned(LOAD_CPU):
        return [asyncio.run(_measure(directory / "home"))]


async def _measure(home: Path) -> Row:
    quiet, loud, rates = list[Sample](), list[Sample](), list[float]()
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(issuer(home))
        target = await stack.enter_async_context(_introspection(home, running))
        await asyncio.to_thread(sample, target, home, seconds=WARM_UP_SECONDS, script="introspection.lua")
        for number in range(1, ROUNDS + 1):
            quiet.append(await asyncio.to_thread(sample, target, home, seconds=SECONDS, script="introspection.lua"))
            rate, taken = await _under_storm(running, target, home)
            rates.append(rate)
            loud.append(taken)
            shown = f"p99 {quiet[-1].p99_ms:.1f} ms, {taken.p99_ms:.1f} ms under {rate:,.0f} revocations/s"
            print(f"  round {number} of {ROUNDS}: {shown}", file=sys.stderr, flush=True)
        await asyncio.to_thread(require_active, target, 10)
    if median(rates) < REACHED * PER_SECOND:
        raise MeasurementSpoiledError(f"only {median(rates):,.0f} revocations/s could be signed and appended")
    figure = median(mine.p99_ms / theirs.p99_ms for mine, theirs in zip(loud, quiet, strict=True))
    facts: dict[str, float] = {"revocations/s": round(median(rates))}
    for name, samples in (("introspection alone", quiet), ("introspection under revocations", loud)):
        facts[f"{name} requests/s"] = round(median(one.rate for one in samples))
        facts[f"{name} p99 ms"] = round(median(one.p99_ms for one in samples), 2)
        facts[f"{name} CPU share"] = round(median(one.cpu_share for one in samples), 2)
    what = f"introspection's p99 while {PER_SECOND:,} revocations/s arrive / without"
    return Row(
        id="INTRO10K", what=what, goal=f"<= {MOST_GROWTH:.2f}", figure=round(figure, 3), holds=figure <= MOST_GROWTH,
        facts=facts,
    )  # fmt: skip


@asynccontextmanager
async def _introspection(home: Path, running: Issuer) -> AsyncIterator[Target]:
    """Run the service without stopping the heartbeat of this process meanwhile."""
    context = introspection(home, running.server.url())
    target = await asyncio.to_thread(context.__enter__)
    try:
        yield target
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


async def _under_storm(running: Issuer, target: Target, home: Path) -> tuple[float, Sample]:
    """Return how many revocations a second were appended, and what the load saw."""
    clock = SystemClock()
    began, appended = clock.boottime(), 0
    load = asyncio.ensure_future(asyncio.to_thread(sample, target, home, seconds=SECONDS, script="introspection.lua"))
    while not load.done():
        now = clock.now()
        await running.publishers[Lane.REVOCATIONS].append([_entry(now) for _ in range(MOST_ENTRIES)])
        appended += MOST_ENTRIES
        await clock.sleep(began + appended / PER_SECOND - clock.boottime())
    return appended / (clock.boottime() - began), await load


def _entry(now: float) -> Entry:
    selector = Selector(iss=ISSUER, kind=SelectorKind.JTI, value=entropy.uuid7(now))
    return Entry(selector=selector, until=now + TOKEN_SECONDS)
