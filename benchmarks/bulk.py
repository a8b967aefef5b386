"""Row BULK: a list of a million tokens to revoke, from its first byte until the last of five sidecars holds all of it.

The revocation service and the key service run as they ship, each a process of its own. The five sidecars are asked for
a good token all the while: whoever does not let it pass spoils the measurement, and how long answers take is told.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from statistics import quantiles
from typing import Any

import msgspec
from aiohttp import ClientSession, ClientTimeout

from benchmarks.fleets import Fleet, fleet
from benchmarks.load import LOAD_CPU, SERVER_CPU, MeasurementSpoiledError, pinned
from benchmarks.rounds import Row
from benchmarks.services import Services, cpu_seconds, running
from keyturn.clock import SystemClock

COUNT, SIDECARS, PROCESSES = 1_000_000, 5, 2
GOAL_SECONDS = 60.0
ASK_EVERY_SECONDS = 0.05
_SENT_TOGETHER = 2_000  # Lines.
_OK = 200


def measure(directory: Path) -> list[Row]:
    """Measure one list."""
    with pinned(LOAD_CPU):
        return [asyncio.run(_measure(directory / "issuer"))]


async def _measure(home: Path) -> Row:
    clock = SystemClock()
    async with (
        running(home, "authorization", "keyservice", "revocation", verifiers=SIDECARS) as services,
        fleet(home, services.server.url(), SIDECARS, processes=PROCESSES) as sidecars,
    ):
        admin, token = await services.token("admin"), (await services.token()).encode("ascii")
        os.kill(services.pids["authorization"], signal.SIGTERM)  # It has no part in this.
        for name in ("keyservice", "revocation"):  # Where there is room: what counts is what the machine can do.
            os.sched_setaffinity(services.pids[name], {SERVER_CPU, LOAD_CPU})
        pieces = [_lines(first) for first in range(0, COUNT, _SENT_TOGETHER)]
        answers: list[float] = []
        asking = asyncio.create_task(_ask(sidecars, token, answers, clock))
        used, began = cpu_seconds(services.pids["revocation"]), clock.boottime()
        last = await _send(services, admin, pieces)
        accepted = clock.boottime()
        told = await sidecars.told(last["sequence"])
        asking.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        used = cpu_seconds(services.pids["revocation"]) - used
    figure, answers_ms = told.seconds - began, quantiles([one * 1000 for one in answers], n=100, method="inclusive")
    facts = {
        "BULK, accepted and durable after s": round(accepted - began, 1),
        "BULK, lines/s": round(COUNT / (accepted - began)),
        "BULK, events": last["sequence"],
        "BULK, CPU of the revocation service for each line, us": round(used / COUNT * 1e6, 1),
        "BULK, sidecars' answers meanwhile": len(answers),
        "BULK, sidecars' answers meanwhile, p50 ms": round(answers_ms[49], 1),
        "BULK, sidecars' answers meanwhile, p99 ms": round(answers_ms[98], 1),
    }
    what = f"a list of {COUNT:,} sent -> durable and held by the last of {SIDECARS} sidecars, s"
    goal, holds = f"<= {GOAL_SECONDS:.0f}", figure <= GOAL_SECONDS
    return Row(id="BULK", what=what, goal=goal, figure=round(figure, 1), holds=holds, facts=facts)


def _lines(first: int) -> bytes:
    return b"".join(b'{"jti":"0190a8c0-0000-7000-8000-%012d"}\n' % n for n in range(first, first + _SENT_TOGETHER))


async def _send(services: Services, admin: str, pieces: list[bytes]) -> dict[str, Any]:
    """Send the list as one request and return the last line of the answer."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    headers, shown = {"Authorization": f"Bearer {admin}", "Content-Type": "application/x-ndjson"}, 0
    told: dict[str, Any] = {}
    async with (
        ClientSession(timeout=ClientTimeout(total=None)) as http,
        http.post(services.url("revocation", "/revocations/bulk"), data=body(), headers=headers) as answer,
    ):
        if answer.status != _OK:
            raise MeasurementSpoiledError(f"the list was answered {answer.status}")
        async for line in answer.content:
            told = msgspec.json.decode(line)
            if told["line"] >= shown + COUNT // 10:
                shown = told["line"]
                print(f"  {shown:,} of {COUNT:,} are durable", file=sys.stderr, flush=True)
    if told.get("status") != "done" or told["accepted"] != COUNT:
        raise MeasurementSpoiledError(f"the list ended with {told}")
    return told


async def _ask(sidecars: Fleet, token: bytes, answers: list[float], clock: SystemClock) -> None:
    """Ask the sidecars in turn, until cancelled, for a token that nobody revokes."""
    while True:
        for asker in sidecars.askers:
            began = clock.boottime()
            if (status := await asker.ask(token)) != _OK:
                raise MeasurementSpoiledError(f"a sidecar answered {status} for a good token")
            answers.append(clock.boottime() - began)
            await clock.sleep(ASK_EVERY_SECONDS / SIDECARS)
