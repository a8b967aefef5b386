"""The whole system on one machine: embedded server, services and worker in this process, sidecars beside it."""

import asyncio
import fcntl
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from authorization.app import AuthorizationService
from introspection.app import IntrospectionService
from keyservice.app import KeyService
from keyturn.clock import Clock
from keyturn.contract.errors import ConfigurationError, KeyturnError
from keyturn.process.logging import logger
from keyturn.process.metrics import Metrics
from keyturn.process.parent import tied
from keyturn.process.running import Supervisor
from keyturn.process.settings import Settings
from keyturn.process.values import Secret
from revocation.app import RevocationService
from serving.parts import Parts, open_parts
from serving.service import Service, serve
from stack.devenv import write_dev_env
from stack.plan import Orders, external_redis, prepare, settings_of, sidecar_name, signs_in, write_sidecar_settings
from stack.ports import LOOPBACK, is_taken
from stack.server import EmbeddedServer
from stack.signin import DevelopmentSignIn
from worker.app import WorkerService

READY_WITHIN_SECONDS = 30.0
LOOK_AGAIN_SECONDS = 0.05
STOP_WITHIN_SECONDS = 5.0
SERVICES: dict[str, Callable[[Settings, Parts], Service]] = {
    "authorization": AuthorizationService,
    "keyservice": KeyService,
    "introspection": IntrospectionService,
    "revocation": RevocationService,
}


class StackFailed(KeyturnError):
    """A part of the stack did not become ready."""

    code = "stack_failed"


@dataclass
class Stack:
    """A running stack: where it is, and what tests and the demo may do to it."""

    orders: Orders
    redis_url: str
    env_file: Path
    server: EmbeddedServer | None
    sidecars: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)


@asynccontextmanager
async def running(orders: Orders, clock: Clock) -> AsyncIterator[Stack]:
    """Run the stack for as long as the block lasts; entered when all of it is ready and `dev.env` is written.

    Raises ConfigurationError for a busy port, a directory in use or one that was made for another issuer, and
    StackFailed if a part is not ready within 30 s.
    """
    async with AsyncExitStack() as stack:
        orders.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stack.enter_context(_locked(orders.directory))
        _refuse_taken_ports(orders)
        (orders.directory / "dev.env").unlink(missing_ok=True)
        prepare(orders, now=clock.now())
        server, services_redis, full_url = await _open_store(stack, orders)
        first_start = not (orders.directory / "begun").exists()
        settings = settings_of(orders, services_redis, first_start=first_start)
        services, parts = await _make_services(stack, settings, clock)
        if signs_in(orders):
            services.append(DevelopmentSignIn(parts[0], orders.directory))
        supervisor = await stack.enter_async_context(Supervisor(clock=clock))
        running_stack = Stack(orders, full_url, orders.directory / "dev.env", server)
        address = f"{LOOPBACK}:{orders.port}"
        serving = asyncio.ensure_future(_serve(services, parts, address))
        stack.push_async_callback(_end, serving)
        supervisor.keep_running("worker", await _make_worker(stack, settings, clock))
        for index in range(orders.sidecars):
            file = write_sidecar_settings(orders, index, services_redis)
            child = _Sidecar(running_stack, sidecar_name(index), file, clock)
            supervisor.keep_running(sidecar_name(index), child.run)
        await _until_ready(orders, serving, clock)
        (orders.directory / "begun").touch()
        write_dev_env(orders, full_url)
        yield running_stack


async def _open_store(stack: AsyncExitStack, orders: Orders) -> tuple[EmbeddedServer | None, dict[str, Any], str]:
    """Return the server that we run, if any, the section by which services reach it, and a URL of full rights."""
    if orders.redis_url is not None:
        return None, external_redis(orders, orders.redis_url), orders.redis_url
    directory = orders.directory.absolute()
    password = Secret.read(directory / "redis" / "default.password")
    server = EmbeddedServer(
        directory / "server", aclfile=directory / "redis" / "users.acl", user="default", password=password
    )
    await stack.enter_async_context(server)
    section = {"url": server.url(), "credentials": str(directory / "redis"), "durable": True}
    return server, section, f"redis://default:{password.reveal_text()}@{LOOPBACK}:{server.port}/0"


async def _make_services(stack: AsyncExitStack, settings: Settings, clock: Clock) -> tuple[list[Service], list[Parts]]:
    """Make each service on parts of its own, as its own user of the store."""
    services, parts = [], []
    metrics = Metrics(process="stack")  # One process, one registry: Prometheus refuses a metric that is told twice.
    for name, make in SERVICES.items():
        own = await stack.enter_async_context(open_parts(settings, user=name, clock=clock, metrics=metrics))
        services.append(make(settings, own))
        parts.append(own)
    return services, parts


async def _make_worker(stack: AsyncExitStack, settings: Settings, clock: Clock) -> Callable[[], Any]:
    parts = await stack.enter_async_context(open_parts(settings, user="worker", clock=clock))
    worker = WorkerService(settings, parts)

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(parts.follow())
            group.create_task(worker.run())

    return run


async def _serve(services: list[Service], parts: list[Parts], address: str) -> None:
    await serve(services, parts=parts, listen=address, log=logger("stack"), setting="--port")


class _Sidecar:
    """A sidecar in a process of its own, started again if it ends."""

    def __init__(self, stack: Stack, name: str, file: Path, clock: Clock) -> None:
        self._stack, self._name, self._file, self._clock = stack, name, file, clock
        self._log = file.parent / f"{name}.log"

    async def run(self) -> None:
        process = self._start()
        self._stack.sidecars[self._name] = process
        try:
            while process.poll() is None:
                await self._clock.sleep(LOOK_AGAIN_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
                await asyncio.shield(self._gone(process))
        if process.returncode == 2:  # noqa: PLR2004 - a configuration that cannot work
            raise ConfigurationError(_last_line(self._log), setting=self._name, mend="mend it, then start again")

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "keyturn.cli", "sidecar", "--config", str(self._file)]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                tied(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_child_environment(),
                start_new_session=True,
            )  # fmt: skip

    async def _gone(self, process: subprocess.Popen[bytes]) -> None:
        deadline = self._clock.boottime() + STOP_WITHIN_SECONDS
        while process.poll() is None:
            if self._clock.boottime() > deadline:
                process.kill()
            await self._clock.sleep(LOOK_AGAIN_SECONDS)


def _child_environment() -> dict[str, str]:
    """Return our environment without settings that are meant for other processes."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    root = str(Path(__file__).resolve().parent.parent)
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH", ""))))}


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended without a word"


async def _until_ready(orders: Orders, serving: "asyncio.Future[None]", clock: Clock) -> None:
    waiting = {f"{url}/readyz" for url in (orders.issuer, *orders.sidecar_urls)}
    deadline = clock.boottime() + READY_WITHIN_SECONDS
    reasons: dict[str, str] = {}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while waiting:
            if serving.done():
                serving.result()
            if clock.boottime() > deadline:
                raise StackFailed(
                    "not ready: " + "; ".join(f"{url}: {reasons.get(url, '')}" for url in sorted(waiting))
                )
            for url in sorted(waiting):
                try:
                    async with session.get(url) as response:
                        reasons[url] = (await response.text())[:200]
                        if response.status == 200:  # noqa: PLR2004
                            waiting.discard(url)
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    reasons[url] = type(error).__name__
            await clock.sleep(LOOK_AGAIN_SECONDS)


def _refuse_taken_ports(orders: Orders) -> None:
    ports = {orders.port: "--port"} | {orders.sidecar_port + i: "--sidecar-port" for i in range(orders.sidecars)}
    for port, setting in ports.items():
        if is_taken(port):
            raise ConfigurationError(f"port {port} is taken", setting=setting, mend="choose another, or end who has it")


class _locked:  # noqa: N801 - reads as a verb at its one use
    """Holds a directory for one stack."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        self._file = (self._directory / "stack.lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ConfigurationError(
                f"another stack runs in {self._directory}", setting="--dir", mend="end it, or use another directory"
            ) from None

    def __exit__(self, *_: object) -> None:
        self._file.close()


async def _end(task: "asyncio.Future[None]") -> None:
    task.cancel()
    await asyncio.wait({task})
