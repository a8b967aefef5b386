"""Where an application listens: a TCP address or a unix socket in a directory of its own, within limits."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import hdrs, web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from keyturn.contract.errors import ConfigurationError
from keyturn.process.values import Listen, Unfit
from serving.problems import Style, answer_status
from serving.shortway import Way, last_of

LONGEST_LINE_BYTES = 8 * 1024
MOST_HEADERS = 64
KEEP_ALIVE_SECONDS = 75.0
FIRST_REQUEST_SECONDS = 10.0  # A connection that has sent none by then is closed.
MOST_CONNECTIONS = 4096  # More are closed at once.
DRAIN_SECONDS = 0.25  # At the end, for requests that are on their way on connections that stand.
LEAVE_SECONDS = 5.0  # What is under way at the end may take so long.
_BACKLOG = 1024
_TAKEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)


@asynccontextmanager
async def listening(app: web.Application, listen: str, *, setting: str = "listen") -> AsyncIterator[str]:
    """Serve an application at HOST:PORT or unix:/PATH for as long as the block lasts; gives the address.

    A unix socket's directory is made with mode 0750 if it is not there; the socket gets 0660. Raises
    ConfigurationError, naming `setting`, for an address that is none or that somebody else has.
    """
    try:
        where = Listen.parse(listen)
    except Unfit as error:
        raise ConfigurationError(str(error), setting=setting, mend=error.mend) from error
    runner = _Runner(
        app, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS,
        shutdown_timeout=LEAVE_SECONDS, max_line_size=LONGEST_LINE_BYTES, max_field_size=LONGEST_LINE_BYTES,
        max_headers=MOST_HEADERS, auto_decompress=False,
    )  # fmt: skip
    await runner.setup()
    ours: Path | None = None
    try:
        try:
            address = await _open(runner, where)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
            raise ConfigurationError(
                f"{where}: {error.strerror or error}", setting=setting, mend="choose another, or end who has it"
            ) from error
        ours = where.path
        yield address
    finally:
        await runner.cleanup()
        if ours is not None:  # Another process's socket stays where it is.
            ours.unlink(missing_ok=True)


async def _open(runner: web.AppRunner, where: Listen) -> str:
    if where.path is not None:
        _make_way(where.path)
        await web.UnixSite(runner, where.path, backlog=_BACKLOG).start()
        where.path.chmod(0o660)
        return str(where)
    site = web.TCPSite(runner, where.host, where.port, backlog=_BACKLOG)
    await site.start()
    host, port = runner.addresses[0][:2]
    return str(Listen(host=host, port=port))


def _make_way(path: Path) -> None:
    """Make the socket's directory, and remove a socket that nobody answers on any more."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "somebody listens there")


class _Runner(web.AppRunner):
    """Runs an application on connections that answer broken requests as everything else does."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(
            made.request_handler, request_factory=made.request_factory, handler_cancellation=made.handler_cancellation,
            **made._kwargs,
        )  # fmt: skip


class _Server(web.Server):
    """Ends its connections by an answer that says so, where there is one to give within the time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._left: asyncio.Event | None = None  # Once the end has begun: whether nobody is there any more.

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def pre_shutdown(self) -> None:
        """Have each answer from now on be its connection's last."""
        self._left = asyncio.Event()
        for connection in self._connections:
            if isinstance(connection, _Connection):
                connection.leaves = True

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as aiohttp has it
        """Close who has not asked meanwhile, and wait for what is under way."""
        if self._connections and self._left is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._left.wait()
        super().pre_shutdown()
        await super().shutdown(timeout)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """Forget a connection."""
        super().connection_lost(handler, exc)
        if self._left is not None and all(one is handler or one.transport is None for one in self._connections):
            self._left.set()


class _Connection(RequestHandler):
    """One connection; what cannot be parsed gets 400, or 431 where it is too large.

    A request that `way` knows is answered before aiohttp sees it, which must neither hold a part of a request then nor
    owe an answer: the way ends for good with the first bytes that are not one whole request.
    """

    __slots__ = ("_answered", "_asked", "_closes_then", "_given", "_held", "_leaving", "leaves", "way")

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.way: Way | None = Way()
        self.leaves = False  # With its next answer.
        self._given = self._answered = 0  # Whole requests that aiohttp got, and those that it has answered.
        self._asked = b""  # The request that goes the short way now.
        self._held = b""  # What came meanwhile.
        self._closes_then = False
        self._leaving: asyncio.Future[None] | None = None  # Somebody waits for its end.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many already; a request has to come soon."""
        super().connection_made(transport)
        if self._manager is not None and len(self._manager.connections) > MOST_CONNECTIONS:
            self.force_close()
            return
        self._loop.call_later(FIRST_REQUEST_SECONDS, self._expect_request)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End; nobody waits for an answer any more."""
        self._ended_short()
        super().connection_lost(exc)

    def close(self) -> None:
        """Take no more requests; what goes the short way is answered first."""
        if self._asked:
            self._closes_then = True
        else:
            super().close()

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as aiohttp has it
        """End, once what goes the short way was answered, or after so many seconds."""
        if self._asked:
            self._leaving = self._loop.create_future()
            await asyncio.wait([self._leaving], timeout=timeout)
        await super().shutdown(timeout)

    def data_received(self, data: bytes) -> None:
        """Take the short way if there is one, else aiohttp's."""
        if not data:  # Aiohttp tells itself to go on with what it has.
            super().data_received(data)
            return
        if self._asked:
            self._held += data
            if self.transport is not None:
                self.transport.pause_reading()
            return
        alone = self._given == self._answered
        # Who does not read what was written before takes the long way, which waits for that.
        free = self.way is not None and alone and not self._closes and not self.writing_paused
        if self.way is not None and free and self.way.ask(data, self._replied):
            self._asked = data
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        else:
            self._go_long(data, alone=alone)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write an answer, and count it; who gets the last one is told so (RFC 9112, 9.6)."""
        if (self.leaves or self._closes) and not resp.prepared:
            resp.force_close()
        finished = await super().finish_response(request, resp, start_time)
        self._answered += 1
        return finished

    @property
    def _closes(self) -> bool:
        return self._force_close or self._close

    def _go_long(self, data: bytes, *, alone: bool) -> None:
        if self.way is not None:
            self._given += 1
            if not self.way.takes(data, alone=alone):
                self.way = None
        super().data_received(data)

    def _replied(self, reply: bytes | None) -> None:
        """Write an answer that came by the short way, or send its request the long one."""
        asked, transport = self._asked, self.transport
        if transport is None or transport.is_closing():
            return
        self._ended_short()
        leaves = self.leaves or self._closes_then
        if reply is None:
            self._go_long(asked, alone=True)
        else:
            transport.write(last_of(reply) if leaves else reply)
        if self._closes_then or (leaves and reply is not None):
            super().close()
        if self._held:
            held, self._held = self._held, b""
            transport.resume_reading()
            self.data_received(held)

    def _ended_short(self) -> None:
        self._asked = b""
        if self._leaving is not None and not self._leaving.done():
            self._leaving.set_result(None)

    def _expect_request(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it quotes the request
    ) -> web.StreamResponse:
        """Answer without repeating anything of the request."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        too_large = isinstance(exc, LineTooLong) or (isinstance(exc, HttpProcessingError) and "Too many" in exc.message)
        plain = answer_status(431 if too_large else status, Style.PROBLEM)
        response = _Nameless(body=plain.body, status=plain.status, headers=plain.headers)
        response.force_close()
        return response


class _Nameless(web.Response):
    async def _prepare_headers(self) -> Any:
        await super()._prepare_headers()
        self.headers.popall(hdrs.SERVER, None)
