"""A fleet of sidecars to measure with: how it is started and ended, asked over HTTP, and heard of."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import httptools

from benchmarks.load import LOAD_CPU, SERVER_CPU, MeasurementSpoiledError, pinned

LONGEST_SECONDS = 20.0
"""How long the last of a fleet may take to hold an event before a measurement counts as spoiled."""
_START_SECONDS, _START_SECONDS_EACH, _END_SECONDS = 15.0, 0.5, 10.0
_ROOT = Path(__file__).parent.parent


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


class Told(NamedTuple):
    """When the last one came to hold an event (boot-time clock), what all have read by then, and how many are fresh."""

    seconds: float
    entries: int
    fresh: int


class Part:
    """One process of a fleet: the way to each of its sidecars, and what it tells of them."""

    def __init__(self, lines: asyncio.StreamReader, askers: list[Asker]) -> None:
        self.askers = askers
        self._lines = lines

    async def told(self, sequence: int) -> Told:
        """Say how the event fared here; raises MeasurementSpoiledError if it takes too long.

        What is told of earlier events is passed over.
        """
        while True:
            held, seconds, entries, fresh = (await printed(self._lines, LONGEST_SECONDS)).split()
            if int(held) >= sequence:
                return Told(float(seconds), int(entries), int(fresh))


class Fleet:
    """Sidecars in one process or in two, then half on each CPU."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts = parts
        self.askers = [asker for part in parts for asker in part.askers]

    async def told(self, sequence: int) -> Told:
        """Say how an event fared with all of them."""
        told = await asyncio.gather(*(part.told(sequence) for part in self.parts))
        last, entries, fresh = zip(*told, strict=True)
        return Told(max(last), sum(entries), sum(fresh))


@asynccontextmanager
async def fleet(
    home: Path, redis_url: str, sidecars: int, *, processes: int = 1, program: str = "benchmarks.fleet"
) -> AsyncIterator[Fleet]:
    """Run that many sidecars over a provisioned directory for as long as the block lasts, from when all are ready.

    `program` may be `benchmarks.followers`, where nothing of a sidecar is wanted but that it follows.
    """
    async with AsyncExitStack() as stack:
        parts = []
        for number in range(processes):
            first, last = sidecars * number // processes + 1, sidecars * (number + 1) // processes
            cpu = (SERVER_CPU, LOAD_CPU)[number]
            parts.append(
                await stack.enter_async_context(_part(program, home, redis_url, range(first, last + 1), cpu=cpu))
            )
        yield Fleet(parts)


@asynccontextmanager
async def _part(program: str, home: Path, redis_url: str, numbers: range, *, cpu: int) -> AsyncIterator[Part]:
    arguments = ["-m", program, str(home), redis_url, str(numbers[0]), str(numbers[-1])]
    async with process(arguments, cpu=cpu) as lines:
        loop, askers = asyncio.get_running_loop(), []
        for port in (await printed(lines, _START_SECONDS + _START_SECONDS_EACH * len(numbers))).split():
            _, asker = await loop.create_connection(Asker, "127.0.0.1", int(port))
            askers.append(asker)
        yield Part(lines, askers)


@asynccontextmanager
async def process(arguments: Sequence[str], *, cpu: int) -> AsyncIterator[asyncio.StreamReader]:
    """Run a Python program, pinned to a CPU, for as long as the block lasts; gives what it prints."""
    with pinned(cpu):
        running = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, cwd=_ROOT, stdout=asyncio.subprocess.PIPE
        )
    assert running.stdout is not None  # noqa: S101 - for the type checker
    try:
        yield running.stdout
    finally:
        with suppress(ProcessLookupError):
            running.terminate()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await running.wait()
        except TimeoutError:
            running.kill()
            await running.wait()


async def printed(lines: asyncio.StreamReader, within_seconds: float) -> bytes:
    """Return the next line; raises MeasurementSpoiledError if there is none in that time, or none any more."""
    try:
        async with asyncio.timeout(within_seconds):
            if line := await lines.readline():
                return line
    except TimeoutError:
        raise MeasurementSpoiledError(f"nothing was heard of a process for {within_seconds:.0f} s") from None
    raise MeasurementSpoiledError("a process ended before its time")
