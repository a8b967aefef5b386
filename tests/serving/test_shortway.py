"""The short way past the frame: one reading of where a request ends, and nothing learned by guessing."""

import pytest

from keyturn.clock import SystemClock
from serving.shortway import LONGEST_HEAD_BYTES, Replies, Reply, Way, is_plain

HEADERS = b"Host: x\r\nAuthorization: Basic abc\r\nContent-Type: application/x-www-form-urlencoded\r\n"


def request(body: bytes = b"token=1", *, headers: bytes = HEADERS, length: bytes | None = None) -> bytes:
    """Return a request with that body, and the length that it really has unless told otherwise."""
    stated = b"%d" % len(body) if length is None else length
    return b"POST /introspect HTTP/1.1\r\n" + headers + b"Content-Length: " + stated + b"\r\n\r\n" + body


class Answers:
    """Stands for a route's answer: keeps what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def __call__(self, body: bytes, _reply: Reply) -> bool:
        """Take a body."""
        self.bodies.append(body)
        return True


def finds(way: Way, data: bytes) -> bool:
    """Say whether the way takes a request."""
    return way.ask(data, lambda _answer: None)


@pytest.mark.parametrize("more", [b"", b"Accept: */*\r\nUser-Agent: a/1\r\n", b"connection: Keep-Alive\r\n"])
def test_a_whole_request_of_usual_headers_is_plain(more: bytes) -> None:
    """What usual clients send on a connection that they keep."""
    assert is_plain(request(headers=HEADERS + more))


@pytest.mark.parametrize(
    "data",
    [
        request(headers=HEADERS + b"Transfer-Encoding: chunked\r\n"),
        request(headers=HEADERS + b"transfer-encoding : chunked\r\n"),
        request(headers=HEADERS + b"Content-Length: 7\r\n"),
        request(headers=HEADERS + b"Host: y\r\n"),
        request(headers=HEADERS + b"Connection: close\r\n"),
        request(headers=HEADERS + b"Connection: keep-alive, x\r\n"),
        request(headers=HEADERS + b"Upgrade: h2c\r\n"),
        request(headers=HEADERS + b"Expect: 100-continue\r\n"),
        request(headers=HEADERS + b"X-Anything: 1\r\n"),
        request(headers=HEADERS + b"Accept: a\r\n folded\r\n"),
        request(headers=HEADERS + b"Accept: a\nContent-Length: 3\r\n"),
        request(headers=HEADERS + b"Accept: \xff\r\n"),
        request(headers=HEADERS + b"Accept: \x00\r\n"),
        request(headers=HEADERS.replace(b"Host: x\r\n", b"")),
        request(length=b"+7"),
        request(length=b"7 7"),
        request(length=b"0x7"),
        request(length=b"7,7"),
        request(length=b"6"),
        request(length=b"8"),
        request(length=b""),
        request(length=b"007777"),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request().replace(b"HTTP/1.1", b"HTTP/2.0"),
        request().replace(b"POST /introspect", b"POST  /introspect"),
        request().replace(b"\r\n", b"\n"),
        b"\r\n" + request(),
        request() + request(),
        request()[:-1],
        request()[:40],
        request(headers=HEADERS + b"Accept: " + b"a" * LONGEST_HEAD_BYTES + b"\r\n"),
        b"",
    ],
)
def test_what_two_readers_could_read_in_two_ways_is_not(data: bytes) -> None:
    """RFC 9112, 6.3 and 11.2: a second reader that sees another end of a request smuggles one in."""
    assert not is_plain(data)


@pytest.mark.parametrize("last", [b"B\0: y", b"B: \0", b"B y", b" folded", b"B:"])
def test_no_head_takes_long_to_read(last: bytes) -> None:
    """One packet of a stranger's must not hold everybody up: what does not match is not tried in every way there is."""
    head = b"GET / HTTP/1.1\r\n" + b"A: x\r\n" * 24 + last + b"\r\n\r\n"
    clock = SystemClock()
    began = clock.boottime()
    assert not is_plain(head)
    assert clock.boottime() - began < 5  # Not a matter of milliseconds: with two ways for a line it is fifteen seconds.


def test_only_the_same_head_finds_the_answer() -> None:
    """A head that differs in a byte of the same length is another caller's."""
    way, answer = Way(), Answers()
    assert way.takes(request(b"token=1"), alone=True)
    assert not finds(way, request(b"token=2"))  # It has not been answered yet.
    way.learn(answer)
    for other in (request(headers=HEADERS.replace(b"abc", b"abd")), request(b"token=12"), b"x" * len(request())):
        assert not finds(way, other)
    assert finds(way, request(b"token=2"))
    assert answer.bodies == [b"token=2"]


def test_nothing_is_learned_of_requests_that_overlap() -> None:
    """The yes to the first must not vouch for the head of the second, which another may have sent by the same proxy."""
    way = Way()
    first, second = request(), request(headers=HEADERS.replace(b"abc", b"abd"))
    assert way.takes(first, alone=True)
    assert way.takes(second, alone=False)
    way.learn(Answers())
    assert not finds(way, second)
    assert not finds(way, first)


def test_what_is_known_ends_with_the_next_request_of_another_form() -> None:
    """A connection knows one head at a time: the limit on what grows."""
    way = Way()
    way.takes(request(), alone=True)
    way.learn(Answers())
    other = request(headers=HEADERS.replace(b"abc", b"abd"))
    assert way.takes(other, alone=True)
    assert not finds(way, request())
    assert not finds(way, other)  # Which was answered with a no: the yes before it was to another.
    assert not way.takes(b"GET", alone=True)
    way.learn(Answers())
    assert not finds(way, request())


def test_no_secret_is_kept_with_the_connection() -> None:
    """The head carries the caller's secret: only a keyed hash of it stays."""
    way = Way()
    way.takes(request(headers=HEADERS.replace(b"abc", b"c2VjcmV0")), alone=True)
    way.learn(Answers())
    kept = [getattr(way, name) for name in Way.__slots__]
    assert "c2VjcmV0" not in repr(kept)


def test_a_reply_is_whole_and_dated() -> None:
    """RFC 9110, 6.6.1: an origin server with a clock says when; RFC 7662, 4: nothing keeps the answer."""
    raw = Replies(SystemClock(), content_type="application/json").ok(b"{}")
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    names = {line.partition(b":")[0].lower() for line in lines}
    assert (status, body) == (b"HTTP/1.1 200 OK", b"{}")
    assert names == {
        b"cache-control",
        b"pragma",
        b"content-type",
        b"content-length",
        b"date",
        b"x-content-type-options",
    }
