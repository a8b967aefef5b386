"""The sidecar's HTTP as a careless, slow or hostile client meets it."""

import asyncio

import pytest

from keyturn.sidecar.limits import Limits
from tests.sidecar.wire import FakeSidecar, fake_sidecar
from tests.waiting import eventually

HOST = b"Host: a\r\n"
GOOD = b"GET /nginx/default HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = b"POST /form HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"

MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no host": b"GET /nginx/default HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /nginx/default HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a space before the colon": b"GET /nginx/default HTTP/1.1\r\nHost : a\r\n\r\n",
    "a folded header": b"GET /nginx/default HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
    "bare line feeds": b"GET /nginx/default HTTP/1.1\nHost: a\n\n",
    "a NUL in a header": b"GET /nginx/default HTTP/1.1\r\nHost: a\r\nX-A: b\x00c\r\n\r\n",
    "a NUL in the target": b"GET /nginx/\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "two lengths": b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
    "length and chunks": CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "a chunk that is longer than it says": CHUNKED + b"\r\n1\r\nab\r\n0\r\n\r\n",
    "a trailer that poses as a header": CHUNKED + b"\r\n1\r\na\r\n0\r\nAuthorization: Bearer good\r\n\r\n",
    "chunked, and then something else": CHUNKED.replace(b"chunked", b"chunked, gzip") + b"\r\n0\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_malformed_is_400_and_closes(sidecar: FakeSidecar, raw: bytes) -> None:
    """After a framing error nobody knows where the next request begins: guessing is how requests get smuggled."""
    client = await sidecar.connect()
    reply = await client.ask(raw)
    assert (reply.status, reply.headers["connection"]) == (400, "close")
    assert await client.is_closed()
    assert sidecar.seen == []


async def test_good_requests_before_a_malformed_one_are_answered_first(sidecar: FakeSidecar) -> None:
    """A refusal takes its place in the order, behind a slow answer too."""
    client = await sidecar.connect()
    client.send(GOOD + SLOW + b"nonsense\r\n\r\n" + GOOD)
    assert (await client.reply()).status == 200
    sidecar.gate.set()
    assert [(await client.reply()).status for _ in range(2)] == [200, 400]
    assert await client.is_closed()


@pytest.mark.parametrize("version", [b"0.9", b"2.0"])
async def test_another_version_is_505(sidecar: FakeSidecar, version: bytes) -> None:
    """Only HTTP/1.1 and 1.0 have the framing that is understood here."""
    client = await sidecar.connect()
    reply = await client.ask(b"GET /nginx/default HTTP/" + version + b"\r\nHost: a\r\n\r\n")
    assert reply.status == 505
    assert await client.is_closed()


@pytest.mark.parametrize(
    "target",
    [
        b"/",
        b"/nginx",
        b"/nginx/",
        b"/nginx/default/",
        b"/nginx/default/x",
        b"//nginx/default",
        b"/nginx//default",
        b"/NGINX/default",
        b"/nginx/%64efault",
        b"/nginx/./default",
        b"/x/../nginx/default",
        b"/nginx/default%3Fx",
        b"/nginx/default;x",
        b"/nginx/default#x",
        b"http://a/nginx/default",
        b"/traefik/default",
        b"/envoy/weak/",
    ],
)
async def test_only_the_exact_bytes_of_a_route_reach_it(sidecar: FakeSidecar, target: bytes) -> None:
    """Decoding or normalising a path is how a request gets judged by a weaker policy than its own."""
    client = await sidecar.connect()
    reply = await client.ask(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n")
    assert reply.status == 404
    assert (await client.ask(GOOD)).status == 200  # A wrong path is no reason to close.


async def test_a_query_behind_the_policy_is_ignored(sidecar: FakeSidecar) -> None:
    """Some gateways append the client's own query: it must choose nothing."""
    client = await sidecar.connect()
    raw = GOOD.replace(b"/nginx/default", b"/nginx/default?policy=weak&/nginx/weak")
    assert (await client.ask(raw)).status == 200


async def test_a_path_behind_a_prefix_changes_nothing(sidecar: FakeSidecar) -> None:
    """Envoy appends the client's path: `..` in it is just bytes, and any method may come."""
    client = await sidecar.connect()
    for target in (b"/envoy/strict/", b"/envoy/strict/../../nginx/default", b"/envoy/strict//x?/envoy/weak/"):
        reply = await client.ask(b"DELETE " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert reply.body == b"envoy strict"


async def test_a_wrong_method_is_405_and_names_the_right_ones(sidecar: FakeSidecar) -> None:
    """RFC 9110, 15.5.6: a 405 carries Allow."""
    client = await sidecar.connect()
    reply = await client.ask(b"DELETE /nginx/default HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    reply = await client.ask(b"GET /form HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    reply = await client.ask(b"BREW /nginx/default HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST")


async def test_connect_opens_no_tunnel(sidecar: FakeSidecar) -> None:
    """The sidecar is no proxy."""
    client = await sidecar.connect()
    reply = await client.ask(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n" + GOOD)
    assert reply.status == 404
    assert await client.is_closed()


async def test_an_unknown_expectation_is_417(sidecar: FakeSidecar) -> None:
    """RFC 9110, 10.1.1."""
    client = await sidecar.connect()
    assert (await client.ask(b"GET /nginx/default HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n")).status == 417
    assert await client.is_closed()


LIMITS = Limits()
OVERSIZED = {
    "a target in one piece": (414, b"GET /" + b"a" * LIMITS.target_bytes + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target without an end": (414, b"GET /" + b"a" * 200_000),
    "too many fields": (431, b"GET /nginx/default HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n"),
    "a long field": (431, b"GET /nginx/default HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 32_768 + b"\r\n\r\n"),
    "a field without an end": (431, b"GET /nginx/default HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 200_000),
    "a name without an end": (431, b"GET /nginx/default HTTP/1.1\r\nHost: a\r\n" + b"a" * 200_000),
    "a body by length": (413, b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + b"a" * 70_000),
    "a body in chunks": (413, CHUNKED + b"\r\n11170\r\n" + b"a" * 70_000),
    "a body of tiny chunks": (413, CHUNKED + b"\r\n" + b"1\r\na\r\n" * 66_000),
    "a chunk extension without an end": (413, CHUNKED + b"\r\n1\r\na\r\n1;" + b"a" * 400_000),
}


@pytest.mark.parametrize(("status", "raw"), OVERSIZED.values(), ids=OVERSIZED.keys())
async def test_what_is_too_long_is_refused_and_closes(sidecar: FakeSidecar, status: int, raw: bytes) -> None:
    """Whatever grows has a limit; the refusal arrives although the client is still sending."""
    client = await sidecar.connect()
    reply = await client.ask(raw)
    assert (reply.status, reply.headers["connection"]) == (status, "close")
    assert await client.is_closed()


async def test_what_is_just_within_the_limits_is_served(sidecar: FakeSidecar) -> None:
    """A limit that is documented may be used up."""
    client = await sidecar.connect()
    query = b"?" + b"a" * (LIMITS.target_bytes - len(b"/nginx/default") - 1)
    fields = b"".join(b"X-%02d: %s\r\n" % (number, b"a" * 320) for number in range(98))
    raw = b"GET /nginx/default" + query + b" HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n" + fields + b"\r\n"
    assert (await client.ask(GOOD * 20 + raw)).status == 200
    for _ in range(20):
        assert (await client.reply()).status == 200
    body = b"a" * LIMITS.body_bytes
    reply = await client.ask(b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n" + body)
    assert reply.body == body


async def test_one_connection_too_many_is_503_and_does_not_hurt_the_others() -> None:
    """The limit protects those who are already there."""
    async with fake_sidecar(Limits(connections=2)) as sidecar:
        first, second = await sidecar.connect(), await sidecar.connect()
        assert (await first.ask(GOOD)).status == (await second.ask(GOOD)).status == 200
        third = await sidecar.connect()
        reply = await third.reply()
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert await third.is_closed()
        assert (await first.ask(GOOD)).status == 200
        assert sidecar.listener.turned_away == 1
        await first.close()
        await eventually(lambda: sidecar.listener.connections == 1, within_seconds=5)
        assert (await (await sidecar.connect()).ask(GOOD)).status == 200


async def test_a_request_that_does_not_end_is_408(sidecar: FakeSidecar) -> None:
    """A byte now and then keeps nobody's connection alive."""
    client = await sidecar.connect()
    client.send(GOOD + b"GET /nginx/default HT")
    assert (await client.reply()).status == 200
    for piece in (b"TP/1.1\r\n", b"Host: a\r\n"):
        sidecar.pass_time(5)
        client.send(piece)
        await client.writer.drain()
    sidecar.pass_time(5.1)
    assert (await client.reply()).status == 408
    assert await client.is_closed()


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(sidecar: FakeSidecar) -> None:
    """Longer than a gateway keeps its own, so that it never meets a connection that dies under a request."""
    idle, busy = await sidecar.connect(), await sidecar.connect()
    assert (await idle.ask(GOOD)).status == 200
    sidecar.pass_time(1)
    for _ in range(5):
        assert (await busy.ask(GOOD)).status == 200
        sidecar.pass_time(30)
    assert await idle.is_closed()
    assert (await busy.ask(GOOD)).status == 200


async def test_an_answer_that_takes_too_long_becomes_503(sidecar: FakeSidecar) -> None:
    """A gateway that hangs is worse than one that says: not now."""
    client = await sidecar.connect()
    client.send(SLOW + GOOD)
    await eventually(lambda: sidecar.waiting == 1, within_seconds=5)
    sidecar.pass_time(10.1)
    reply = await client.reply()
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert (await client.reply()).status == 200
    await eventually(lambda: sidecar.cancelled == 1, within_seconds=5)


async def test_a_client_that_goes_away_ends_the_wait_for_its_answer(sidecar: FakeSidecar) -> None:
    """Nobody is left to tell."""
    client = await sidecar.connect()
    client.send(SLOW)
    await eventually(lambda: sidecar.waiting == 1, within_seconds=5)
    client.writer.transport.abort()
    sidecar.pass_time(10.1)
    await eventually(lambda: sidecar.cancelled == 1, within_seconds=5)


async def test_a_client_that_reads_nothing_is_not_read_from_and_then_dropped(sidecar: FakeSidecar) -> None:
    """Answers that nobody takes must not fill the memory."""
    client = await sidecar.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    client.send(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
    client.send(GOOD * 10)
    await eventually(lambda: sidecar.listener.blocked == 1, within_seconds=5)
    assert sidecar.seen == []
    sidecar.pass_time(30.1)
    await eventually(lambda: sidecar.listener.connections == 0, within_seconds=5)


async def test_a_client_that_reads_late_gets_everything(sidecar: FakeSidecar) -> None:
    """Back-pressure delays; it loses nothing."""
    client = await sidecar.connect()
    client.send(b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n" * 30 + GOOD)
    await eventually(lambda: sidecar.listener.blocked == 1, within_seconds=5)
    assert [len((await client.reply()).body) for _ in range(31)] == [1024 * 1024] * 30 + [0]


async def test_closing_lets_a_request_be_answered_first(sidecar: FakeSidecar) -> None:
    """A restart of the sidecar must not become an error of the API."""
    idle, busy = await sidecar.connect(), await sidecar.connect()
    assert (await idle.ask(GOOD)).status == 200
    busy.send(SLOW)
    await eventually(lambda: sidecar.waiting == 1, within_seconds=5)
    closing = asyncio.create_task(sidecar.listener.close(drain_seconds=5))
    assert await idle.is_closed()
    sidecar.gate.set()
    reply = await busy.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await busy.is_closed()
    await eventually(lambda: sidecar.listener.connections == 0, within_seconds=5)
    sidecar.clock.advance(1)
    await closing


async def test_closing_waits_no_longer_than_it_was_told(sidecar: FakeSidecar) -> None:
    """One answer that never comes must not keep a process from ending."""
    client = await sidecar.connect()
    client.send(SLOW)
    await eventually(lambda: sidecar.waiting == 1, within_seconds=5)
    closing = asyncio.create_task(sidecar.listener.close(drain_seconds=5))
    await eventually(lambda: sidecar.clock.sleepers > 1, within_seconds=5)
    sidecar.clock.advance(5.1)
    await closing
    assert await client.is_closed()
