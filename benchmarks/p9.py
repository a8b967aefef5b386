"""Row P9: from an accepted revocation to the last of fifty sidecars that rejects it over HTTP, beside raw pub/sub.

Fifty sidecars stand for fifty machines, none of which waits for another one's CPU. Fifty on one CPU do: what would be
measured is fifty signatures that are checked one after the other. So each sidecar and each bare subscriber has a
process of its own, and they take turns: one is measured while all the others hold still (SIGSTOP; the server writes to
all fifty the same), each with a revocation or a message of its own; then the others go on, and must have heard it too.
The last of fifty machines is the slowest of fifty such turns, so the figure is the ratio of the 99th percentiles of all
turns. Both kinds are placed alike: the measured process alone on one CPU, server, publisher and asker on the other. A
sidecar's turn goes from the publisher's answer to the 401; a bare one's from the sending to the message. Nothing is
shared between sidecars that machines could not share: each checks every signature itself.

Row `P9 (one CPU)` shows the other picture: all fifty at once on one CPU, both kinds.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles

from redis.asyncio import Redis

from benchmarks.bare_pubsub import CHANNEL
from benchmarks.fleets import Asker, Fleet, fleet, printed, process
from benchmarks.issuer import Issuer, issuer
from benchmarks.load import LOAD_CPU, SERVER_CPU, MeasurementSpoiledError, pinned
from benchmarks.rounds import Row
from keyturn.clock import SystemClock
from keyturn.process.redis import connect

FOLLOWERS, PASSES = 50, 10
ROUNDS, PER_ROUND = 5, 20
GOAL = 2.5
PAUSE_SECONDS = 0.02  # Between two revocations: each is measured alone.
STILL_SECONDS = 0.002  # Until those that were stopped have stopped.
MESSAGE_BYTES = 700  # What the doorbell carries for one revocation.
LONGEST_SECONDS = 10.0
START_SECONDS = 120.0
_OK, _UNAUTHORIZED = 200, 401


def measure(directory: Path) -> list[Row]:
    """Measure both pictures; each figure is the ratio of two p99s."""
    with pinned(LOAD_CPU):
        return [
            asyncio.run(_measure_apart(directory / "apart")),
            asyncio.run(_measure_on_one_cpu(directory / "together")),
        ]


class Apart:
    """Fifty sidecars and fifty bare subscribers, each a process that can be made to hold still."""

    def __init__(self, lines: asyncio.StreamReader, issuer: Issuer, redis: Redis) -> None:
        self.askers: dict[int, Asker] = {}
        self._lines, self._issuer, self._redis = lines, issuer, redis
        self._pids: dict[tuple[str, int], int] = {}
        self._clock = SystemClock()
        self._count = 0

    async def begin(self) -> None:
        """Wait until all are ready, and connect to the sidecars."""
        loop = asyncio.get_running_loop()
        while len(self._pids) < 2 * FOLLOWERS:
            _, kind, number, pid, port = (await printed(self._lines, START_SECONDS)).split()
            self._pids[kind.decode(), int(number)] = int(pid)
            if kind == b"sidecar":
                _, self.askers[int(number)] = await loop.create_connection(Asker, "127.0.0.1", int(port))

    async def push(self, number: int) -> float:
        """Send a bare message; return the time to that subscriber while the others hold still."""
        self._count += 1
        async with self._still("subscriber", number):
            sent = self._clock.boottime()
            await self._redis.publish(CHANNEL, b"%08d" % self._count + b"." * (MESSAGE_BYTES - 8))
            told = await self._told()
        for _ in range(FOLLOWERS - 1):
            await self._told()
        return told - sent

    async def revoke(self, number: int) -> float:
        """Revoke a token that a sidecar has in its cache; return the time from accepted to its 401."""
        claims = self._issuer.claims(self._count)
        token = self._issuer.sign("ES256", claims)
        if await self.askers[number].ask(token) != _OK:
            raise MeasurementSpoiledError("a good token was rejected")
        async with self._still("sidecar", number):
            await self._issuer.revoke(claims["jti"])
            accepted = self._clock.boottime()
            await self._until_rejected(number, token, pause_seconds=0)
            rejected = self._clock.boottime()
        await asyncio.gather(*(self._until_rejected(one, token, pause_seconds=0.005) for one in self.askers))
        return rejected - accepted

    async def _until_rejected(self, number: int, token: bytes, *, pause_seconds: float) -> None:
        async with asyncio.timeout(LONGEST_SECONDS):
            while (status := await self.askers[number].ask(token)) == _OK:
                await self._clock.sleep(pause_seconds)
        if status != _UNAUTHORIZED:
            raise MeasurementSpoiledError(f"a sidecar answered {status}")

    async def _told(self) -> float:
        return float((await printed(self._lines, LONGEST_SECONDS)).split()[3])

    @asynccontextmanager
    async def _still(self, kind: str, number: int) -> AsyncIterator[None]:
        """Stop all but one for as long as the block lasts."""
        others = [pid for name, pid in self._pids.items() if name != (kind, number)]
        try:
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            await self._clock.sleep(STILL_SECONDS)
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)


async def _measure_apart(home: Path) -> Row:
    pushes: list[float] = []
    rejections: list[float] = []
    async with issuer(home, verifiers=FOLLOWERS) as running, _apart(home, running) as apart:
        for number in range(1, PASSES + 1):
            for one in range(1, FOLLOWERS + 1):
                pushes.append(await apart.push(one))
                rejections.append(await apart.revoke(one))
            shown = f"raw {_p99(pushes) * 1000:.1f} ms, rejected {_p99(rejections) * 1000:.1f} ms"
            print(f"  pass {number} of {PASSES}: p99 so far: {shown}", file=sys.stderr, flush=True)
    what = "revocation accepted -> last of 50 rejects over HTTP, p99 / raw pub/sub to the last of 50, p99"
    return _row("P9", what, pushes, rejections, GOAL)


async def _measure_on_one_cpu(home: Path) -> Row:
    clock = SystemClock()
    pushes: list[float] = []
    rejections: list[float] = []
    async with issuer(home, verifiers=FOLLOWERS) as running, fleet(home, running.server.url(), FOLLOWERS) as sidecars:
        redis = connect(running.server.url("default"), client_name="bare", password=running.password)
        async with _subscribers(running.server.url("default"), home / "redis" / "default.password") as told:
            for number in range(ROUNDS * PER_ROUND):
                pushes.append(await _push(redis, told, number, clock))
                await clock.sleep(PAUSE_SECONDS)
                rejections.append(await _revoke(running, sidecars, number, clock))
                await clock.sleep(PAUSE_SECONDS)
        await redis.aclose()
    return _row("P9 (one CPU)", "the same with all fifty at once on one CPU", pushes, rejections, None)


def _row(name: str, what: str, pushes: list[float], rejections: list[float], goal: float | None) -> Row:
    figure = _p99(rejections) / _p99(pushes)
    facts = {
        f"{name}: raw pub/sub to the last of 50, p50 ms": median(pushes),
        f"{name}: raw pub/sub to the last of 50, p99 ms": _p99(pushes),
        f"{name}: revocation accepted to the last 401, p50 ms": median(rejections),
        f"{name}: revocation accepted to the last 401, p99 ms": _p99(rejections),
    }
    return Row(
        id=name, what=what, goal="-" if goal is None else f"<= {goal:.2f}", figure=round(figure, 3),
        holds=None if goal is None else figure <= goal,
        facts={fact: round(seconds * 1000, 2) for fact, seconds in facts.items()},
    )  # fmt: skip


async def _push(redis: Redis, told: asyncio.StreamReader, number: int, clock: SystemClock) -> float:
    message = b"%08d" % number + b"." * (MESSAGE_BYTES - 8)
    sent = clock.boottime()
    await redis.publish(CHANNEL, message)
    return float(await printed(told, LONGEST_SECONDS)) - sent


async def _revoke(running: Issuer, sidecars: Fleet, number: int, clock: SystemClock) -> float:
    """Revoke a token that every sidecar has in its cache; return the time from accepted to the last 401.

    They are asked when the last of them holds it: fifty clients that ask again and again would take its CPU.
    """
    claims = running.claims(number)
    token = running.sign("ES256", claims)
    if set(await asyncio.gather(*(one.ask(token) for one in sidecars.askers))) != {_OK}:
        raise MeasurementSpoiledError("a good token was rejected")
    sequence = await running.revoke(claims["jti"])
    accepted = clock.boottime()
    await sidecars.told(sequence)
    if set(await asyncio.gather(*(one.ask(token) for one in sidecars.askers))) != {_UNAUTHORIZED}:
        raise MeasurementSpoiledError("a revoked token was not rejected")
    return clock.boottime() - accepted


@asynccontextmanager
async def _apart(home: Path, running: Issuer) -> AsyncIterator[Apart]:
    redis = connect(running.server.url("default"), client_name="bare", password=running.password)
    arguments = ["-m", "benchmarks.apart", str(home), running.server.url(), str(FOLLOWERS)]
    async with process(arguments, cpu=SERVER_CPU) as lines:
        apart = Apart(lines, running, redis)
        await apart.begin()
        yield apart
    await redis.aclose()


@asynccontextmanager
async def _subscribers(url: str, password: Path) -> AsyncIterator[asyncio.StreamReader]:
    arguments = ["-m", "benchmarks.bare_pubsub", url, str(password), str(FOLLOWERS)]
    async with process(arguments, cpu=SERVER_CPU) as lines:
        await printed(lines, START_SECONDS)
        yield lines


def _p99(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=100, method="inclusive")[98]
