"""A reader who types what a page shows, in a folder that looks like a clone, against a system on free ports."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from keyturn.process.parent import tied
from stack.ports import LOOPBACK, free_port
from tests.docs.pages import ROOT, Shown

_COPIED = ("README.md", "deploy", "docs")  # Links from one into another must stay within the copy.
_NOT_CLONED = frozenset({".git", ".keyturn", ".venv", *_COPIED})
_FIXED_PORTS = (8080, 8081, 8410)  # What deploy/nginx names.
_MARK = "-- the reader has read this --"
_DEMO_SECONDS, _STOP_SECONDS = 60.0, 20.0


class Clone:
    """A folder with the files of the repository, whose fixed ports are free ones."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {port: free_port() for port in (8400, *_FIXED_PORTS)}
        for entry in ROOT.iterdir():
            if entry.name not in _NOT_CLONED:
                (directory / entry.name).symlink_to(entry)
        for name in _COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, directory / name)
        (directory / ".venv").symlink_to(sys.prefix)
        for file in (directory / "deploy/nginx").iterdir():
            file.write_text(
                re.sub(r"\b(8080|8081|8410)\b", lambda found: str(self.ports[int(found[0])]), file.read_text())
            )
        # curl goes to the free port where a page says the usual one.
        there = [f'connect-to = "{LOOPBACK}:{usual}:{LOOPBACK}:{port}"' for usual, port in self.ports.items()]
        (directory / ".curlrc").write_text("\n".join(there) + "\n")

    @property
    def environment(self) -> dict[str, str]:
        """Return a reader's environment: nothing of this test run's Keyturn settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("KEYTURN_", "PYTEST"))}
        return kept | {"CURL_HOME": str(self.directory), "PS1": "", "TERM": "dumb"}

    def command_of(self, target: str) -> list[str]:
        """Return the command that `make TARGET` runs after its set-up, on free ports."""
        ports = [f"PORT={self.ports[8400]}", f"SIDECAR_PORT={self.ports[8410]}"]
        told = subprocess.run(
            ["make", "--no-print-directory", "-n", "-o", ".venv/installed", target, *ports],
            cwd=self.directory, env=self.environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        program, *arguments = shlex.split(told.replace("\\\n", " "))
        assert program == ".venv/bin/python", told
        return [sys.executable, *arguments]


class Reader:
    """One shell, as at one terminal; `make up` and `make demo` run beside it."""

    def __init__(self, clone: Clone) -> None:
        self._clone = clone
        self._up: subprocess.Popen[str] | None = None
        self._demo: tuple[subprocess.Popen[str], Shown] | None = None

    def __enter__(self) -> Self:
        self._shell = self._start(["/bin/bash", "--noprofile", "--norc"], stdin=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        for child in (self._shell, self._up, self._demo and self._demo[0]):
            if child is not None and child.poll() is None:
                child.kill()
            if child is not None:
                child.communicate()

    def read(self, commands: list[Shown]) -> None:
        """Type each command; fails where one prints something else than the page says, or ends in another way."""
        for number, shown in enumerate(commands):
            asks_status = [one.command for one in commands[number + 1 : number + 2]] == ["echo $?"]
            if shown.command.startswith("make "):
                self._make(shown)
                continue
            printed, status = self.type(shown.command)
            assert status == 0 or asks_status, f"{shown.command}\nended with {status}:\n" + "\n".join(printed)
            if shown.command == "echo $?":
                assert printed == shown.output
            compare(shown, printed)

    def type(self, command: str) -> tuple[list[str], int]:
        """Type a command; return what it printed and its exit status."""
        keyboard, screen = _pipe(self._shell.stdin), _pipe(self._shell.stdout)
        keyboard.write(f"{command}\n__status=$?; echo; echo '{_MARK}' $__status; (exit $__status)\n")
        keyboard.flush()
        printed: list[str] = []
        for line in screen:
            if line.startswith(_MARK):
                return printed[:-1] if printed[-1:] == [""] else printed, int(line.split()[-1])
            printed.append(line.rstrip("\n"))
        raise AssertionError(f"the shell ended at: {command}")

    def finish(self) -> None:
        """See the demo to its end, and end what `make up` began, by Ctrl-C."""
        if self._demo is not None:
            child, shown = self._demo
            printed, _ = child.communicate(timeout=_DEMO_SECONDS)
            assert child.returncode == 0, printed
            compare(shown, printed.splitlines())
        if self._up is not None:
            self._up.send_signal(signal.SIGINT)
            self._up.communicate(timeout=_STOP_SECONDS)
            assert self._up.returncode == 0

    def _make(self, shown: Shown) -> None:
        target = shown.command.removeprefix("make ")
        child = self._start(self._clone.command_of(target))
        if target == "demo":
            self._demo = child, shown  # It takes half a minute: read on meanwhile.
            return
        assert target == "up"
        self._up = child
        compare(shown, [_pipe(child.stdout).readline()])

    def _start(self, command: list[str], *, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        with (self._clone.directory / "errors.log").open("a") as log:
            return subprocess.Popen(
                tied(command), cwd=self._clone.directory, env=self._clone.environment, text=True,
                stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if stdin == subprocess.PIPE else log,
            )  # fmt: skip


@contextmanager
def reading(directory: Path) -> Iterator[Reader]:
    """Sit down before a fresh clone."""
    with Reader(Clone(directory)) as reader:
        yield reader


def compare(shown: Shown, printed: list[str]) -> None:
    """Fail where the shape of what was printed is not that of what the page shows."""
    assert shape(printed) == shape(shown.output), shown.command


def shape(lines: list[str]) -> list[str]:
    """Return the lines without what differs from run to run: keys, ids, numbers, moments, folders, widths."""
    shaped = [_shape(line) for line in lines]
    while shaped and not shaped[-1]:
        shaped.pop()
    return shaped


def _shape(line: str) -> str:
    if line.startswith("HTTP/"):
        return line.strip()
    line = re.sub(r"/\S*/\.keyturn", "/…/.keyturn", line)
    line = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", line)
    line = re.sub(r"[A-Za-z0-9_-]{43}", "KID", line)
    line = re.sub(r"(?<=256 )[A-Za-z0-9_-]{12}(?=,|$)", "KID", line)
    line = re.sub(r"(?<=signed by )[A-Za-z0-9_-]{12}", "KID", line)
    line = re.sub(r"[A-Za-z0-9_-]{8} (→|and|signs)|(?<=→ )[A-Za-z0-9_-]{8}", r"KID \1", line)
    line = re.sub(r"(?<=/statuslists/)[A-Za-z0-9_-]{16}", "LIST", line)
    line = re.sub(r"\d+(?:[.:]\d+)*", "#", line)
    line = re.sub(r"# m?s\b", "# ms", line)
    return " ".join(line.split())


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
