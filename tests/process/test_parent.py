"""A child ends with the process that started it."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keyturn.process.parent import tied
from tests.process.alive import is_there
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
PARENT = (
    "import subprocess, sys, signal\n"
    "from keyturn.process.parent import tied\n"
    "child = subprocess.Popen({command})\n"
    "signal.pause()\n"
)


@pytest.mark.parametrize(
    "command",
    [
        # The child asks for it itself, as a sidecar does; or it is a program that knows nothing of us.
        "[sys.executable, '-c', 'import os, signal; from keyturn.process.parent import die_with_parent; "
        "die_with_parent(signal.SIGTERM); print(os.getpid(), flush=True); signal.pause()']",
        "tied(['/bin/sh', '-c', 'echo $$; exec sleep 60'])",
    ],
)
async def test_a_child_dies_with_its_parent(command: str) -> None:
    """A stack that is killed must not leave sidecars and servers behind."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT.format(command=command)), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 10))
    assert is_there(pid)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not is_there(pid))


async def test_a_tied_command_keeps_its_pid_arguments_and_status() -> None:
    """Whoever started it signals it, and reads its status, as if nothing stood between."""
    child = await asyncio.create_subprocess_exec(
        *tied(["/bin/sh", "-c", 'echo $$ "$1"; exit 7', "sh", "a b"]), stdout=asyncio.subprocess.PIPE
    )
    written, _ = await child.communicate()
    assert written.decode().split(maxsplit=1) == [str(child.pid), "a b\n"]
    assert child.returncode == 7


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    """Between the start of a child and its request to the kernel the parent may end."""
    command = tied(["/bin/sh", "-c", "echo alive"])
    command[command.index(str(signal.SIGKILL.value)) + 1] = "1"  # As if the parent had been another process.
    ended = subprocess.run(command, capture_output=True, check=False, timeout=10)
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout == b""
