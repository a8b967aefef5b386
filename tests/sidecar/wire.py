"""A client that sends the very bytes it is told to, and a listener to send them to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Self

from keyturn.sidecar import replies
from keyturn.sidecar.limits import Limits
from keyturn.sidecar.listener import Listener
from keyturn.sidecar.routing import FORM, Answer, Header, Route, Routes
from tests.clocks import ManualClock

WITHIN_SECONDS = 5
ALLOW = replies.allow({"sub": "alice", "iss": "https://issuer.example"}, state="fresh")
DENY = replies.unauthorized()


@dataclass
class Reply:
    """One response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection, spoken to in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, port: int) -> Self:
        """Connect."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, raw: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(raw)

    async def reply(self, *, head: bool = False) -> Reply:
        """Read one response; one to HEAD has no body, whatever its length says."""
        async with asyncio.timeout(WITHIN_SECONDS):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            length = 0 if head else int(headers.get("content-length", "0"))
            return Reply(int(lines[0].split(" ")[1]), headers, await self.reader.readexactly(length))

    async def ask(self, raw: bytes) -> Reply:
        """Send bytes and read one response."""
        self.send(raw)
        return await self.reply()

    async def is_closed(self) -> bool:
        """Wait for the end of what the server says; True when nothing more came before it."""
        async with asyncio.timeout(WITHIN_SECONDS):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@dataclass
class FakeSidecar:
    """A listener whose routes answer without judging: what they were asked is kept in `seen`."""

    clock: ManualClock
    limits: Limits
    seen: list[tuple[bytes, list[bytes], list[Header], bytes]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0
    cancelled: int = 0
    port: int = 0
    listener: Listener = field(init=False)
    clients: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Set the routes up."""
        exact = {
            b"/nginx/default": Route(self.judge),
            b"/slow": Route(self.slow),
            b"/broken": Route(self.broken),
            b"/broken-later": Route(self.broken_later),
            b"/long": Route(self.long),
            b"/form": Route(self.form, FORM),
        }
        prefixes = {b"/envoy/strict/": Route(self.envoy, None)}
        self.listener = Listener(Routes(exact, prefixes), clock=self.clock, limits=self.limits)

    def judge(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:
        """Allow the token `good`."""
        self.seen.append((target, authorization, headers, body))
        return ALLOW if authorization == [b"Bearer good"] else DENY

    async def slow(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> bytes:
        """Answer when the gate opens."""
        self.waiting += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return replies.reply(200, body=b"slow")

    def broken(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:
        """Fail at once."""
        raise RuntimeError("token abc.def.ghi")

    async def broken_later(
        self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes
    ) -> bytes:
        """Fail after a wait."""
        await self.clock.sleep(0)
        raise RuntimeError("token abc.def.ghi")

    def long(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:
        """Answer with a megabyte."""
        return replies.reply(200, body=b"x" * 1024 * 1024)

    def form(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:
        """Give the body back."""
        return replies.reply(200, body=body)

    def envoy(self, target: bytes, authorization: list[bytes], headers: list[Header], body: bytes) -> Answer:
        """Say which route it was."""
        return replies.reply(200, body=b"envoy strict")

    async def connect(self) -> Client:
        """Open a connection that is closed at the end of the test."""
        client = await Client.to(self.port)
        self.clients.append(client)
        return client

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and the deadlines be looked at."""
        self.clock.advance(seconds)
        self.listener.sweep()


@asynccontextmanager
async def fake_sidecar(limits: Limits | None = None) -> AsyncIterator[FakeSidecar]:
    """Run a fake sidecar on a free port."""
    sidecar = FakeSidecar(ManualClock(), limits or Limits())
    sidecar.port = await sidecar.listener.open_tcp("127.0.0.1", 0)
    try:
        yield sidecar
    finally:
        for client in sidecar.clients:
            await client.close()
        await sidecar.listener.close(drain_seconds=0)
