"""Row P9: from an accepted revocation to the last of fifty sidecars that rejects it over HTTP, beside raw pub/sub."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles

import httptools
from redis.asyncio import Redis

from benchmarks.bare_pubsub import CHANNEL
from benchmarks.issuer import Issuer, issuer
from benchmarks.load import LOAD_CPU, SERVER_CPU, MeasurementSpoiledError, ended, pinned, until
from benchmarks.rounds import Row
from keyturn.clock import SystemClock
from keyturn.process.redis import connect

FOLLOWERS, ROUNDS, PER_ROUND = 50, 8, 50
GOAL = 2.5
PAUSE_SECONDS = 0.02  # Between two revocations: each is measured alone.
MESSAGE_BYTES = 700  # What the doorbell carries for one revocation.
LONGEST_SECONDS = 5.0
ASK_AGAIN_SECONDS = 0.001
_ROOT = Path(__file__).parent.parent


def measure(directory: Path) -> list[Row]:
    """Measure both in turn; the figure is the ratio of the two p99s."""
    with pinned(LOAD_CPU):
        return asyncio.run(_measure(directory / "issuer"))


async def _measure(home: Path) -> list[Row]:
    clock = SystemClock()
    async with issuer(home, verifiers=FOLLOWERS) as running, _fleet(home, running) as sidecars:
        url, password = running.server.url("default"), home / "redis" / "default.password"
        redis = connect(url, client_name="bare", password=running.password)
        async with _subscribers(url, password) as told:
            pushes: list[float] = []
            accepted: list[float] = []
            asked: list[float] = []
            for number in range(1, ROUNDS + 1):
                for count in range(PER_ROUND):
                    pushes.append(await _push(redis, told, number * PER_ROUND + count, clock))
                    await clock.sleep(PAUSE_SECONDS)
                for count in range(PER_ROUND):
                    since_accepted, since_asked = await _revoke(running, sidecars, number * PER_ROUND + count, clock)
                    accepted.append(since_accepted)
                    asked.append(since_asked)
                    await clock.sleep(PAUSE_SECONDS)
                shown = f"raw {_p99(pushes) * 1000:.1f} ms, rejected {_p99(accepted) * 1000:.1f} ms"
                print(f"  round {number} of {ROUNDS}: p99 so far: {shown}", file=sys.stderr, flush=True)
        await redis.aclose()
    figure = _p99(accepted) / _p99(pushes)
    facts = {
        "raw pub/sub to the last of 50, p50 ms": median(pushes),
        "raw pub/sub to the last of 50, p99 ms": _p99(pushes),
        "revocation accepted to the last 401, p50 ms": median(accepted),
        "revocation accepted to the last 401, p99 ms": _p99(accepted),
        "revocation sent to the last 401, p50 ms": median(asked),
        "revocation sent to the last 401, p99 ms": _p99(asked),
    }
    what = "revocation accepted -> last of 50 rejects over HTTP, p99 / raw pub/sub to the last of 50, p99"
    return [
        Row(
            id="P9", what=what, goal=f"<= {GOAL:.2f}", figure=round(figure, 3), holds=figure <= GOAL,
            facts={name: round(seconds * 1000, 2) for name, seconds in facts.items()},
        )
    ]  # fmt: skip


async def _push(redis: Redis, told: asyncio.StreamReader, number: int, clock: SystemClock) -> float:
    message = b"%08d" % number + b"." * (MESSAGE_BYTES - 8)
    sent = clock.boottime()
    await redis.publish(CHANNEL, message)
    async with asyncio.timeout(LONGEST_SECONDS):
        return float(await told.readline()) - sent


async def _revoke(running: Issuer, sidecars: "Sequence[Asker]", number: int, clock: SystemClock) -> tuple[float, float]:
    """Revoke a token that every sidecar has in its cache; return the time to the last 401, since accepted and sent."""
    claims = running.claims(number)
    token = running.sign("ES256", claims)
    if set(await asyncio.gather(*(one.ask(token) for one in sidecars))) != {200}:
        raise MeasurementSpoiledError("a good token was rejected")
    sent = clock.boottime()
    await running.revoke(claims["jti"])
    accepted = clock.boottime()
    async with asyncio.timeout(LONGEST_SECONDS):
        last = max(await asyncio.gather(*(one.until_rejected(token, clock) for one in sidecars)))
    return last - accepted, last - sent


class Asker(asyncio.Protocol):
    """One kept connection to one sidecar, as lean as the sidecar's own."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[int] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Hand the status over."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._parser.get_status_code())

    async def ask(self, token: bytes) -> int:
        """Return the status of a check."""
        self._answer = asyncio.get_running_loop().create_future()
        head = b"GET /nginx/default HTTP/1.1\r\nHost: sidecar\r\nAuthorization: Bearer "
        if self._transport is not None:
            self._transport.write(head + token + b"\r\n\r\n")
        return await self._answer

    async def until_rejected(self, token: bytes, clock: SystemClock) -> float:
        """Ask until the answer is 401; return when it came.

        With a pause in between: fifty clients that ask without one would take the CPU that the followers share.
        """
        while (status := await self.ask(token)) == 200:  # noqa: PLR2004
            await clock.sleep(ASK_AGAIN_SECONDS)
        if status != 401:  # noqa: PLR2004
            raise MeasurementSpoiledError(f"a sidecar answered {status}")
        return clock.boottime()


@asynccontextmanager
async def _fleet(home: Path, running: Issuer) -> AsyncIterator[list[Asker]]:
    arguments = [sys.executable, "-m", "benchmarks.fleet", str(home), running.server.url(), str(FOLLOWERS)]
    with pinned(SERVER_CPU):
        process = subprocess.Popen(arguments, cwd=_ROOT)  # noqa: ASYNC220 - before anything is measured
    try:
        written = home / "fleet.ports"
        await asyncio.to_thread(until, written.exists, "fleet", process)
        loop = asyncio.get_running_loop()
        askers = []
        for port in written.read_text("ascii").split():
            _, asker = await loop.create_connection(Asker, "127.0.0.1", int(port))
            askers.append(asker)
        yield askers
    finally:
        await asyncio.to_thread(ended, process)


@asynccontextmanager
async def _subscribers(url: str, password: Path) -> AsyncIterator[asyncio.StreamReader]:
    arguments = ["-m", "benchmarks.bare_pubsub", url, str(password), str(FOLLOWERS)]
    with pinned(SERVER_CPU):
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, cwd=_ROOT, stdout=asyncio.subprocess.PIPE
        )
    try:
        if process.stdout is None or await process.stdout.readline() != b"ready\n":
            raise MeasurementSpoiledError("the subscribers did not start")
        yield process.stdout
    finally:
        process.terminate()
        await process.wait()


def _p99(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=100)[98]
