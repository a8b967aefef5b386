"""Servers on CPU 0, wrk on CPU 1: how one figure is taken."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from keyturn.clock import SystemClock

SERVER_CPU, LOAD_CPU = 0, 1
CONNECTIONS = 64
START_SECONDS = 15.0
_HERE = Path(__file__).parent
_RATE = re.compile(r"^Requests/sec:\s+([0-9.]+)", re.MULTILINE)
_P99 = re.compile(r"^\s+99%\s+([0-9.]+)(us|ms|s)$", re.MULTILINE)
_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_SPOILED = re.compile(r"^\s*(?:Non-2xx or 3xx responses|Socket errors):.*$", re.MULTILINE)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class MeasurementSpoiledError(Exception):
    """What was measured is not what was meant: a server did not start, or answered with errors."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of wrk against one server."""

    rate: float
    """Requests a second."""

    cpu_share: float
    """How much of its CPU the server used: well under 1 means that something else was the limit."""

    stolen_share: float
    """How much of both CPUs the machine's host gave to others meanwhile: with much of it, a pause says nothing."""

    p99_ms: float
    """What 99 of 100 answers took at most; each connection asks again as soon as it was answered."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running server, and what to ask it."""

    name: str
    pid: int
    url: str
    asked: Path | None = None
    """The file for the load's script, where it is this target's own."""


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """Start processes on one CPU: they inherit it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def serving(
    name: str,
    arguments: Sequence[str],
    *,
    port: int,
    path: str = "/nginx/default",
    environment: Mapping[str, str] | None = None,
    ready: str | None = None,
    program: str = sys.executable,
    asked: Path | None = None,
) -> Iterator[Target]:
    """Run a program, Python unless told otherwise, that serves on `port`, pinned, until the end of the block.

    With `ready`, a path, it is awaited until that is answered 200; else until it listens.
    """
    with pinned(SERVER_CPU):
        process = subprocess.Popen([program, *arguments], cwd=_HERE.parent, env=environment)
    try:
        if ready is None:
            until(lambda: _listens(port), name, process)
        else:
            until(lambda: _answers_200(port, ready), name, process)
        yield Target(name, process.pid, f"http://127.0.0.1:{port}{path}", asked)
    finally:
        ended(process)


def ended(process: subprocess.Popen[bytes]) -> None:
    """End a process and wait until it is gone."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    process.kill()
    process.wait()


@contextmanager
def reference(module: str) -> Iterator[Target]:
    """Run one of the reference servers of this folder."""
    port = free_port()
    with serving(module, ["-m", f"benchmarks.{module}", str(port)], port=port) as target:
        yield target


def sample(target: Target, tokens: Path, *, seconds: float, script: str = "tokens.lua") -> Sample:
    """Drive the target with wrk, each request with the next token of the file; `script` stands in this folder."""
    command = [
        "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(_HERE / script), target.url, "--",
        str(target.asked or tokens),
    ]  # fmt: skip
    clock = SystemClock()
    began_at, cpu_before, stolen_before = clock.boottime(), _cpu_seconds(target.pid), _stolen_seconds()
    with pinned(LOAD_CPU):
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    elapsed = clock.boottime() - began_at
    cpu_share = (_cpu_seconds(target.pid) - cpu_before) / elapsed
    stolen_share = (_stolen_seconds() - stolen_before) / elapsed / (os.cpu_count() or 1)
    rate, spoiled = _RATE.search(done.stdout), _SPOILED.search(done.stdout)
    if rate is None or spoiled is not None:
        raise MeasurementSpoiledError(f"{target.name}: {spoiled.group().strip() if spoiled else done.stderr.strip()}")
    p99 = _P99.search(done.stdout)
    if p99 is None or float(rate.group(1)) == 0:
        raise MeasurementSpoiledError(f"{target.name} answered nothing in {seconds} s")
    p99_ms = float(p99.group(1)) * _MILLISECONDS[p99.group(2)]
    return Sample(rate=float(rate.group(1)), cpu_share=cpu_share, stolen_share=stolen_share, p99_ms=p99_ms)


def until(holds: Callable[[], bool], name: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until that holds; raises MeasurementSpoiledError if the process ends first, or after 15 s."""
    clock = SystemClock()
    deadline = clock.boottime() + START_SECONDS
    while clock.boottime() < deadline:
        if holds():
            return
        with suppress(subprocess.TimeoutExpired):
            raise MeasurementSpoiledError(f"{name} ended at once with status {process.wait(timeout=0.05)}")
    raise MeasurementSpoiledError(f"{name} is not ready after {START_SECONDS:.0f} s")


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _answers_200(port: int, path: str) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def _stolen_seconds() -> float:
    """Return for how long, all CPUs together, the host ran others while this machine had something to do."""
    fields = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()
    return int(fields[8]) / _TICKS_PER_SECOND
