"""A server and its replica, for tests that need no sentinels."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from keyturn.process.following import StoreConnections
from keyturn.process.settings import RedisSettings
from stack.ports import LOOPBACK
from stack.server import EmbeddedServer
from tests.waiting import eventually


class Pair:
    """A server and its replica."""

    def __init__(self, directory: Path) -> None:
        """Describe them."""
        quick = {"repl-diskless-sync-delay": "0"}
        self.primary = EmbeddedServer(directory / "primary", settings=quick)
        self._directory, self._quick = directory, quick

    async def start(self) -> None:
        """Start both."""
        await self.primary.start()
        follows = {"replicaof": f"{LOOPBACK} {self.primary.port}"}
        self.replica = EmbeddedServer(self._directory / "replica", settings=self._quick | follows)
        await self.replica.start()
        await eventually(self.connected)

    async def stop(self) -> None:
        """End both."""
        await self.replica.stop()
        await self.primary.stop()

    @property
    def settings(self) -> RedisSettings:
        """Return the section of a process that follows at the replica."""
        return RedisSettings(url=self.primary.url(), replica_url=self.replica.url())

    @asynccontextmanager
    async def redis(self, *, at_replica: bool = False) -> AsyncIterator[Redis]:
        """Connect to the primary, or to the replica."""
        async with AsyncExitStack() as stack:
            yield StoreConnections(stack, self.settings, "tests").client(at_replica=at_replica)

    async def cut(self) -> None:
        """Cut the replica off from its primary: it goes on answering."""
        async with self.redis(at_replica=True) as redis:
            await _command(redis, "REPLICAOF", LOOPBACK, "1")

    async def mend(self) -> None:
        """Connect them again."""
        async with self.redis(at_replica=True) as redis:
            await _command(redis, "REPLICAOF", LOOPBACK, str(self.primary.port))
        await eventually(self.connected, within_seconds=20)

    async def connected(self) -> bool:
        """Say whether the replica is in step."""
        async with self.redis() as redis:
            told = await redis.info("replication")
        return bool(told.get("slave0", {}).get("state") == "online")


async def _command(redis: Redis, *words: str) -> Any:
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]
