"""The failover drill can be followed word by word."""

import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType

from keyturn.process.parent import tied
from stack.binary import server_binary
from stack.ports import LOOPBACK, free_port, is_taken
from tests.docs.pages import ROOT, Shown, commands
from tests.docs.reader import Clone, Reader

DRILL = ROOT / "docs/runbooks/failover-drill.md"
LISTENERS = {"AUTHORIZATION": 8401, "KEYSERVICE": 8402, "REVOCATION": 8404, "SIDECAR": 8410}
USUAL = "639"  # Servers listen on 6391 to 6393, sentinels on 26391 to 26393.


class DrillReader(Reader):
    """A reader with `valkey-server` and `valkey-cli`, whose background jobs end with the shell, whatever happens."""

    def __init__(self, clone: Clone) -> None:
        super().__init__(clone)
        programs = clone.directory / "programs"
        programs.mkdir()
        (programs / "valkey-server").symlink_to(server_binary())
        client = shutil.which("valkey-cli") or shutil.which("redis-cli")
        assert client is not None, "install redis-tools"
        (programs / "valkey-cli").symlink_to(client)
        listeners = {name: free_port() for name in LISTENERS}
        there = [f'connect-to = "{LOOPBACK}:{usual}:{LOOPBACK}:{listeners[name]}"' for name, usual in LISTENERS.items()]
        (clone.directory / ".curlrc").write_text("\n".join(there) + "\n")
        self._environment = clone.environment | {"PATH": f"{programs}:{os.environ['PATH']}"}
        for name, port in listeners.items():
            self._environment[f"KEYTURN_{name}__LISTEN"] = f"{LOOPBACK}:{port}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        os.killpg(self._shell.pid, signal.SIGKILL)
        super().__exit__(kind, error, stack)

    def _start(self, command: list[str], *, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        return subprocess.Popen(
            tied(command), cwd=self._clone.directory, env=self._environment, text=True, stdin=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def free_prefix() -> str:
    """Return three digits that make free ports of servers and sentinels, as 639 does on the page."""
    found = (
        str(prefix)
        for prefix in range(310 + os.getpid() % 600, 1000)  # Not where another run looks at the same time.
        if not any(is_taken(int(f"{two}{prefix}{number}")) for two in ("", "2") for number in (1, 2, 3))
    )
    return next(found)


def test_the_drill_can_be_followed_word_by_word(tmp_path: Path) -> None:
    """On the day that it is needed nobody has time to find out what the page left out."""
    prefix = free_prefix()
    shown = [Shown(one.command.replace(USUAL, prefix), one.output) for one in commands(DRILL)]
    with DrillReader(Clone(tmp_path)) as reader:
        reader.read(shown)
