"""The sidecar's HTTP as a well-meaning client meets it."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from tests.sidecar.wire import Client, FakeSidecar, fake_sidecar
from tests.waiting import eventually

GOOD = b"GET /nginx/default HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n"
BAD = b"GET /nginx/default HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer bad\r\n\r\n"
SLOW = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


async def test_one_connection_serves_many_requests(sidecar: FakeSidecar) -> None:
    """A gateway keeps its connections; opening one for each request would cost more than the answer."""
    client = await sidecar.connect()
    statuses = [(await client.ask(raw)).status for raw in (GOOD, BAD, GOOD)]
    assert statuses == [200, 401, 200]
    assert sidecar.listener.connections == 1


async def test_an_allow_has_no_body_and_every_identity_header(sidecar: FakeSidecar) -> None:
    """A header that is missing would let the client's own one through to the back end."""
    reply = await (await sidecar.connect()).ask(GOOD)
    assert reply.status == 200
    assert reply.headers["content-length"] == "0"
    assert reply.headers["x-auth-subject"] == "alice"
    assert reply.headers["x-auth-client"] == ""
    assert reply.headers["x-auth-state"] == "fresh"


async def test_pipelined_requests_are_answered_in_their_order(sidecar: FakeSidecar) -> None:
    """An answer in the wrong place would let one client in with another one's token."""
    client = await sidecar.connect()
    client.send(GOOD + BAD + GOOD + BAD)
    assert [(await client.reply()).status for _ in range(4)] == [200, 401, 200, 401]


async def test_a_slow_answer_holds_back_the_ones_behind_it(sidecar: FakeSidecar) -> None:
    """HTTP/1.1 has no other way to say which answer belongs to which request."""
    client = await sidecar.connect()
    client.send(GOOD + SLOW + BAD + SLOW + GOOD)
    assert (await client.reply()).status == 200
    await eventually(lambda: sidecar.waiting == 1, within_seconds=5)
    assert len(sidecar.seen) == 1  # What stands behind the slow one has not been asked yet.
    sidecar.gate.set()
    answers = [await client.reply() for _ in range(4)]
    assert [(reply.status, reply.body) for reply in answers] == [(200, b"slow"), (401, b""), (200, b"slow"), (200, b"")]


async def test_more_pipelined_requests_than_one_slice_holds_are_all_answered(sidecar: FakeSidecar) -> None:
    """What back-pressure puts aside must come back, whole and in order."""
    client = await sidecar.connect()
    sidecar.gate.set()
    client.send((GOOD + BAD + SLOW) * 2000)
    statuses = [(await client.reply()).status for _ in range(6000)]
    assert statuses == [200, 401, 200] * 2000


async def test_a_request_that_comes_byte_by_byte_is_understood(sidecar: FakeSidecar) -> None:
    """TCP promises bytes, not messages."""
    client = await sidecar.connect()
    raw = b"GET /nginx/default?x=1 HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nAuthorization: Bearer good\r\n\r\n"
    for byte in raw + GOOD:
        client.send(bytes([byte]))
        await client.writer.drain()
        await asyncio.wait_for(sidecar.clock.sleep(0), 1)
    assert [(await client.reply()).status for _ in range(2)] == [200, 200]


async def test_head_gets_the_headers_and_no_body(sidecar: FakeSidecar) -> None:
    """A body after HEAD would be read as the next answer."""
    client = await sidecar.connect()
    client.send(b"HEAD /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" + GOOD)
    reply = await client.reply(head=True)
    assert reply.status == 404
    assert int(reply.headers["content-length"]) > 0
    assert (await client.reply()).status == 200


async def test_a_client_that_wants_to_close_is_told_and_obeyed(sidecar: FakeSidecar) -> None:
    """`Connection: close` ends the connection after the answer, whatever is sent behind it."""
    client = await sidecar.connect()
    reply = await client.ask(GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GOOD)
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await client.is_closed()


async def test_http_1_0_is_answered_and_closed(sidecar: FakeSidecar) -> None:
    """By default nginx speaks it to a server; it needs no Host."""
    client = await sidecar.connect()
    reply = await client.ask(
        b"GET /nginx/default HTTP/1.0\r\nAuthorization: Bearer good\r\nConnection: keep-alive\r\n\r\n"
    )
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await client.is_closed()


async def test_a_client_that_stops_talking_still_gets_its_answers(sidecar: FakeSidecar) -> None:
    """`nc` and simple probes half-close after the request."""
    client = await sidecar.connect()
    client.send(SLOW + GOOD * 300 + BAD)
    client.writer.write_eof()
    await eventually(lambda: sidecar.waiting == 1, within_seconds=5)
    sidecar.gate.set()
    assert [(await client.reply()).status for _ in range(302)] == [200] * 301 + [401]
    assert await client.is_closed()


async def test_a_body_arrives_whole_by_length_or_in_chunks(sidecar: FakeSidecar) -> None:
    """A client library chooses either for a form."""
    client = await sidecar.connect()
    by_length = await client.ask(b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\ntoken=a")
    chunked = await client.ask(
        b"POST /form HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ntoken\r\n2\r\n=b\r\n0\r\n\r\n"
    )
    assert (by_length.body, chunked.body) == (b"token=a", b"token=b")


async def test_a_client_that_expects_100_continue_is_told_to_go_on(sidecar: FakeSidecar) -> None:
    """Without it curl waits a second before it sends a long form."""
    client = await sidecar.connect()
    client.send(b"POST /form HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert (await client.reply()).status == 100
    assert (await client.ask(b"abc")).body == b"abc"
    assert (await client.ask(GOOD)).status == 200


async def test_an_offer_to_upgrade_is_declined_and_nothing_behind_it_is_read(sidecar: FakeSidecar) -> None:
    """What follows an upgrade may be a body or another protocol: reading it as requests would be smuggling."""
    client = await sidecar.connect()
    reply = await client.ask(
        b"GET /nginx/default HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Authorization: Bearer good\r\nContent-Length: 70\r\n\r\n" + GOOD
    )
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await client.is_closed()
    assert len(sidecar.seen) == 1


async def test_a_handler_that_fails_is_a_500_and_its_words_are_not_logged(
    sidecar: FakeSidecar, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error's text may hold a piece of a token; its kind and place are enough to find it."""
    for target in (b"/broken", b"/broken-later"):
        client = await sidecar.connect()
        reply = await client.ask(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert reply.status == 500
        assert b"abc.def.ghi" not in reply.body
    output = "".join(capsys.readouterr())
    assert output.count("request_failed") == 2
    assert output.count("RuntimeError") == 2
    assert "abc.def.ghi" not in output


def test_it_runs_the_same_on_uvloop() -> None:
    """The product runs on uvloop, whose transports are not asyncio's own."""

    async def converse() -> list[int]:
        async with fake_sidecar() as sidecar:
            sidecar.gate.set()
            client = await sidecar.connect()
            client.send(GOOD + SLOW + BAD + b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n" + GOOD + b"nonsense\r\n\r\n")
            statuses = [(await client.reply()).status for _ in range(6)]
            assert await client.is_closed()
            return statuses

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(converse()) == [200, 200, 401, 200, 200, 400]


async def test_a_unix_socket_speaks_the_same(sidecar: FakeSidecar, tmp_path: Path) -> None:
    """Beside its API the sidecar needs no port."""
    path = tmp_path / "sidecar.sock"
    await sidecar.listener.open_unix(path)
    client = Client(*await asyncio.open_unix_connection(str(path)))
    assert (await client.ask(GOOD)).status == 200
    await client.close()
