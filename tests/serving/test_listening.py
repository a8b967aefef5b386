"""Where services listen: loopback or a socket of their own, and no connection that only waits."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from aiohttp import ClientSession, UnixConnector, web

import serving.listening
from keyturn.contract.errors import ConfigurationError
from serving.listening import listening
from serving.shortway import Reply, offer
from tests.waiting import eventually


def application() -> web.Application:
    """Return an application with one route."""

    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    return app


async def test_a_unix_socket_is_for_its_group_only_and_goes_with_its_process(tmp_path: Path) -> None:
    """Architecture: the directory 0750, the socket 0660; nothing stays behind."""
    path = tmp_path / "run" / "service.sock"
    async with listening(application(), f"unix:{path}") as address:
        assert address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750
        async with ClientSession(connector=UnixConnector(str(path))) as session, session.get("http://x/") as answer:
            assert await answer.text() == "hello"
    assert not path.exists()


async def test_a_socket_that_a_killed_process_left_is_taken_over_and_a_live_one_is_not(tmp_path: Path) -> None:
    """A restart after kill -9 works; a second process is told, and does not steal the first one's socket."""
    path = tmp_path / "service.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with listening(application(), f"unix:{path}"):
        with pytest.raises(ConfigurationError, match="signing_listen"):
            async with listening(application(), f"unix:{path}", setting="keyservice.signing_listen"):
                pass
        async with ClientSession(connector=UnixConnector(str(path))) as session, session.get("http://x/") as answer:
            assert answer.status == 200


@pytest.mark.parametrize("listen", ["8080", "unix:relative.sock", "127.0.0.1:99999", ":1"])
async def test_what_is_no_address_is_refused_by_its_setting(listen: str) -> None:
    """One line that names the setting and the mend."""
    with pytest.raises(ConfigurationError, match=r"authorization\.listen"):
        async with listening(application(), listen, setting="authorization.listen"):
            pass


async def test_a_connection_that_sends_no_request_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request line, for ever, must not hold a connection for ever."""
    monkeypatch.setattr(serving.listening, "FIRST_REQUEST_SECONDS", 0.05)
    async with listening(application(), "127.0.0.1:0") as address:
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_more_connections_than_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on everything that grows; those that are in are served on."""
    monkeypatch.setattr(serving.listening, "MOST_CONNECTIONS", 1)
    async with listening(application(), "127.0.0.1:0") as address:
        host, _, port = address.partition(":")
        first, second = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        assert await asyncio.wait_for(second[0].read(), 5) == b""
        first[1].write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(first[0].read(), 5)
        for _, writer in (first, second):
            writer.close()


async def test_what_is_no_http_gets_400_without_an_echo() -> None:
    """Garbage is answered in our own words."""
    async with listening(application(), "127.0.0.1:0") as address:
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"kt_at_secret garbage\r\n\r\n")
        told = await asyncio.wait_for(reader.read(), 5)
        assert told.startswith(b"HTTP/1.")
        assert b" 400 " in told.splitlines()[0]
        assert b"kt_at" not in told
        assert b"aiohttp" not in told
        writer.close()


class Slow:
    """A short way whose answers come when the test says so."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []

    def __call__(self, _body: bytes, reply: Reply) -> bool:
        """Take a request."""
        self.replies.append(reply)
        return True

    def application(self) -> web.Application:
        """Return an application that offers it with each answer."""

        async def handler(request: web.Request) -> web.Response:
            offer(request, self)
            return web.Response(text="long way")

        app = web.Application()
        app.router.add_get("/", handler)
        return app


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n."
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LAST = b"\r\nConnection: close\r\n"
MANY = 60


@pytest.mark.parametrize(("reply", "told"), [(ANSWER, b"ok"), (None, b"long way")])
async def test_what_goes_the_short_way_when_the_end_comes_is_answered(reply: bytes | None, told: bytes) -> None:
    """SIGTERM ends a process between requests, not within one (RFC 9112, 9.6), whichever way that one goes."""
    slow = Slow()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(listening(slow.application(), "127.0.0.1:0"))
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(REQUEST)
        await asyncio.wait_for(reader.readuntil(b"long way"), 5)
        writer.write(REQUEST)
        await eventually(lambda: bool(slow.replies), within_seconds=5)
        ending = asyncio.ensure_future(stack.aclose())
        await asyncio.wait([ending], timeout=0.05)
        assert not ending.done()
        slow.replies[0](reply)
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.endswith(told)
        assert LAST in answer
        await asyncio.wait_for(ending, 5)
        writer.close()


def _takes_connections(host: str, port: int) -> bool:
    with socket.socket() as another:
        return another.connect_ex((host, port)) == 0


@asynccontextmanager
async def ending(app: web.Application) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve an application that comes to its end in the block, on a connection that has had an answer."""
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(listening(app, "127.0.0.1:0"))
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(REQUEST)
        await asyncio.wait_for(reader.readuntil(b"long way"), 5)
        end = asyncio.ensure_future(stack.aclose())
        await eventually(lambda: not _takes_connections(host, int(port)))
        try:
            async with asyncio.timeout(10):
                yield reader, writer
                await end
        finally:
            writer.close()


@pytest.mark.parametrize("short", [True, False])
async def test_a_request_that_was_on_its_way_when_the_end_came_is_answered(*, short: bool) -> None:
    """RFC 9112, 9.6: who has just asked cannot know whether he was heard; the answer says that it is the last."""

    def at_once(_body: bytes, reply: Reply) -> bool:
        asyncio.get_running_loop().call_soon(reply, ANSWER if short else None)
        return True

    async def handler(request: web.Request) -> web.Response:
        offer(request, at_once)
        return web.Response(text="long way")

    app = web.Application()
    app.router.add_get("/", handler)
    async with ending(app) as (reader, writer):
        writer.write(REQUEST)
        told = await reader.read()
        assert told.startswith(b"HTTP/1.1 200 OK\r\n")
        assert LAST in told
        assert told.endswith(b"ok" if short else b"long way")


async def test_who_does_not_ask_at_the_end_does_not_hold_it() -> None:
    """An idle connection is closed once its time is up."""
    async with ending(Slow().application()) as (reader, _):
        assert await reader.read() == b""


async def test_a_short_way_without_an_answer_does_not_hold_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under way at the end has its time, and no more."""
    monkeypatch.setattr(serving.listening, "LEAVE_SECONDS", 0.05)
    slow = Slow()
    async with asyncio.timeout(5):
        async with listening(slow.application(), "127.0.0.1:0") as address:
            host, _, port = address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(REQUEST)
            await reader.readuntil(b"long way")
            writer.write(REQUEST)
            await eventually(lambda: bool(slow.replies), within_seconds=5)
        assert await reader.read() == b""
        slow.replies[0](ANSWER)  # Nobody is there any more.
        writer.close()


async def test_who_reads_no_answer_is_sent_no_more_of_them() -> None:
    """Answers to a client that asks and never reads must not pile up here: the long way waits until it reads."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n" + b"." * 1_048_576
    told = 0

    def at_once(_body: bytes, reply: Reply) -> bool:
        nonlocal told
        told += 1
        asyncio.get_running_loop().call_soon(reply, answer)
        return True

    async def handler(request: web.Request) -> web.Response:
        nonlocal told
        told += 1
        offer(request, at_once)
        return web.Response(text="long way")

    app = web.Application()
    app.router.add_get("/", handler)
    async with asyncio.timeout(20), listening(app, "127.0.0.1:0") as address:
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        try:
            for number in range(1, MANY):
                writer.write(REQUEST)
                with suppress(AssertionError):
                    await eventually(partial(lambda wanted: told >= wanted, number), within_seconds=0.5)
                if told < number:
                    break
            assert 2 < told < MANY - 1
            assert not reader.at_eof()
        finally:
            writer.transport.abort()
