"""A listening socket of the sidecar: opens, sweeps the deadlines of its connections, drains."""

import asyncio
from pathlib import Path

from keyturn.clock import Clock
from keyturn.sidecar.answering import Shared
from keyturn.sidecar.limits import Limits
from keyturn.sidecar.protocol import Connection
from keyturn.sidecar.routing import Routes

DRAIN_SECONDS = 5.0
_BACKLOG = 1024
_DRAIN_LOOK_SECONDS = 0.05


class Listener:
    """Serves routes on sockets until it is closed; one per process is enough."""

    def __init__(self, routes: Routes, *, clock: Clock, limits: Limits | None = None) -> None:
        self._clock = clock
        self._shared = Shared(routes, clock, limits or Limits())
        self._servers: list[asyncio.Server] = []
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._shared.connections)

    @property
    def blocked(self) -> int:
        """How many connections stand still because their client leaves its answers unread."""
        return sum(connection.blocked for connection in self._shared.connections)

    @property
    def turned_away(self) -> int:
        """How many connections were closed because there were too many."""
        return self._shared.turned_away

    async def open_tcp(self, host: str, port: int) -> int:
        """Listen on an address and return the port. Raises OSError when it is taken."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._connection, host, port, backlog=_BACKLOG)
        self._opened(server)
        return int(server.sockets[0].getsockname()[1])

    async def open_unix(self, path: Path) -> None:
        """Listen on a unix socket. Raises OSError when that cannot be."""
        loop = asyncio.get_running_loop()
        self._opened(await loop.create_unix_server(self._connection, str(path), backlog=_BACKLOG))

    async def close(self, *, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Accept nothing more, let what was asked be answered, then close every connection."""
        for server in self._servers:
            server.close()
        for connection in tuple(self._shared.connections):
            connection.drain()
        deadline = self._clock.boottime() + drain_seconds
        while self._shared.connections and self._clock.boottime() < deadline:
            await self._clock.sleep(_DRAIN_LOOK_SECONDS)
        for connection in tuple(self._shared.connections):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()

    def sweep(self) -> None:
        """Hold the deadlines of every connection."""
        now = self._clock.boottime()
        for connection in tuple(self._shared.connections):
            connection.sweep(now)

    def _connection(self) -> Connection:
        return Connection(self._shared)

    def _opened(self, server: asyncio.Server) -> None:
        self._servers.append(server)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep_forever())

    async def _sweep_forever(self) -> None:
        while True:
            await self._clock.sleep(self._shared.limits.sweep_seconds)
            self.sweep()
