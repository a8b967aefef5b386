"""A whole Keyturn as in production: each service, worker and sidecar a process, on a Valkey with its access list."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import ClientError, ClientSession, ClientTimeout
from redis.asyncio import Redis

from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.process.parent import tied
from keyturn.process.redis import connect
from keyturn.process.values import Secret, seconds
from stack.ports import LOOPBACK, free_port
from stack.server import EmbeddedServer
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
SERVICES = ("keyservice", "authorization", "introspection", "revocation")
SIDECARS = ("sidecar-1", "sidecar-2")
EVERYTHING = (*SERVICES, "worker", *SIDECARS)
START_SECONDS, STOP_SECONDS = 60.0, 20.0
STALE_SECONDS, EXPIRED_SECONDS, LEASE_SECONDS, SKEW_SECONDS = 3, 8, 3, 1
_LAST_CHARACTERS = 3000
_SETTINGS = {
    "REDIS__DURABLE": "true",
    "FRESHNESS__SKEW": f"{SKEW_SECONDS}s",
    "FRESHNESS__STALE": f"{STALE_SECONDS}s",
    "FRESHNESS__EXPIRED": f"{EXPIRED_SECONDS}s",
    "ROTATION__BARRIER": "reports",
    "ROTATION__CACHE": "0s",
    "ROTATION__LEASE": f"{LEASE_SECONDS}s",
    "KEYSERVICE__BOOTSTRAP": "true",
    "REVOCATION__BOOTSTRAP": "true",
}


class Fleet:
    """Processes by name, one called `worker-2` being a second worker; without names only the server begins.

    `settings` go over keyturn.toml.
    """

    def __init__(self, directory: Path, *names: str, settings: Mapping[str, str] | None = None) -> None:
        """Provision a new directory; nothing runs yet."""
        self.directory, self.names = directory, names
        self._ports: dict[str, int] = {}
        self.issuer = f"http://{LOOPBACK}:{free_port()}"  # An origin that nobody needs here.
        provision(directory, Plan(issuer=self.issuer, verifiers=SIDECARS), now=SystemClock().now())
        self.password = Secret.read(directory / "redis" / "default.password")
        self.server = EmbeddedServer(
            directory.with_name("valkey"), aclfile=directory / "redis" / "users.acl", user="default",
            password=self.password,
        )  # fmt: skip
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._settings = _SETTINGS | dict(settings or {})

    async def __aenter__(self) -> Self:
        await self.server.start()
        try:
            for name in self.names:
                self.start(name)
            await self.until_ready(*self.names)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def stale_seconds(self) -> float:
        """How long a replica here is fresh without a word."""
        return seconds(self._settings["FRESHNESS__STALE"])

    @property
    def expired_seconds(self) -> float:
        """How long a replica here may be used without a word."""
        return seconds(self._settings["FRESHNESS__EXPIRED"])

    def url(self, name: str) -> str:
        """Return where a process listens."""
        return f"http://{self.address(name)}"

    def address(self, name: str) -> str:
        """Return the address of a process, the same whenever it is started again."""
        return f"{LOOPBACK}:{self._ports.setdefault(name, free_port())}"

    def urls(self, kind: str) -> list[str]:
        """Return where all processes of a kind that run listen."""
        return [self.url(name) for name in self.processes if _kind(name) == kind]

    def socket(self, name: str) -> Path:
        """Return the signing listener of a key service."""
        return self.directory / "run" / f"{name}.sock"

    def secret(self, client_id: str) -> str:
        """Return a client's secret."""
        return (self.directory / "clients" / f"{client_id}.secret").read_text()

    def start(self, name: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start one process, with more settings if need be."""
        kind = _kind(name)
        # Two replicas of one service stand on two machines, each with a disk of its own.
        state = str(self.directory / "state" / name)
        settings = self._settings | {"REDIS__URL": self.server.url(), "STATE__DIRECTORY": state}
        if kind != "worker":
            settings[f"{kind.upper()}__LISTEN"] = self.address(name)
        if kind == "keyservice":
            settings["KEYSERVICE__SIGNING_LISTEN"] = f"unix:{self.socket(name)}"
        if kind == "sidecar":
            identity = self.directory / "identities" / f"{name}.jwk"
            settings |= {"SIDECAR__VERIFIER": name, "SIDECAR__IDENTITY_FILE": str(identity)}
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = spawn(self.directory / "keyturn.toml", kind, settings | variables, stderr=log)
        return self.processes[name]

    async def until_ready(self, *names: str) -> None:
        """Wait until these processes can do their work."""
        async with ClientSession(timeout=ClientTimeout(total=2)) as http:

            async def ready() -> bool:
                gone = [name for name in names if self.processes[name].poll() is not None]
                assert not gone, f"{gone} ended\n{self.last_words()}"
                return all([await self._is_ready(http, name) for name in names])

            await eventually(ready, within_seconds=START_SECONDS, saying=self.last_words)

    async def _is_ready(self, http: ClientSession, name: str) -> bool:
        if _kind(name) == "worker":
            return '"ready"' in (self.directory / f"{name}.log").read_text()
        try:
            async with http.get(f"{self.url(name)}/readyz") as response:
                return response.status == 200
        except (ClientError, TimeoutError):
            return False

    async def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        """Signal one process, wait until it is gone, and return its exit status."""
        process = self.processes.pop(name)
        process.send_signal(how)  # Nothing happens to one that is gone.
        process.send_signal(signal.SIGCONT)
        await eventually(lambda: process.poll() is not None, within_seconds=STOP_SECONDS, saying=self.last_words)
        return process.returncode

    def freeze(self, name: str) -> None:
        """Stop a process's time."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Let it go on."""
        self.processes[name].send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End everything."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
        for name in list(self.processes):
            await self.end(name)
        await self.server.stop()

    def log(self, name: str) -> str:
        """Return what a process has said."""
        return (self.directory / f"{name}.log").read_text()

    def last_words(self) -> str:
        """Return the end of each process's log."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"--- {log.stem}\n{log.read_text(errors='replace')[-_LAST_CHARACTERS:]}" for log in logs)

    @asynccontextmanager
    async def redis(self, user: str = "default", *, subscribing: bool = False) -> AsyncIterator[Redis]:
        """Log in to the store as one of its users."""
        password = Secret.read(self.directory / "redis" / f"{user}.password")
        client = connect(
            self.server.url(), client_name="tests", username=user, password=password, subscribing=subscribing
        )
        try:
            yield client
        finally:
            await client.aclose()
            await client.connection_pool.disconnect()


def spawn(
    config: Path, kind: str, settings: Mapping[str, str], *, stderr: int | object = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start `python -m KIND`, or the sidecar, with settings over a configuration file; it ends with this process."""
    program = ["keyturn.cli", "sidecar"] if kind == "sidecar" else [kind]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    return subprocess.Popen(
        tied([sys.executable, "-m", *program, "--config", str(config)]),
        env=clean | {f"KEYTURN_{name}": value for name, value in settings.items()},
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,  # type: ignore[arg-type]
    )  # fmt: skip


@asynccontextmanager
async def running_fleet(*names: str, settings: Mapping[str, str] | None = None) -> AsyncIterator[Fleet]:
    """Run a fleet in a directory with a short path, since sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="keyturn-") as directory:
        async with Fleet(Path(directory) / "kt", *names, settings=settings) as fleet:
            yield fleet


def _kind(name: str) -> str:
    return name.split("-", maxsplit=1)[0]
