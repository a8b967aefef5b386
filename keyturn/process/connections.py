"""Single connections to a server: none waits for ever to log in, and a guided one goes where it is led."""

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError

LOGIN_SECONDS = 2.0

Address = tuple[str, int]


class _Bounded(AbstractConnection):
    """Waits for the answers to its login only so long, and writes within its timeout without a task for each command.

    The client library gives the login the socket's timeout, and one that subscribes has none: where the answers get
    lost on the way, it would wait for ever. It writes under `asyncio.wait_for`, and that of Python 3.11 drops a
    cancellation there: the task would go on for ever, and its process not end when told to.
    """

    async def on_connect(self) -> None:
        """Log in; raises the client's TimeoutError where that takes 2 s."""
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                await super().on_connect()
        except TimeoutError as error:
            raise RedisTimeoutError("the server did not answer the login") from error

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        """Write a command; raises the client's TimeoutError and ConnectionError, and then is not connected any more."""
        if not self.is_connected:
            await self.connect()  # type: ignore[no-untyped-call]
        elif check_health:
            await self.check_health()  # type: ignore[no-untyped-call]
        if isinstance(command, str):
            command = command.encode()
        try:
            async with asyncio.timeout(self.socket_timeout):
                await self._send_packed_command([command] if isinstance(command, bytes) else command)
        except BaseException as error:
            await self.disconnect(nowait=True)  # Nobody can send the rest of it.
            if isinstance(error, TimeoutError):
                raise RedisTimeoutError("the server did not take a command") from None
            if isinstance(error, OSError):
                raise RedisConnectionError(f"a command could not be written: {error}") from error
            raise


class Guiding(Protocol):
    """Who knows where a connection has to go: what `keyturn.process.sentinels.Guide` is to a connection."""

    async def address(self) -> Address:
        """Say where to connect now; raises redis' ConnectionError if nobody can tell."""
        ...

    def arrived(self, connection: "Guided") -> None:
        """Hear of a connection that stands, to give it up once it leads to the wrong server."""
        ...

    def failed(self, address: Address) -> None:
        """Hear that a server did not do what it is there for."""
        ...


class Guided(_Bounded, Connection):
    """Asks its guide where to go each time that it connects, and speaks up when the server is not the right one."""

    def __init__(self, *, guide: Guiding, **options: Any) -> None:
        super().__init__(**options)
        self._guide = guide

    @property
    def address(self) -> Address:
        """Return where it leads."""
        return self.host, self.port

    async def connect(self) -> None:
        """Connect to where the guide says."""
        if self.is_connected:
            return
        self.host, self.port = await self._guide.address()
        try:
            await super().connect()  # type: ignore[no-untyped-call]
        except (RedisConnectionError, RedisTimeoutError):
            self._guide.failed(self.address)
            raise
        self._guide.arrived(self)

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read an answer; after one that the right server would not give, the next command asks the guide."""
        try:
            return await super().read_response(*arguments, **options)
        except (ReadOnlyError, RedisTimeoutError):
            self._guide.failed(self.address)
            await self.disconnect(nowait=True)
            raise

    def give_up(self) -> None:
        """Break off, whatever it is doing: who waits for an answer hears that the connection is lost."""
        if self._writer is not None:
            self._writer.transport.abort()


class _Plain(_Bounded, Connection):
    pass


class _Encrypted(_Bounded, SSLConnection):
    pass


class _Local(_Bounded, UnixDomainSocketConnection):
    pass


class _GuidedEncrypted(Guided, SSLConnection):
    pass


_OURS: dict[type[AbstractConnection], type[AbstractConnection]] = {
    Connection: _Plain,
    SSLConnection: _Encrypted,
    UnixDomainSocketConnection: _Local,
}


def connection_class(theirs: type[AbstractConnection], *, guided: bool) -> type[AbstractConnection]:
    """Return our kind of connection for the client library's; a guided one goes over TCP."""
    if guided:
        return _GuidedEncrypted if theirs is SSLConnection else Guided
    return _OURS[theirs]
