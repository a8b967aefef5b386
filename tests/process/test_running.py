"""A process ends cleanly when told, and in one line when it cannot start."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent, indent

import pytest

from keyturn.clock import SystemClock
from keyturn.process.logging import CRASHED, STOPPED_BY_FORCE, STOPPING
from keyturn.process.running import ONE_WORD_SECONDS

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, errno, os, sys
from keyturn.clock import SystemClock
from keyturn.contract.errors import ConfigurationError
from keyturn.process.logging import configure_logging
from keyturn.process.running import run
from keyturn.process.settings import LogSettings, from_arguments

async def main():
{body}

sys.exit(run(main, name="keyservice", grace_seconds={grace_seconds}))
"""


@asynccontextmanager
async def process(body: str, *arguments: str, grace_seconds: float = 0.3) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process whose main does this."""
    program = PROGRAM.format(body=indent(dedent(body).strip(), "    "), grace_seconds=grace_seconds)
    pipe = asyncio.subprocess.PIPE
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdout=pipe, stderr=pipe, cwd=ROOT
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.communicate()


async def ended(body: str, *arguments: str) -> tuple[int | None, list[str]]:
    """Run it to its end; return its status and what it wrote to standard error."""
    async with process(body, *arguments) as started:
        _, errors = await asyncio.wait_for(started.communicate(), 10)
        return started.returncode, errors.decode().splitlines()


async def told(body: str, *numbers: signal.Signals) -> tuple[int | None, str, list[str]]:
    """Signal it once it has said `ready`; return its status, what it wrote after that, and its errors."""
    async with process(f"print('ready', flush=True)\n{dedent(body).strip()}") as started:
        assert started.stdout is not None
        assert await asyncio.wait_for(started.stdout.readline(), 10) == b"ready\n"
        for number in numbers:
            started.send_signal(number)
        written, errors = await asyncio.wait_for(started.communicate(), 10)
        return started.returncode, written.decode(), errors.decode().splitlines()


async def test_a_process_that_is_done_ends_well() -> None:
    """Nothing to say, nothing said."""
    assert await ended("pass") == (0, [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_ends_cleanly_when_told(number: signal.Signals) -> None:
    """Its `finally` runs, with an await in it, and the status is 0."""
    status, written, errors = await told(
        """
        try:
            await asyncio.Event().wait()
        finally:
            await SystemClock().sleep(0.01)
            print("cleaned up", flush=True)
        """,
        number,
    )
    assert status == 0
    assert written == "cleaned up\n"
    assert [json.loads(line)["event"] for line in errors] == [STOPPING]


async def test_what_does_not_let_go_is_left_after_the_grace() -> None:
    """An orchestrator must not have to kill us."""
    status, _, errors = await told(
        """
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                pass
        """,
        signal.SIGTERM,
    )
    assert status == 1
    assert [json.loads(line)["event"] for line in errors] == [STOPPING, STOPPED_BY_FORCE]


async def test_a_second_signal_does_not_wait() -> None:
    """Ctrl-C, Ctrl-C."""
    async with process(
        """
        print("ready", flush=True)
        try:
            await asyncio.Event().wait()
        finally:
            print("cleaning up", flush=True)
            await SystemClock().sleep(60)
        """,
        grace_seconds=60,
    ) as started:
        assert started.stdout is not None
        for line in (b"ready\n", b"cleaning up\n"):
            assert await asyncio.wait_for(started.stdout.readline(), 10) == line
            started.send_signal(signal.SIGINT)
            started.send_signal(signal.SIGTERM)  # The same word again at once, as `timeout` sends it.
            assert started.returncode is None
            await SystemClock().sleep(ONE_WORD_SECONDS + 0.1)
        _, errors = await asyncio.wait_for(started.communicate(), 10)
        assert started.returncode == 1
        assert json.loads(errors.splitlines()[-1])["event"] == STOPPED_BY_FORCE


async def test_a_broken_configuration_is_one_line_and_status_2() -> None:
    """Also from within a task group, before and after logging is configured."""
    line = ["keyservice: no KEK is set (keyservice.kek_file: name it)"]
    refusal = "raise ConfigurationError('no KEK\\nis set', setting='keyservice.kek_file', mend='name it')"
    assert await ended(refusal) == (2, line)
    grouped = f"""
    async def service():
        {refusal}
    configure_logging(LogSettings(), process="keyservice")
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.Event().wait())
        group.create_task(service())
    """
    assert await ended(grouped) == (2, line)


async def test_a_busy_port_is_one_line_and_status_2() -> None:
    """As asyncio's servers, aiohttp's included, report it."""
    status, errors = await ended(
        """
        first = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        await asyncio.start_server(lambda reader, writer: None, *first.sockets[0].getsockname())
        """
    )
    assert status == 2
    assert len(errors) == 1
    assert errors[0].startswith("keyservice: ")
    assert "address already in use" in errors[0]
    assert "another port" in errors[0]


async def test_wrong_usage_is_said_by_the_parser() -> None:
    """Status 2, the usage, and nothing else."""
    status, errors = await ended("from_arguments('keyservice', about='Keys.')", "--nonsense")
    assert status == 2
    assert errors[0].startswith("usage: keyservice")
    assert not any("Traceback" in line or "never retrieved" in line for line in errors)


async def test_a_crash_is_one_log_line_without_a_stack() -> None:
    """The class of the error and the place, nothing that may quote a secret."""
    status, errors = await ended("raise RuntimeError('sesame')")
    assert status == 1
    (line,) = errors
    told_of = json.loads(line)
    assert told_of["event"] == CRASHED
    assert told_of["error"] == "RuntimeError"
    assert told_of["process"] == "keyservice"
    assert "sesame" not in line


async def test_a_main_that_cancels_itself_has_crashed() -> None:
    """Nobody told it to end: an orchestrator must not take it for a clean end."""
    status, errors = await ended("raise asyncio.CancelledError")
    assert status == 1
    assert json.loads(errors[-1])["error"] == "CancelledError"


async def test_at_debug_a_crash_shows_its_stack() -> None:
    """For whoever looks for the fault."""
    status, errors = await ended(
        "configure_logging(LogSettings(level='debug', format='json'), process='keyservice')\nraise RuntimeError('odd')"
    )
    assert status == 1
    assert "RuntimeError: odd" in json.loads(errors[-1])["stack"]
