"""Rows PUSH500 and STORM: what a push to 500 followers costs the server, and how soon a cut fleet is whole again."""

import asyncio
import sys
from pathlib import Path
from statistics import median

from redis.asyncio import Redis

from benchmarks.fleets import fleet
from benchmarks.issuer import issuer
from benchmarks.load import LOAD_CPU, MeasurementSpoiledError, pinned
from benchmarks.rounds import Row
from keyturn.clock import SystemClock
from keyturn.contract.positions import Lane
from keyturn.process.redis import connect

FOLLOWERS, PROCESSES, PROGRAM = 500, 2, "benchmarks.followers"
PUSHES, PAUSE_SECONDS = 60, 0.05
CUTS, MISSED = 5, 5
STREAM_EVENTS = 600
"""Events in the stream before the first cut, and a snapshot of them: more than enough for a publisher to keep one."""
PUSH_GOAL_US, STORM_GOAL_SECONDS = 20.0, 5.0


def measure_push(directory: Path) -> list[Row]:
    """Measure the server's CPU for each follower and event."""
    with pinned(LOAD_CPU):
        return [asyncio.run(_measure_push(directory / "issuer"))]


def measure_storm(directory: Path) -> list[Row]:
    """Measure how long the last of a fleet takes after all of its connections were cut at once."""
    with pinned(LOAD_CPU):
        return [asyncio.run(_measure_storm(directory / "issuer"))]


async def _measure_push(home: Path) -> Row:
    """Push one event after the other, and ask the server before and after each what it has used.

    It writes to all subscribers before it takes another command, so that little else falls in between; what the
    question itself costs is taken off.
    """
    clock, costs, last = SystemClock(), [], []
    async with (
        issuer(home) as running,
        fleet(home, running.server.url(), FOLLOWERS, processes=PROCESSES, program=PROGRAM) as followers,
    ):
        admin = connect(running.server.url("default"), client_name="bare", password=running.password)
        for number in range(PUSHES):
            idle, before = await _cpu_seconds(admin), await _cpu_seconds(admin)
            sent = clock.boottime()
            sequence = await running.revoke(f"token-{number}")
            after = await _cpu_seconds(admin)
            costs.append((after - before) - (before - idle))
            last.append((await followers.told(sequence)).seconds - sent)
            await clock.sleep(PAUSE_SECONDS)
        await admin.aclose()
    figure = median(costs) / FOLLOWERS * 1e6
    facts = {
        f"revocation sent to the last of {FOLLOWERS} on {PROCESSES} shared CPUs, p50 ms": round(median(last) * 1000, 1),
        "server CPU of one push, p50 ms": round(median(costs) * 1000, 2),
    }
    what = f"server CPU of a push for each of {FOLLOWERS} followers, us"
    holds, goal = figure <= PUSH_GOAL_US, f"<= {PUSH_GOAL_US:.0f}"
    return Row(id="PUSH500", what=what, goal=goal, figure=round(figure, 2), holds=holds, facts=facts)


async def _measure_storm(home: Path) -> Row:
    """Cut everybody, publish while nobody listens, and wait until the last sidecar holds what it missed."""
    clock = SystemClock()
    seconds: list[float] = []
    entries: list[int] = []
    reads: list[int] = []
    async with issuer(home) as running:
        for number in range(STREAM_EVENTS):
            await running.revoke(f"early-{number}")
        await running.publishers[Lane.REVOCATIONS].keep_snapshot()
        async with fleet(home, running.server.url(), FOLLOWERS, processes=PROCESSES, program=PROGRAM) as followers:
            admin = connect(running.server.url("default"), client_name="bare", password=running.password)
            for number in range(CUTS):
                before = await followers.told(await running.revoke(f"before-{number}"))
                await clock.sleep(1)
                reads_before = await _reads(admin)
                began = clock.boottime()
                await _cut(admin)
                missed = [await running.revoke(f"missed-{number}-{count}") for count in range(MISSED)]
                whole = await followers.told(missed[-1])
                if whole.fresh != FOLLOWERS:
                    raise MeasurementSpoiledError(f"{whole.fresh} of {FOLLOWERS} followers are fresh after the cut")
                seconds.append(whole.seconds - began)
                entries.append(whole.entries - before.entries)
                reads.append(await _reads(admin) - reads_before)
                print(f"  cut {number + 1} of {CUTS}: whole after {seconds[-1]:.2f} s", file=sys.stderr, flush=True)
            await admin.aclose()
    figure = max(seconds)
    most = max(entries) / FOLLOWERS
    facts = {
        "STORM, median s": round(median(seconds), 2),
        "STORM, events missed": MISSED,
        "STORM, events in the stream": STREAM_EVENTS,
        "STORM, stream entries read by a follower, most": round(most, 2),
        "STORM, XRANGE calls by a follower, most": round(max(reads) / FOLLOWERS, 2),
    }
    what = f"all connections of {FOLLOWERS} followers cut -> the last holds what it missed, slowest of {CUTS}, s"
    holds = figure <= STORM_GOAL_SECONDS and most <= 2 * MISSED
    goal = f"<= {STORM_GOAL_SECONDS:.0f}"
    return Row(id="STORM", what=what, goal=goal, figure=round(figure, 2), holds=holds, facts=facts)


async def _cut(admin: Redis) -> None:
    """End every connection but our own, subscriptions first, so that nobody hears what comes."""
    await admin.client_kill_filter(_type="pubsub")
    await admin.client_kill_filter(_type="normal", skipme=True)


async def _reads(admin: Redis) -> int:
    """Count the reads of streams so far, by the server's own count."""
    stats = await admin.info("commandstats")
    return int(stats.get("cmdstat_xrange", {}).get("calls", 0))


async def _cpu_seconds(admin: Redis) -> float:
    """Return how much CPU the server has used, by its own account."""
    used = await admin.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])
