"""The short way: what a connection was answered once, it may ask again without the frame that costs most of the time.

A route whose answer was a yes may offer it: the same head again, byte for byte, with another body, goes from bytes to
bytes. Everything else goes the long way, by aiohttp, and so does the same request if the short way has no yes for it.
Only a connection on which each request so far was whole and of the plainest form has a short way at all: there is one
reading of where a request ends.
"""

import re
from collections.abc import Callable
from email.utils import formatdate
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from aiohttp import web

from keyturn import entropy
from keyturn.clock import Clock
from serving.problems import NO_STORE

Reply: TypeAlias = Callable[[bytes | None], None]
"""Is told the whole of an answer, once; None sends the request the long way."""

Answer: TypeAlias = Callable[[bytes, Reply], bool]
"""Takes a request's body, and has its reply told in a later turn of the loop; False for the long way at once."""

LONGEST_HEAD_BYTES: Final = 4096
_END: Final = b"\r\n\r\n"
# Each line is read in one way only: with two ways for one, twice as many are tried for each further line.
_HEAD = re.compile(rb"[A-Z]{1,16} /[!-~]{0,256} HTTP/1\.1\r\n((?:[A-Za-z-]{1,32}:[ -~]*\r\n)+)\r\n")
_LENGTH = re.compile(rb"[0-9]{1,5}")
# What says nothing of how the message is framed, or of another host's connection. Any other header: the long way.
_PLAIN_HEADERS = frozenset({
    b"accept", b"accept-encoding", b"accept-language", b"authorization", b"connection", b"content-length",
    b"content-type", b"host", b"user-agent",
})  # fmt: skip
_KEY_BYTES, _DIGEST_BYTES = 16, 16


class Way:
    """What one connection knows of its requests: one head, by its keyed hash, for it holds a secret."""

    __slots__ = ("_answer", "_digest", "_hasher", "_head_bytes", "_request_bytes")

    def __init__(self) -> None:
        self._hasher: Any = None
        self._digest = b""  # Of the head of the request that the frame got last, with the lengths of both.
        self._head_bytes = self._request_bytes = 0
        self._answer: Answer | None = None  # Once that one was answered with a yes.

    def ask(self, data: bytes, reply: Reply) -> bool:
        """Have a request answered whose head is known; False for the long way, and `reply` is told nothing."""
        if self._answer is None or len(data) != self._request_bytes:
            return False
        return self._hash(data[: self._head_bytes]) == self._digest and self._answer(data[self._head_bytes :], reply)

    def takes(self, data: bytes, *, alone: bool) -> bool:
        """Say whether this is one whole request of the plainest form, which the frame is about to get.

        Nothing is learned of requests that overlap (not `alone`): whose answer it was would be a guess.
        """
        self._digest, self._answer = b"", None
        if not is_plain(data):
            return False
        if alone:
            self._head_bytes, self._request_bytes = data.index(_END) + len(_END), len(data)
            self._digest = self._hash(data[: self._head_bytes])
        return True

    def learn(self, answer: Answer) -> None:
        """Take note that the request that the frame got last was answered with a yes."""
        if self._digest:
            self._answer = answer

    def _hash(self, head: bytes) -> bytes:
        if self._hasher is None:
            self._hasher = blake2b(digest_size=_DIGEST_BYTES, key=entropy.token_bytes(_KEY_BYTES))
        hasher = self._hasher.copy()
        hasher.update(head)
        digest: bytes = hasher.digest()
        return digest


def offer(request: web.Request, answer: Answer) -> None:
    """Let further requests of this connection, with this head byte for byte, be answered so.

    Only for a proof of who asks that holds again, word for word. `answer` sees to all that may have changed.
    """
    way = getattr(request.protocol, "way", None)
    if isinstance(way, Way):
        way.learn(answer)


def is_plain(data: bytes) -> bool:
    """Say whether these bytes are exactly one whole request whose end nobody could see elsewhere (RFC 9112, 6)."""
    end = data.find(_END) + len(_END)
    match = _HEAD.fullmatch(data, 0, end) if len(_END) <= end <= LONGEST_HEAD_BYTES else None
    if match is None:
        return False
    lines = [line.partition(b":") for line in match[1].split(b"\r\n")[:-1]]
    headers = {name.lower(): value.strip(b" ") for name, _, value in lines}
    length = headers.get(b"content-length", b"")
    return (
        len(headers) == len(lines)
        and headers.keys() <= _PLAIN_HEADERS
        and b"host" in headers
        and headers.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        and _LENGTH.fullmatch(length) is not None
        and int(length) == len(data) - end
    )


def last_of(reply: bytes) -> bytes:
    """Return a whole answer as one that tells of its connection's end (RFC 9112, 9.6)."""
    status, _, rest = reply.partition(b"\r\n")
    return status + b"\r\nConnection: close\r\n" + rest


class Replies:
    """Writes whole 200 answers, with the headers that the frame gives to theirs, in its order."""

    def __init__(self, clock: Clock, *, content_type: str) -> None:
        self._clock, self._second, self._date = clock, -1, b""
        fixed = {**NO_STORE, "Content-Type": content_type}
        self._fixed = "".join(f"{name}: {value}\r\n" for name, value in fixed.items()).encode("ascii")

    def ok(self, body: bytes) -> bytes:
        """Return a whole answer."""
        second = int(self._clock.now())
        if second != self._second:
            self._second, self._date = second, formatdate(second, usegmt=True).encode("ascii")
        return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\nDate: %b\r\nX-Content-Type-Options: nosniff\r\n\r\n%b" % (
            self._fixed, len(body), self._date, body,
        )  # fmt: skip
