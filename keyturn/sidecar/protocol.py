"""One HTTP/1.1 connection on httptools, with as little as possible between its bytes and a verdict."""

import asyncio
import re
from typing import cast

import httptools

from keyturn.sidecar import replies
from keyturn.sidecar.answering import Answering, Request, Shared, failed
from keyturn.sidecar.parser import DEAF, Parser
from keyturn.sidecar.routing import Header

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_VERSIONS = frozenset({"1.1", "1.0"})
_UNUSUAL = frozenset({b"connection", b"expect", b"transfer-encoding", b"upgrade"})
_CHUNKING_OVERHEAD = 4  # how many times its own size a chunked body may take on the wire
_UNKNOWN = re.compile(rb"(?!(?:GET|HEAD|POST|PUT|DELETE) )[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64} [^ \r\n]+ HTTP/1\.[01]\r\n")
"""A request line that is well formed but for its method; behind another request it just counts as malformed."""

_BAD = replies.problem(400, "this is not HTTP/1.1 as RFC 9112 writes it")
_UNKNOWN_METHOD = replies.problem(405, "unknown method", [("Allow", "GET, HEAD, POST")])
_TOO_SLOW = replies.problem(408, "the request took too long to arrive")
_BODY_TOO_LONG = replies.problem(413, "the body is too long")
_TARGET_TOO_LONG = replies.problem(414, "the request target is too long")
_NO_SUCH_EXPECTATION = replies.problem(417, "only 100-continue can be expected")
_HEADERS_TOO_LONG = replies.problem(431, "the header section is too long")
_OTHER_VERSION = replies.problem(505, "only HTTP/1.1 and HTTP/1.0 are spoken")
_UNAVAILABLE = replies.closing(replies.unavailable())


class _RefusedError(Exception):
    """Carries a refusal out of a parser callback; it never leaves this module."""

    def __init__(self, reply: bytes) -> None:
        super().__init__()
        self.reply = reply


class Connection(Answering):
    """One client connection: parses, routes, answers in order, and holds every limit of `Limits`."""

    __slots__ = (
        "_active",
        "_authorization",
        "_body",
        "_expects",
        "_headers",
        "_hosts",
        "_max_fields",
        "_most_target",
        "_parser",
        "_received",
        "_sealed",
        "_slice",
        "_swift",
        "_target",
        "_unusual",
    )

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._swift = shared.routes.swift
        self._max_fields = shared.limits.header_fields
        self._most_target = shared.limits.target_bytes
        self._slice = shared.limits.slice_bytes
        self._parser: Parser = DEAF
        self._active = False  # has answered something since the last sweep
        self._forget_request()

    def _forget_request(self) -> None:
        self._target = b""
        self._authorization: list[bytes] = []
        self._headers: list[Header] = []
        self._body = b""
        self._hosts = 0
        self._received = 0  # bytes since the request began, when it comes in pieces
        self._sealed: int | None = None  # how many fields came before a chunked body
        self._unusual = False
        self._expects = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many connections already."""
        self._transport = cast("asyncio.Transport", transport)
        shared = self._shared
        if len(shared.connections) >= shared.limits.connections:
            shared.turned_away += 1
            self._finished = True
            self._transport.write(_UNAVAILABLE)
            self._transport.close()
            return
        shared.connections.add(self)
        self._parser = httptools.HttpRequestParser(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and let go of the parser, which holds on to us."""
        self._parser = DEAF
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; the callbacks below answer."""
        if self._stalled or len(data) > self._slice:
            self._rest += data
            self._resume_parsing()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._parse_failed(error, data)
            return
        if self._target:
            self._in_pieces(len(data))

    def on_url(self, piece: bytes) -> None:
        """Take a piece of the target."""
        self._target += piece
        if len(self._target) > self._most_target:
            raise _RefusedError(_TARGET_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field, or a trailer field."""
        self._headers.append((name, value))
        # The usual spellings come first, since this runs for each field of each request.
        if name == b"Authorization":
            self._authorization.append(value)
        elif name == b"Host":
            self._hosts += 1
        else:
            self._on_unusual_spelling(name.lower(), value)

    def _on_unusual_spelling(self, name: bytes, value: bytes) -> None:
        if name == b"authorization":
            self._authorization.append(value)
        elif name == b"host":
            self._hosts += 1
        elif name in _UNUSUAL:
            self._unusual = True
            if name == b"expect":
                if value.strip().lower() != b"100-continue":
                    raise _RefusedError(_NO_SUCH_EXPECTATION)
                self._expects = True

    def on_chunk_header(self) -> None:
        """Note where the header section ended, so that a trailer never passes for a header."""
        if self._sealed is None:
            self._sealed = len(self._headers)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._unusual = True
        self._expects = False
        self._body += piece
        if len(self._body) > self._shared.limits.body_bytes:
            raise _RefusedError(_BODY_TOO_LONG)

    def on_message_complete(self) -> None:
        """Answer: at once if the request is plain and nothing stands before it, else the long way."""
        parser = self._parser
        handler = self._swift.get(self._target)
        if (
            handler is None
            or self._unusual
            or self._stalled
            or self._hosts != 1
            or len(self._headers) > self._max_fields
            or parser.get_method() != b"GET"
            or not parser.should_keep_alive()
        ):
            self._complete_unusual(parser)
            return
        reply = handler(self._target, self._authorization, self._headers, b"")
        if isinstance(reply, bytes):
            self._transport.write(reply)
        else:
            self._wait_for(reply, Request(method=b"GET", keep_alive=True))
        self._target = b""
        self._authorization = []
        self._headers = []
        self._hosts = 0
        self._active = True

    def _complete_unusual(self, parser: Parser) -> None:
        """Look at everything that a request may be, and hand it to the answering half."""
        if parser is DEAF:
            return
        version = parser.get_http_version()
        request = Request(
            self._target,
            parser.get_method(),
            self._authorization,
            self._headers,
            self._body,
            keep_alive=version == "1.1" and parser.should_keep_alive() and not self._draining,
            refusal=self._fault(version),
        )
        if request.refusal is not None or parser.should_upgrade():
            request.keep_alive = False  # What stands behind an upgrade is no HTTP: never parse it.
        if not request.keep_alive:
            self._parser = DEAF
        self._forget_request()
        self._active = True
        self.submit(request)

    def _fault(self, version: str) -> bytes | None:
        if version not in _VERSIONS:
            return _OTHER_VERSION
        if self._hosts > 1 or (self._hosts == 0 and version == "1.1"):
            return _BAD  # RFC 9112, 3.2
        if self._sealed is not None and self._sealed != len(self._headers):
            return _BAD  # A trailer: nothing here asks for one.
        size = sum(len(name) + len(value) + 4 for name, value in self._headers)
        if len(self._headers) > self._max_fields or size > self._shared.limits.header_bytes:
            return _HEADERS_TOO_LONG
        return None

    def _in_pieces(self, size: int) -> None:
        """Watch over a request that has begun and is not complete: its size, its time, its expectation."""
        limits = self._shared.limits
        if not self._received:
            self._since = self._shared.clock.boottime()
            self._received = 1  # What came so far is one slice at most, and may belong to requests before.
        else:
            self._received += size
        self._unusual = True
        allowed = limits.target_bytes + limits.header_bytes
        if self._body:
            allowed += _CHUNKING_OVERHEAD * limits.body_bytes
        if self._received > allowed:
            self._refuse(_BODY_TOO_LONG if self._body else _HEADERS_TOO_LONG)
        elif self._expects and not self._stalled:
            self._expects = False
            self._transport.write(_CONTINUE)

    def _parse_failed(self, error: Exception, data: bytes) -> None:
        if self._parser is DEAF:
            return  # Whatever follows the last request that counts is not ours to judge.
        cause = error.__context__
        if isinstance(cause, _RefusedError):
            self._refuse(cause.reply)
        elif isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
            self._refuse(failed(cause))
        elif isinstance(error, httptools.HttpParserInvalidMethodError) and _UNKNOWN.match(data):
            self._refuse(_UNKNOWN_METHOD)
        else:
            self._refuse(_BAD)

    def _refuse(self, reply: bytes) -> None:
        """Answer so, after what stands before it, and hear no more."""
        self._parser = DEAF
        self._forget_request()
        self.submit(Request(refusal=reply))

    def _resume_parsing(self) -> None:
        """Parse what was read, slice by slice, as far as back-pressure lets."""
        rest, self._rest = self._rest, b""
        while rest and not self._stalled and self._parser is not DEAF:
            piece, rest = rest[: self._slice], rest[self._slice :]
            self.data_received(piece)
        self._rest = b"" if self._parser is DEAF else rest

    def drain(self) -> None:
        """Close as soon as nothing is left to answer."""
        self._draining = True
        self._swift = {}
        if not self._target and not self._stalled and not self._finished:
            self._finished = True
            self._since = self._shared.clock.boottime()
            self._transport.close()

    def abort(self) -> None:
        """Close at once, whatever is unanswered."""
        self._transport.abort()

    def sweep(self, now: float) -> None:
        """Hold the deadlines; called every `sweep_seconds`."""
        limits = self._shared.limits
        if self._active:
            self._active = False
            if not self._stalled and not self._target:
                self._since = now
                return
        silence = now - self._since
        if self._finished:
            if silence > (limits.linger_seconds if self._lingering else limits.write_seconds):
                self._transport.abort()
        elif self._task is not None:
            if silence > limits.reply_seconds:
                self._give_up_waiting()
        elif self._blocked:
            if silence > limits.write_seconds:
                self._transport.abort()
        elif self._target:
            if silence > limits.request_seconds:
                self._refuse(_TOO_SLOW)
        elif silence > limits.idle_seconds:
            self._transport.close()
