"""The answering half of a connection: replies in the order of their requests, back-pressure, and the end."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from keyturn.clock import Clock
from keyturn.sidecar import replies
from keyturn.sidecar.limits import Limits
from keyturn.sidecar.routing import READ, Answer, Header, Route, Routes

if TYPE_CHECKING:
    from keyturn.sidecar.protocol import Connection

REQUEST_FAILED = "request_failed"

_NO_ROUTE = replies.problem(404, "the sidecar has no such route, or its dialect is not enabled")
_FAILED = replies.problem(500, "the sidecar failed; its log says why")
_UNAVAILABLE = replies.unavailable()

_log = structlog.get_logger()


@dataclass(slots=True)
class Request:
    """A request that takes the long way: unusual, behind one that has to wait, or refused."""

    target: bytes = b""
    method: bytes = b""
    authorization: list[bytes] = field(default_factory=list)
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    keep_alive: bool = False
    refusal: bytes | None = None


@dataclass(slots=True)
class Shared:
    """What all connections of a listener share."""

    routes: Routes
    clock: Clock
    limits: Limits = field(default_factory=Limits)
    connections: "set[Connection]" = field(default_factory=set)
    turned_away: int = 0
    """Connections above the limit, so far."""


class Answering(asyncio.Protocol):
    """Answers one request after the other; while one waits, or the client reads nothing, the rest waits."""

    __slots__ = (
        "_asked",
        "_blocked",
        "_draining",
        "_ended",
        "_finished",
        "_lingering",
        "_queue",
        "_rest",
        "_shared",
        "_since",
        "_stalled",
        "_task",
        "_transport",
    )

    _transport: asyncio.Transport

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._queue: deque[Request] = deque()  # at most what one slice of bytes holds: nothing is parsed meanwhile
        self._rest = b""  # read, and not parsed yet because of back-pressure
        self._asked: Request | None = None  # the request that `_task` answers
        self._task: asyncio.Task[bytes] | None = None
        self._blocked = False  # the client leaves its answers unread
        self._stalled = False  # blocked, or waiting for `_task`
        self._draining = False  # nothing new is wanted: close when all is answered
        self._ended = False  # the client has stopped talking
        self._lingering = False  # refused: reading on only so that the client gets to see the refusal
        self._finished = False  # the last answer is written
        self._since = shared.clock.boottime()  # when the present state of affairs began

    @property
    def blocked(self) -> bool:
        """Whether the client leaves its answers unread."""
        return self._blocked

    def pause_writing(self) -> None:
        """Stop reading from a client that leaves its answers unread."""
        self._blocked = True
        self._since = self._shared.clock.boottime()
        self._stall()

    def resume_writing(self) -> None:
        """Go on."""
        self._blocked = False
        self._advance()

    def eof_received(self) -> bool:
        """Answer what was asked completely before the client stopped talking."""
        self._ended = True
        return self._stalled

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it so
        """End: nobody is left to answer."""
        self._shared.connections.discard(self)
        self._finished = True
        self._queue.clear()
        self._rest = b""
        if self._task is not None:
            self._task.cancel()

    def submit(self, request: Request) -> None:
        """Answer the request, after those before it."""
        if self._stalled:
            self._queue.append(request)
        elif not self._finished:
            self._answer(request)

    def _answer(self, request: Request) -> None:
        reply = self._ask(request) if request.refusal is None else request.refusal
        if isinstance(reply, bytes):
            self._send(reply, request)
        else:
            self._wait_for(reply, request)

    def _ask(self, request: Request) -> Answer:
        route = self._shared.routes.find(request.target)
        if route is None:
            return _NO_ROUTE
        if route.methods is not None and request.method not in route.methods:
            return _method_not_allowed(route)
        try:
            return route.handler(request.target, request.authorization, request.headers, request.body)
        except Exception as error:
            return failed(error)

    def _send(self, reply: bytes, request: Request) -> None:
        if request.method == b"HEAD":
            reply = replies.without_body(reply)
        if request.keep_alive and not (self._draining and not self._queue and not self._rest):
            self._transport.write(reply)
            return
        self._finished = True
        self._since = self._shared.clock.boottime()
        self._queue.clear()
        self._transport.write(replies.closing(reply))
        if request.refusal is None:
            self._transport.close()
        else:
            self._linger()

    def _linger(self) -> None:
        self._lingering = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()

    def _wait_for(self, reply: Coroutine[Any, Any, bytes], request: Request) -> None:
        self._asked = request
        self._since = self._shared.clock.boottime()
        self._stall()
        self._task = asyncio.get_running_loop().create_task(reply)
        self._task.add_done_callback(partial(self._waited, request))

    def _waited(self, request: Request, task: asyncio.Task[bytes]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if task is not self._task or self._finished:
            return  # Given up: answered already, or nobody is there.
        self._delivered(task.result() if error is None else failed(error), request)

    def _delivered(self, reply: bytes, request: Request) -> None:
        self._task = self._asked = None
        self._since = self._shared.clock.boottime()
        self._send(reply, request)
        self._advance()

    def _give_up_waiting(self) -> None:
        """Answer 503 in place of an answer that takes too long."""
        if self._task is not None and self._asked is not None:
            task, request = self._task, self._asked
            self._delivered(_UNAVAILABLE, request)
            task.cancel()

    def _stall(self) -> None:
        self._stalled = True
        if not self._lingering:
            self._transport.pause_reading()

    def _advance(self) -> None:
        """Go on with what has waited, as far as it goes."""
        self._stalled = self._blocked or self._task is not None
        while self._queue and self._may_go_on():
            self._answer(self._queue.popleft())
        if self._may_go_on():
            self._resume_parsing()
        if self._may_go_on():
            if self._draining or self._ended:
                self._transport.close()
            else:
                self._transport.resume_reading()

    def _may_go_on(self) -> bool:
        return not (self._stalled or self._finished)

    def _resume_parsing(self) -> None:
        """Parse what was read before a stall; the parsing half knows how."""
        raise NotImplementedError


def failed(error: BaseException) -> bytes:
    """Log what went wrong and return the 500; by kind and place alone: a message could hold a token."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    _log.error(REQUEST_FAILED, error=type(error).__name__, place=place)
    return _FAILED


def _method_not_allowed(route: Route) -> bytes:
    allowed = ", ".join(sorted(method.decode("ascii") for method in route.methods or READ))
    return replies.problem(405, f"this route answers {allowed}", [("Allow", allowed)])
