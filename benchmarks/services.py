"""Services as they ship, each a process of its own, over a provisioned directory: what is asked over HTTP."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout, encode_basic_auth

from benchmarks.issuer import ISSUER
from benchmarks.load import LOAD_CPU, SERVER_CPU, MeasurementSpoiledError, ended, free_port, pinned
from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.process.values import Secret
from stack.server import EmbeddedServer

READY_SECONDS = 30.0
_ROOT = Path(__file__).parent.parent
_SETTINGS = {
    "REDIS__DURABLE": "true", "ROTATION__BARRIER": "reports", "ROTATION__CACHE": "0s",
    "KEYSERVICE__BOOTSTRAP": "true", "REVOCATION__BOOTSTRAP": "true",
}  # fmt: skip


class Services:
    """Running services of one issuer, and the clients that it was provisioned with."""

    def __init__(self, directory: Path, server: EmbeddedServer, ports: Mapping[str, int], http: ClientSession) -> None:
        """Know them."""
        self.directory, self.server = directory, server
        self.pids: dict[str, int] = {}
        self._ports, self._http, self._admin = ports, http, ""

    @property
    def socket(self) -> Path:
        """Return the signing listener."""
        return self.directory / "run" / "keyservice.sock"

    def url(self, name: str, path: str) -> str:
        """Return the URL of a service's route."""
        return f"http://127.0.0.1:{self._ports[name]}{path}"

    async def token(self, client: str = "client") -> str:
        """Return a fresh access token of a client."""
        secret = (self.directory / "clients" / f"{client}.secret").read_text("ascii")
        headers = {"Authorization": encode_basic_auth(client, secret)}
        form = {"grant_type": "client_credentials"}
        told = await self._post("authorization", "/token", data=form, headers=headers)
        return str(told["access_token"])

    async def order(self, path: str) -> dict[str, Any]:
        """Send an operator's order to the key service."""
        self._admin = self._admin or await self.token("admin")
        return await self._post("keyservice", path, json={}, headers={"Authorization": f"Bearer {self._admin}"})

    async def verifiers(self) -> int:
        """Count the verifiers that the key service sees live."""
        self._admin = self._admin or await self.token("admin")
        url = self.url("keyservice", "/verifiers")
        async with self._http.get(url, headers={"Authorization": f"Bearer {self._admin}"}) as answer:
            return len((await answer.json())["verifiers"])

    async def _post(self, name: str, path: str, **request: Any) -> dict[str, Any]:
        async with self._http.post(self.url(name, path), **request) as answer:
            told: dict[str, Any] = await answer.json(content_type=None)
            if answer.status not in (200, 202):
                raise MeasurementSpoiledError(f"{name}{path} answered {answer.status}: {told}")
            return told

    async def until_ready(self, name: str) -> None:
        """Wait until a service says that it can do its work."""
        clock = SystemClock()
        deadline = clock.boottime() + READY_SECONDS
        while clock.boottime() < deadline:
            with suppress(ClientError, TimeoutError):
                async with self._http.get(self.url(name, "/readyz")) as answer:
                    if answer.status == 200:  # noqa: PLR2004
                        return
            await clock.sleep(0.05)
        raise MeasurementSpoiledError(f"{name} is not ready after {READY_SECONDS:.0f} s")


@asynccontextmanager
async def running(home: Path, *names: str, verifiers: int = 1, cpu: int = LOAD_CPU) -> AsyncIterator[Services]:
    """Provision a new directory and run services of these names until the end of the block, pinned to a CPU."""
    clock = SystemClock()
    identities = tuple(f"sidecar-{number + 1}" for number in range(verifiers))
    provision(home, Plan(issuer=ISSUER, verifiers=identities), now=clock.now())
    (home / "run").mkdir(mode=0o750, exist_ok=True)
    password = Secret.read(home / "redis" / "default.password")
    users = home / "redis" / "users.acl"
    with pinned(SERVER_CPU):
        server = EmbeddedServer(home / "server", aclfile=users, user="default", password=password)
        await server.start()
    ports = {name: free_port() for name in names}
    processes = []
    try:
        async with ClientSession(timeout=ClientTimeout(total=10)) as http:
            services = Services(home, server, ports, http)
            for name in names:
                with pinned(cpu):
                    processes.append(_start(home, name, ports[name], server.url()))
                services.pids[name] = processes[-1].pid
            for name in names:
                await services.until_ready(name)
            yield services
    finally:
        for process in processes:
            await asyncio.to_thread(ended, process)
        await server.stop()


def cpu_seconds(pid: int) -> float:
    """Return how much CPU a process has used, to the hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _start(home: Path, name: str, port: int, redis_url: str) -> subprocess.Popen[bytes]:
    settings = _SETTINGS | {"REDIS__URL": redis_url, f"{name.upper()}__LISTEN": f"127.0.0.1:{port}"}
    settings |= {"KEYSERVICE__SIGNING_LISTEN": f"unix:{home / 'run' / 'keyservice.sock'}", "LOG__LEVEL": "warning"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    return subprocess.Popen(
        [sys.executable, "-m", name, "--config", str(home / "keyturn.toml")], cwd=_ROOT,
        env=clean | {f"KEYTURN_{name}": value for name, value in settings.items()},
    )  # fmt: skip
