"""A TCP proxy before the store that can keep pushed messages to itself, or all bytes of one way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from typing import Any

import hiredis

from keyturn.contract.envelope import StatementType, statement_type
from keyturn.contract.positions import Lane
from keyturn.feed.redis import bell_channel
from stack.ports import LOOPBACK

_CHUNK = 65_536


class Way(Enum):
    """Which way bytes go."""

    TO_STORE = auto()
    FROM_STORE = auto()


Picking = Callable[[bytes, bytes], bool]


def nothing(_channel: bytes, _content: bytes) -> bool:
    """Drop nothing."""
    return False


def events(_channel: bytes, content: bytes) -> bool:
    """Drop events, and let heads pass."""
    return statement_type(content) is StatementType.EVENT


def everything(_channel: bytes, _content: bytes) -> bool:
    """Drop all."""
    return True


def of_lanes(*lanes: Lane) -> Picking:
    """Drop all that is said of some lanes."""
    silent = {bell_channel(lane).encode() for lane in lanes}
    return lambda channel, _: channel in silent


class Doorman:
    """Passes everything on, but for messages that `drops` picks by channel and content; `dropped` counts them.

    What goes a way that is `lost` never arrives, not even later, and no connection ends by it.
    """

    def __init__(self, store_port: int) -> None:
        """Stand before a store."""
        self.drops: Picking = nothing
        self.dropped = 0
        self.lost: frozenset[Way] = frozenset()
        self.port = 0
        self.store_port = store_port  # Where new connections go.

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one connection through to the store."""
        try:
            up_reader, up_writer = await asyncio.open_connection(LOOPBACK, self.store_port)
        except OSError:  # The store is away.
            writer.close()
            return
        ways = [
            asyncio.create_task(self._pass_on(reader, up_writer)),
            asyncio.create_task(self._pass_back(up_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, up_writer):
                end.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(_CHUNK):
                if Way.TO_STORE not in self.lost:
                    writer.write(chunk)
                    await writer.drain()

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = hiredis.Reader()
        while chunk := await reader.read(_CHUNK):
            parser.feed(chunk)
            while (reply := parser.gets()) is not False:
                if not self._keeps(reply) and Way.FROM_STORE not in self.lost:
                    writer.write(_encode(reply))
            await writer.drain()

    def _keeps(self, reply: Any) -> bool:
        pushed = isinstance(reply, list) and len(reply) == 3 and reply[0] == b"message"
        if pushed and self.drops(reply[1], reply[2]):
            self.dropped += 1
            return True
        return False


@asynccontextmanager
async def doorman_before(store_port: int) -> AsyncIterator[Doorman]:
    """Let a doorman work, on a port of his own."""
    doorman = Doorman(store_port)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(doorman.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, LOOPBACK, 0)
    doorman.port = server.sockets[0].getsockname()[1]
    try:
        yield doorman
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _encode(reply: Any) -> bytes:
    """Write a reply of protocol 2; simple strings become bulk strings, which clients read alike."""
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case list():
            return b"*%d\r\n%b" % (len(reply), b"".join(map(_encode, reply)))
    return b"-%b\r\n" % str(reply).encode()
