"""A primary, two replicas and three sentinels, all real, with ways to hurt them: for every test of a failover."""

import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from keyturn.process.parent import tied
from keyturn.process.redis import connect
from keyturn.process.settings import RedisSettings
from keyturn.process.values import Secret
from stack.binary import server_binary
from stack.ports import LOOPBACK, free_port
from stack.server import EmbeddedServer
from tests.waiting import eventually

NAME = "Feed_1"  # Sentinel minds the case, and takes what is no host name.
DOWN_AFTER_MS = 1000  # Not so short that a busy machine looks like a dead one.
START_SECONDS = FAILOVER_SECONDS = 20.0
_QUICK = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}


class SentinelGroup:
    """Three servers, of which one is the primary, and three sentinels that watch it under `NAME`.

    `settings` go over the configuration of every server. With `provisioned`, a directory that `keyturn init` made,
    everybody logs in as its users. A server that was killed can be started again; the sentinels then make a replica
    of it.
    """

    def __init__(
        self, directory: Path, *, settings: Mapping[str, str] | None = None, provisioned: Path | None = None
    ) -> None:
        """Describe the group; nothing runs yet."""
        self.directory, self._provisioned = directory, provisioned
        self._settings = _QUICK | dict(settings or {})
        self._password: Secret | None = None
        if provisioned is not None:
            self._password = Secret.read(provisioned / "redis" / "default.password")
            self._settings |= {"masteruser": "replica", "masterauth": self._server_password("replica")}
        self.first = self._server(0)
        self.servers = [self.first, *(self._server(n, replicaof=f"{LOOPBACK} {self.first.port}") for n in (1, 2))]
        self.sentinel_ports = [free_port() for _ in range(3)]
        self.sentinels: list[subprocess.Popen[bytes]] = []
        self._stack = AsyncExitStack()

    @property
    def settings(self) -> RedisSettings:
        """Return the section by which a process finds the primary."""
        sentinels = tuple(f"{LOOPBACK}:{port}" for port in self.sentinel_ports)
        return RedisSettings(url=f"redis://{NAME}/0", sentinels=sentinels)

    def _server(self, number: int, **settings: str) -> EmbeddedServer:
        acl = None if self._provisioned is None else self._provisioned / "redis" / "users.acl"
        return EmbeddedServer(
            self.directory / f"server-{number}", port=free_port(), settings=self._settings | settings, aclfile=acl,
            user=None if acl is None else "default", password=self._password,
        )  # fmt: skip

    def _server_password(self, user: str) -> str:
        assert self._provisioned is not None
        return Secret.read(self._provisioned / "redis" / "servers" / f"{user}.password").reveal_text()

    async def __aenter__(self) -> Self:
        try:
            for server in self.servers:
                await self._stack.enter_async_context(server)
            for number in range(3):
                self._start_sentinel(number)
            await eventually(self._all_up, within_seconds=START_SECONDS, saying=self.last_words)
            await self.in_step()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        await self._end()

    async def primary(self) -> EmbeddedServer:
        """Return the server that the latest failover has made the primary."""
        answers = []
        for sentinel_port in self.sentinel_ports:
            async with self.client(sentinel_port) as sentinel:
                _, port = await _command(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
                facts = _pairs(await _command(sentinel, "SENTINEL", "MASTER", NAME))
            answers.append((int(facts["config-epoch"]), int(port)))
        return next(server for server in self.servers if server.port == max(answers)[1])

    async def kill_primary(self) -> EmbeddedServer:
        """End the primary as a power cut would, and return it."""
        primary = await self.primary()
        await primary.kill()
        return primary

    async def failed_over(self, old: EmbeddedServer) -> None:
        """Wait until the sentinels name another primary than that, and it takes writes."""
        await eventually(lambda: self._leads_another(old), within_seconds=FAILOVER_SECONDS)

    @asynccontextmanager
    async def losing_a_tail(self) -> AsyncIterator[EmbeddedServer]:
        """Keep the replicas from what is written inside the block, and kill the primary, which is given, at its end.

        They are stopped, and their connections cut by the primary: what a stopped process has in its socket would
        still reach it. Where WAIT or `min-replicas-to-write` is asked for, nothing can be lost like this.
        """
        primary = await self.primary()
        others = [server for server in self.servers if server is not primary and server.running]
        for server in others:
            server.freeze()
        try:
            async with self.client(primary.port) as redis:
                await redis.client_kill_filter(_type="slave")
            yield primary
            await primary.kill()
        finally:
            for server in others:
                server.thaw()

    async def mended(self) -> None:
        """Make it whole again after a test, and empty: three servers that run, two of them replicas in step.

        Sentinel would do it too, but takes its time.
        """
        for server in self.servers:
            if not server.running:
                await server.start()
        async with self.client((await self.primary()).port) as redis:
            await redis.flushall()
        await eventually(self._mend, within_seconds=START_SECONDS, saying=self.last_words)
        await self.in_step()

    async def _mend(self) -> bool:
        """Lead replicas to the primary; say whether they follow it and every sentinel finds everybody well."""
        primary, well = await self.primary(), True
        for server in self.servers:
            if server is not primary and not await self.follows(server, primary):
                well = False
                with suppress(RedisError):
                    async with self.client(server.port) as redis:
                        await _command(redis, "REPLICAOF", LOOPBACK, str(primary.port))
        return well and await self._all_up()

    async def in_step(self) -> None:
        """Wait until both replicas hold all that the primary has written by now."""
        primary = await self.primary()
        written, _ = await self._offsets(primary)

        async def held() -> bool:
            _, replicas = await self._offsets(primary)
            return len(replicas) == len(self.servers) - 1 and min(replicas) >= written

        await eventually(held, within_seconds=START_SECONDS, saying=self.last_words)

    async def _offsets(self, primary: EmbeddedServer) -> tuple[int, list[int]]:
        """Return how far a primary has written, and how far each of its replicas says that it has read."""
        async with self.client(primary.port) as redis:
            told = await redis.info("replication")
        rows = [value for name, value in told.items() if name.startswith("slave") and isinstance(value, dict)]
        return int(told["master_repl_offset"]), [int(row["offset"]) for row in rows if row["state"] == "online"]

    async def follows(self, server: EmbeddedServer, primary: EmbeddedServer) -> bool:
        """Say whether a server is a replica that is connected to that primary."""
        try:
            async with self.client(server.port) as redis:
                told = await redis.info("replication")
        except RedisError:  # It breaks off its connections when it turns into one.
            return False
        place = told["role"], told.get("master_port"), told.get("master_link_status")
        return place == ("slave", primary.port, "up")

    @asynccontextmanager
    async def client(self, port: int) -> AsyncIterator[Redis]:
        """Connect to one server, as its administrator, or to a sentinel, which asks nobody who he is."""
        password = None if port in self.sentinel_ports else self._password
        user = None if password is None else "default"
        redis = connect(f"redis://{LOOPBACK}:{port}", client_name="tests", username=user, password=password)
        try:
            yield redis
        finally:
            await redis.aclose()

    def _start_sentinel(self, number: int) -> None:
        """Start a sentinel that knows everybody, and need not take seconds to find them."""
        path = self.directory / f"sentinel-{number}.conf"
        lines = [
            f"port {self.sentinel_ports[number]}", f"bind {LOOPBACK}", f"dir {self.directory}", 'logfile ""',
            f"sentinel myid {_id(number)}", f"sentinel monitor {NAME} {LOOPBACK} {self.first.port} 2",
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}", f"sentinel failover-timeout {NAME} 1500",
            *(f"sentinel known-replica {NAME} {LOOPBACK} {server.port}" for server in self.servers[1:]),
            *(
                f"sentinel known-sentinel {NAME} {LOOPBACK} {self.sentinel_ports[other]} {_id(other)}"
                for other in range(3) if other != number
            ),
        ]  # fmt: skip
        if self._provisioned is not None:
            lines += [
                f"sentinel auth-user {NAME} sentinel",
                f"sentinel auth-pass {NAME} {self._server_password('sentinel')}",
            ]
        path.write_text("\n".join(lines) + "\n")
        with (self.directory / f"sentinel-{number}.log").open("wb") as log:
            self.sentinels.append(
                subprocess.Popen(
                    tied([str(server_binary()), str(path), "--sentinel"]),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    async def _all_up(self) -> bool:
        """Say whether all sentinels know each other and both replicas, and find nobody down."""
        try:
            for port in self.sentinel_ports:
                async with self.client(port) as sentinel:
                    facts = _pairs(await _command(sentinel, "SENTINEL", "MASTER", NAME))
                    replicas = [_pairs(row) for row in await _command(sentinel, "SENTINEL", "REPLICAS", NAME)]
                up = [row for row in replicas if row["flags"] == "slave"]
                if facts["flags"] != "master" or facts["num-other-sentinels"] != "2" or len(up) != 2:
                    return False
        except (RedisError, OSError):
            return False
        return True

    async def _leads_another(self, old: EmbeddedServer) -> bool:
        primary = await self.primary()
        if primary is old:
            return False
        async with self.client(primary.port) as redis:
            return bool((await redis.info("replication"))["role"] == "master")

    def last_words(self) -> str:
        """Return the end of each log."""
        logs = [*self.directory.glob("server-*/server.log"), *self.directory.glob("sentinel-*.log")]
        return "\n".join(f"--- {log.relative_to(self.directory)}\n{log.read_text()[-1500:]}" for log in sorted(logs))

    async def _end(self) -> None:
        for process in self.sentinels:
            process.kill()
            process.wait(10)
        await self._stack.aclose()


async def _command(redis: Redis, *words: str) -> Any:
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]


def _pairs(flat: list[bytes]) -> dict[str, str]:
    words = [word.decode() for word in flat]
    return dict(zip(words[::2], words[1::2], strict=True))


def _id(number: int) -> str:
    return f"{number + 1:040x}"
