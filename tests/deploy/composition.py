"""Runs `compose.yaml` without Docker: its commands as processes on loopback, each seeing only what it mounts."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2

from keyturn.process.parent import tied
from stack.binary import server_binary
from stack.ports import LOOPBACK
from tests.deploy.containers import ROOT, Container, Ports, image_environment, read_containers
from tests.nginx import nginx_command
from tests.waiting import eventually

_START_SECONDS, _STOP_SECONDS = 60.0, 15.0
_LAST_CHARACTERS = 2000
# What a test sets where compose.yaml relies on a default; and a policy more, which the client's tokens do not meet.
_MORE_VARIABLES = {
    "sidecar": {
        "KEYTURN_SIDECAR__LISTEN": f"{LOOPBACK}:8410",
        "KEYTURN_POLICY__ADMINS__AUDIENCE": "https://api.example",
        "KEYTURN_POLICY__ADMINS__SCOPES": "admin",
    }
}


class Composition:
    """The containers of compose.yaml, as processes; `ports[8400]` is where what has port 8400 there listens here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.containers = read_containers({"KEYTURN_BOOTSTRAP": "true"})
        self.ports = Ports(iter(self.containers))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    async def __aenter__(self) -> Self:
        try:
            self.start("init")
            await eventually(self._initialised, within_seconds=_START_SECONDS)
            for name in self.containers:
                if name != "init":
                    self.start(name)
            await eventually(self.ready, within_seconds=_START_SECONDS, saying=self.last_words)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        await self.stop()

    def url(self, port: int) -> str:
        """Return where what has this port in compose.yaml listens here."""
        return f"http://{LOOPBACK}:{self.ports[port]}"

    def secret(self, client_id: str) -> str:
        """Return a client's secret, as `init` wrote it."""
        return (self.directory / "volumes/keyturn/clients" / f"{client_id}.secret").read_text()

    def start(self, name: str, *, variables: Mapping[str, str] | None = None) -> None:
        """Start a container's command, with more `variables` if need be."""
        container = self.containers[name]
        root = self._mount(container, self.directory / "containers" / name)
        environment = image_environment() | dict(container.environment) | _MORE_VARIABLES.get(name, {})
        moved = {key: self._moved(value, container, root) for key, value in environment.items()}
        command = [self._moved(word, container, root) for word in container.command]
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                tied(self._program(container, command, root)),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.directory / "volumes/valkey" if name == "valkey" else ROOT,
                env={"PATH": _search_path(), "PYTHONPATH": str(ROOT), **moved, **(variables or {})},
            )  # fmt: skip

    async def end(self, name: str) -> int:
        """Tell one process to end, and return its exit status."""
        process = self.processes.pop(name)
        process.terminate()
        await eventually(lambda: process.poll() is not None, within_seconds=_STOP_SECONDS, saying=self.last_words)
        return process.returncode

    def freeze(self, name: str) -> None:
        """Stop a process's time."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self.processes[name].send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End all processes, those that serve the others last."""
        for name in reversed(self.processes.copy()):
            if self.processes[name].poll() is None:
                await self.end(name)

    def last_words(self) -> str:
        """Return the end of each process's log."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"--- {log.stem}\n{log.read_text(errors='replace')[-_LAST_CHARACTERS:]}" for log in logs)

    def _initialised(self) -> bool:
        status = self.processes["init"].poll()
        assert status in (None, 0), self.last_words()
        return status == 0

    async def ready(self) -> bool:
        """Whether all services, the sidecar and the API answer."""
        gone = [name for name, process in self.processes.items() if process.poll() is not None and name != "init"]
        assert not gone, f"{gone} ended\n{self.last_words()}"
        services = [f"{self.url(8400)}/readyz/{name}" for name in self.containers if f"/readyz/{name} " in _edge()]
        async with httpx2.AsyncClient() as client:
            try:
                told = [await client.get(url) for url in (*services, f"{self.url(8410)}/readyz", self.url(8080))]
            except httpx2.HTTPError:
                return False
        return all(answer.status_code in (200, 401) for answer in told)

    def _mount(self, container: Container, root: Path) -> Path:
        """Make the folder that stands for a container's file system, with what is mounted in it."""
        for mount in container.mounts:
            source = ROOT / mount.source if mount.from_checkout else self.directory / "volumes" / mount.source
            source = source / mount.subpath
            if not mount.subpath and not mount.from_checkout:
                source.mkdir(mode=0o700, parents=True, exist_ok=True)
            assert source.exists(), f"{container.name} mounts {mount.subpath or mount.source}, which is not there"
            target = root / mount.target.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.name == "keyturn.toml":  # It names files where `init` saw them.
                target.write_text(source.read_text().replace(str(self.directory / "containers/init"), str(root)))
            elif not target.is_symlink():
                target.symlink_to(source.absolute())
        return root

    def _moved(self, text: str, container: Container, root: Path) -> str:
        """Return a text of compose.yaml with the addresses and the paths that it has here."""
        for mount in container.mounts:
            # A whole volume's own path, since a socket's path may have no more than 107 characters.
            here = self.directory / "volumes" / mount.source
            if mount.subpath or container.name == "init":
                here = root / mount.target.relative_to("/")
            text = re.sub(rf"(?<![\w/.]){re.escape(str(mount.target))}(?![\w.])", str(here), text)
        return self.ports.move(text)

    def _program(self, container: Container, command: list[str], root: Path) -> list[str]:
        if container.image.startswith("nginx"):
            files = [root / mount.target.relative_to("/") for mount in container.mounts]
            return nginx_command(root / "nginx", [self.ports.move_nginx(file.read_text()) for file in files])
        if container.name == "valkey":
            return [str(server_binary()), *command[1:], "--bind", LOOPBACK, "--port", str(self.ports[6379])]
        found = shutil.which(command[0], path=_search_path())
        assert found, command[0]
        return [found, *command[1:]]


def _edge() -> str:
    """Return the edge's configuration, which names the services that it leads to."""
    return (ROOT / "deploy/nginx/edge.conf").read_text()


def _search_path() -> str:
    return f"{Path(sys.executable).parent}:{os.defpath}"
