"""`python -m stack up` as a person runs it: a process, its ready line, and its end."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from stack.devenv import read_dev_env
from stack.ports import free_port, is_taken

ROOT = Path(__file__).parents[2]
READY_SECONDS, END_SECONDS = 40, 15
HIGHEST_PORT = 65_535


def free_neighbours(count: int = 2) -> int:
    """Return the first of so many free ports in a row."""
    while True:
        port = free_port()
        if port + count <= HIGHEST_PORT and not any(is_taken(port + index) for index in range(1, count)):
            return port


@dataclass
class Place:
    """A directory and ports for one stack, whichever process runs it."""

    directory: Path
    port: int
    sidecar_port: int

    @classmethod
    def under(cls, directory: Path) -> "Place":
        """Choose ports for a new directory."""
        return cls(directory, free_port(), free_neighbours())

    def arguments(self, *more: str) -> list[str]:
        """Return the command line."""
        return [
            *("up", "--dir", str(self.directory), "--port", str(self.port)),
            *("--sidecar-port", str(self.sidecar_port), *more),
        ]

    @property
    def env(self) -> dict[str, str]:
        """Return what dev.env says."""
        return read_dev_env(self.directory / "dev.env")


async def stack(*arguments: str, **variables: str) -> Process:
    """Start `python -m stack`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "stack", *arguments,
        env=clean | variables, cwd=ROOT, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, limit=1024 * 1024,
    )  # fmt: skip


@asynccontextmanager
async def up(place: Place, *more: str) -> AsyncIterator[tuple[Process, str]]:
    """Run a stack from its ready line on; give the process and that line."""
    process = await stack(*place.arguments(*more))
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), READY_SECONDS)).decode()
        if not line:
            raise AssertionError((await process.communicate())[1].decode()[-3000:])
        yield process, line
    finally:
        if process.returncode is None:
            await end(process)


async def end(process: Process, how: signal.Signals = signal.SIGTERM) -> int:
    """Tell a stack to end and return its exit status."""
    return (await ended(process, how))[0]


async def ended(process: Process, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """Tell a stack to end and return its exit status and what it logged."""
    process.send_signal(how)
    try:
        _, log = await asyncio.wait_for(process.communicate(), END_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, log.decode()


async def refused(*arguments: str) -> str:
    """Start a stack that must refuse: status 2 and one line beside the log, which is JSON; return that line."""
    process = await stack(*arguments)
    out, said = await asyncio.wait_for(process.communicate(), READY_SECONDS)
    lines = [line for line in said.decode().splitlines() if not line.startswith("{")]
    assert (process.returncode, out, len(lines)) == (2, b"", 1), said.decode()
    return lines[0]


def children_of(pid: int) -> set[int]:
    """Return the processes that a process has started, and those that they have."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found |= {child, *children_of(child)}
    return found


def command_line(pid: int) -> str:
    """Return what everybody on the machine can read of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text()
