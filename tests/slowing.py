"""A way to the store that takes its time: races that a fast store hides happen on a slow one."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from keyturn.clock import SystemClock
from keyturn.process.redis import connect


@asynccontextmanager
async def slow_client(url: str, *, latency_seconds: float) -> AsyncIterator[Redis]:
    """Connect as processes do, by connections that hold back whatever is sent for so long; with 0 they give way."""
    redis = connect(url, client_name="tests-slow")
    pool = redis.connection_pool
    pool.connection_class = _slow(pool.connection_class, latency_seconds)
    try:
        yield redis
    finally:
        await redis.aclose()


def _slow(ordinary: type[AbstractConnection], latency_seconds: float) -> type[AbstractConnection]:
    class Connection(ordinary):  # type: ignore[misc, valid-type]
        async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
            """Send a command, or what a pipeline sends at once, later."""
            await SystemClock().sleep(latency_seconds)
            await super().send_packed_command(command, check_health)

    return Connection
