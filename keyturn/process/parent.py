"""Ties a child process to its parent, so that none outlives the process that started it (Linux)."""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent(ending: signal.Signals = signal.SIGKILL, *, parent: int | None = None) -> bool:
    """Ask the kernel to send `ending` to this process when its parent ends; False where it cannot (not Linux).

    It holds across exec. The kernel looks at the *thread* that started this process: start children from a thread
    that stays. With `parent`, the pid that it expects, the process ends at once when that one is already gone.
    """
    if not sys.platform.startswith("linux"):
        return False
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(ending), 0, 0, 0) != 0:
        return False
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), ending)
    return True


def tied(command: Sequence[str], ending: signal.Signals = signal.SIGKILL) -> list[str]:
    """Return the command line by which `command` dies with this process; its pid stays the child's."""
    return [sys.executable, "-I", str(Path(__file__).resolve()), str(int(ending)), str(os.getpid()), *command]


def main(arguments: Sequence[str]) -> None:
    """Become the command: `parent.py SIGNAL PARENT_PID COMMAND…`."""
    die_with_parent(signal.Signals(int(arguments[0])), parent=int(arguments[1]))
    os.execv(arguments[2], list(arguments[2:]))  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
