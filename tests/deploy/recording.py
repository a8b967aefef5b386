"""A small HTTP server that writes down what reaches it, byte for byte, and answers what it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from stack.ports import LOOPBACK

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One request: its first line, its headers in order with names in lower case, its body."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Return each value of a header."""
        return [value for key, value in self.headers if key == name.lower()]


@dataclass
class Recorder:
    """What has reached the server so far, and how it answers."""

    port: int = 0
    answer: bytes = OK
    requests: list[Recorded] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until its other end closes it."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                pairs = [line.partition(":") for line in head[1:] if line]
                headers = [(name.lower(), value.strip()) for name, _, value in pairs]
                length = int(dict(headers).get("content-length", "0"))
                self.requests.append(Recorded(head[0], headers, await reader.readexactly(length)))
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def recording(answer: bytes = OK) -> AsyncIterator[Recorder]:
    """Run a recorder on a free port until the block ends."""
    recorder = Recorder(answer=answer)
    server = await asyncio.start_server(recorder.serve, LOOPBACK, 0)
    recorder.port = server.sockets[0].getsockname()[1]
    try:
        yield recorder
    finally:
        server.close()
