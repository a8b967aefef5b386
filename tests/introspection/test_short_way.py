"""The short way of a connection that was answered before: the same answers, and only ever a yes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from introspection.app import IntrospectionService
from introspection.judge import Judge
from introspection.memory import Remembered
from keyturn import entropy
from keyturn.contract.selectors import SelectorKind
from keyturn.contract.trust import Trust
from keyturn.verifier.verdict import Verdict
from serving.application import RequestNotes
from serving.authentication import Caller
from serving.shortway import Reply, Way
from tests.building import RESOURCE, SECRETS, FickleRedis, Standing, basic, new_access_token, serving_at
from tests.clocks import LeapingClock
from tests.introspection.conftest import OTHER
from tests.waiting import eventually

INACTIVE = b'{"active":false}'
ACTIVE = b'"active":true'
Exchange = Callable[[bytes], Awaitable[tuple[int, dict[bytes, bytes], bytes]]]


class Wire:
    """One connection, spoken to in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, token: str, **changes: Any) -> tuple[int, dict[bytes, bytes], bytes]:
        """Ask about a token, and return status, headers and body."""
        self.writer.write(question(token, **changes))
        return await self.answer()

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """Read one answer."""
        async with asyncio.timeout(10):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, *lines = head.split(b"\r\n")[:-2]
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
            body = await self.reader.readexactly(int(headers[b"content-length"]))
        return int(status.split(b" ")[1]), headers, body


def question(token: str, *, caller: str = RESOURCE, more: bytes = b"", body: bytes = b"") -> bytes:
    """Return a whole request."""
    body = body or b"token=" + token.encode()
    proof = basic(caller, SECRETS[RESOURCE]).popitem()[1].encode()  # Every resource server's here.
    return (
        b"POST /introspect HTTP/1.1\r\nHost: x\r\nAuthorization: " + proof + b"\r\n" + more
        + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )  # fmt: skip


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note for each request whether the short way was tried."""
    tried: list[bool] = []
    ask = Way.ask

    def noted(self: Way, data: bytes, reply: Reply) -> bool:
        tried.append(ask(self, data, reply))
        return tried[-1]

    monkeypatch.setattr(Way, "ask", noted)
    return tried


@pytest.fixture
def service(stage: Standing, tmp_path: Path) -> IntrospectionService:
    """Return the introspection service."""
    return IntrospectionService(stage.settings(tmp_path), stage.parts)


@pytest.fixture
async def wire(stage: Standing, service: IntrospectionService, short: list[bool]) -> AsyncIterator[Wire]:
    """Serve it, and connect to it."""
    async with serving_at([service], stage.parts) as session:
        url = session._base_url
        assert url is not None
        reader, writer = await asyncio.open_connection(url.host, url.port)
        yield Wire(reader, writer)
        writer.close()


async def test_the_short_way_gives_the_answer_of_the_long_one(wire: Wire, stage: Standing, short: list[bool]) -> None:
    """Status, headers, their order, and body are the same, but for the date: nobody sees which way it came."""
    token = await stage.put_opaque()
    answers = [await wire.ask(token) for _ in range(3)]
    assert short == [False, True, True]
    assert [*answers[0][1]] == [*answers[1][1]] == [*answers[2][1]]
    for status, headers, body in answers:
        assert status == 200
        assert ACTIVE in body
        assert headers.pop(b"date").endswith(b"GMT")
        assert headers[b"cache-control"] == b"no-store"
    assert answers[0] == answers[1] == answers[2]


async def test_another_token_of_the_same_caller_takes_it_too(wire: Wire, stage: Standing, short: list[bool]) -> None:
    """A head is known, not a token; what is not remembered goes the long way, and comes back."""
    first, second = await stage.put_opaque(sub="alice"), await stage.put_opaque(sub="bob")
    for token, name in ((first, b"alice"), (second, b"bob"), (first, b"alice"), (second, b"bob")):
        assert b'"sub":"%b"' % name in (await wire.ask(token))[2]
    assert short == [False, False, True, True]


async def test_what_was_revoked_is_told_so_on_the_short_way(wire: Wire, stage: Standing, short: list[bool]) -> None:
    """ADR 0005 holds on each way: the replica hears nothing by itself here."""
    jti = entropy.uuid7(1)
    token = await stage.put_opaque(jti=jti)
    for _ in range(2):
        assert ACTIVE in (await wire.ask(token))[2]
    await stage.revoke(stage.world.entry(SelectorKind.JTI, jti), elsewhere=True)
    assert (await wire.ask(token))[2] == INACTIVE
    assert short == [False, True, True]


async def test_exp_and_the_store_count_on_the_short_way(
    wire: Wire, stage: Standing, clock: LeapingClock, store: FickleRedis
) -> None:
    """Checklist (6), (10), RFC 9110, 15.6.4, RFC 7662, 4: 503 without the store, and `exp` on each answer."""
    token = await stage.put_opaque(exp=int(clock.now()) + 2)
    assert ACTIVE in (await wire.ask(token))[2]
    store.away = True
    status, headers, body = await wire.ask(token)
    assert (status, headers[b"retry-after"], body) == (503, b"1", b'{"error":"temporarily_unavailable"}')
    store.away = False
    assert ACTIVE in (await wire.ask(token))[2]
    clock.ahead_seconds = 2 + stage.parts.skew_seconds
    assert (await wire.ask(token))[2] == INACTIVE


async def test_who_asks_is_proved_for_each_other_head(wire: Wire, stage: Standing, short: list[bool]) -> None:
    """Behind a proxy one connection carries many callers: a head that differs in one byte is nobody's yet."""
    token = await stage.put_opaque()
    for _ in range(2):
        assert ACTIVE in (await wire.ask(token))[2]
    request = question(token)
    proof = request.index(b"Basic ") + 20
    wrong = request[:proof] + bytes([request[proof] ^ 1]) + request[proof + 1 :]
    for _ in range(2):
        wire.writer.write(wrong)
        assert (await wire.answer())[0] == 401
    assert (await wire.ask(token, caller=OTHER))[2] == INACTIVE
    assert ACTIVE in (await wire.ask(token))[2]
    assert short == [False, True, False, False, False, False]


def drop_resource(stage: Standing) -> None:
    """Give the replica a trust document of the root's that has no such client any more."""
    replica = stage.parts.replica
    document = replica.trust.document
    clients = {name: one for name, one in document.clients.items() if name != RESOURCE}
    replica.trust = Trust(
        type(document)(**{name: getattr(document, name) for name in document.__struct_fields__} | {"clients": clients}),
        replica.trust.compact, roots=replica.trust.roots,
    )  # fmt: skip


async def test_who_is_dropped_while_the_long_way_asks_the_store_is_not_known_by_the_new_document(
    wire: Wire, stage: Standing, short: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 7662, 2.3: the proof was by the old trust document, and the new one has no such caller."""
    token = await stage.put_opaque()
    judge = Judge.judge

    async def slowly(self: Judge, token: str, caller: Caller) -> Verdict:
        verdict = await judge(self, token, caller)
        drop_resource(stage)
        return verdict

    monkeypatch.setattr(Judge, "judge", slowly)
    assert (await wire.ask(token))[0] == 200
    assert (await wire.ask(token))[0] == 401
    assert short == [False, False]


async def test_who_is_dropped_while_the_short_way_asks_the_store_is_told_nothing(
    wire: Wire, stage: Standing, short: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 7662, 2.3: the replica hears of a new trust document in the same moment as of what was revoked."""
    token = await stage.put_opaque()
    assert (await wire.ask(token))[0] == 200
    follow = Judge.follow

    async def hearing(self: Judge) -> float | None:
        now = await follow(self)
        drop_resource(stage)
        return now

    monkeypatch.setattr(Judge, "follow", hearing)
    assert (await wire.ask(token))[0] == 401
    assert short == [False, True]


async def test_another_trust_document_ends_what_a_connection_knows_of_its_caller(
    wire: Wire, stage: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist (2), RFC 7662, 2.3: who was dropped by the root is refused on connections that stand, too."""
    token = await stage.put_opaque()
    for _ in range(2):
        assert ACTIVE in (await wire.ask(token))[2]
    drop_resource(stage)
    assert (await wire.ask(token))[0] == 401


@pytest.mark.parametrize(
    "more",
    [b"Transfer-Encoding: chunked\r\n", b"X-Forwarded-For: x\r\n", b"Expect: 100-continue\r\n", b"Host: y\r\n",
     b"Connection: close\r\n", b"Content-Length: 3\r\n", b"Connection : keep-alive\r\n", b"Accept: a\r\n b\r\n"],
)  # fmt: skip
async def test_a_request_that_is_not_of_the_plainest_form_never_takes_it(
    wire: Wire, stage: Standing, short: list[bool], more: bytes
) -> None:
    """RFC 9112, 6 and 11.2: where two readers could see another end of a request, there is one reader."""
    token = await stage.put_opaque()
    wire.writer.write(question(token, more=more))
    for _ in range(2):
        wire.writer.write(question(token))
    await wire.writer.drain()
    await eventually(lambda: len(short) >= 1, within_seconds=5)
    wire.writer.close()
    assert True not in short


async def test_a_request_in_pieces_ends_the_short_way_of_its_connection(
    wire: Wire, stage: Standing, short: list[bool]
) -> None:
    """The frame holds a part then, and what looks whole may be the rest of it: a smuggled question."""
    token = await stage.put_opaque()
    for _ in range(2):
        assert ACTIVE in (await wire.ask(token))[2]
    inner = question(token)
    outer = question("", body=b"token=" + b"x" * 20 + inner)
    wire.writer.write(outer[: -len(inner)])
    await wire.writer.drain()
    await eventually(lambda: len(short) == 3, within_seconds=5)
    wire.writer.write(inner)  # To the frame the rest of one body, and so of one token that nobody made.
    assert (await wire.answer())[2] == INACTIVE
    assert ACTIVE in (await wire.ask(token))[2]
    assert short == [False, True, False]


async def test_questions_sent_without_waiting_are_answered_in_order(wire: Wire, stage: Standing) -> None:
    """RFC 9112, 9.3.2: pipelined requests get their answers in order, whichever way each goes."""
    names = ("alice", "bob", "carol")
    tokens = [await stage.put_opaque(sub=name) for name in names]
    for token in tokens:
        await wire.ask(token)
    for token in [*tokens, new_access_token(), *tokens]:
        wire.writer.write(question(token))
        await wire.writer.drain()
    bodies = [(await wire.answer())[2] for _ in range(7)]
    subjects = [next((name for name in names if name.encode() in body), "") for body in bodies]
    assert subjects == [*names, "", *names]


async def test_a_body_that_asks_more_goes_the_long_way(wire: Wire, stage: Standing) -> None:
    """Checklist (7), RFC 6749, 3.2: the form is read by one reader, and twice a parameter is 400."""
    token = (await stage.put_opaque()).encode()
    body = b"token=" + token
    assert ACTIVE in (await wire.ask("", body=body))[2]
    same_length = b"token=" + token[:-8] + b"&token=x"
    assert len(same_length) == len(body)
    assert (await wire.ask("", body=same_length))[0] == 400
    assert (await wire.ask("", body=b"t%6Fken=" + token[:-2]))[2] == INACTIVE


@pytest.mark.parametrize(
    "twice",
    [b"token_type_hint=a&token=%b&token_type_hint=a", b"token_type_hint=a&token_type_hint=a&token=%b"],
    ids=["around the token", "before it"],
)
async def test_a_parameter_that_stands_twice_is_refused_on_a_connection_that_knows_its_head(
    wire: Wire, stage: Standing, short: list[bool], twice: bytes
) -> None:
    """RFC 6749, 3.2, and checklist, introspection (7): 400 on each way, also where the length is the same."""
    token = (await stage.put_opaque()).encode()
    once = b"token=" + token + b"&token_type_hint=aaaaaaaaaaaaaaaaaaa"
    assert len(once) == len(twice % token)
    assert ACTIVE in (await wire.ask("", body=once))[2]
    assert (await wire.ask("", body=twice % token))[0] == 400
    assert short == [False, False]


async def test_a_short_way_on_which_no_answer_comes_becomes_the_long_one(
    wire: Wire, stage: Standing, short: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the long way has the request's time limit: a store that is slow again and again must not hold a caller."""
    token = await stage.put_opaque()
    assert (await wire.ask(token))[0] == 200

    async def never(*_arguments: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("introspection.judge.Judge.follow", never)
    monkeypatch.setattr("introspection.shortway.ANSWER_SECONDS", 0.01)
    status, _, body = await wire.ask(token)
    assert (status, ACTIVE in body, short[-1]) == (200, True, True)


async def test_a_question_that_goes_wrong_here_goes_the_long_way_and_harms_no_other(
    wire: Wire, stage: Standing, short: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stack trace leaves the process, and nobody waits for ever."""
    good, bad = await stage.put_opaque(sub="alice"), await stage.put_opaque(sub="bob")
    for token in (good, bad):
        assert (await wire.ask(token))[0] == 200
    confirm = Judge.confirm

    def breaks(self: Judge, one: Remembered, audiences: tuple[str, ...], now: float) -> Verdict | None:
        if one.claims["sub"] == "bob":
            raise RuntimeError("broken")
        return confirm(self, one, audiences, now)

    monkeypatch.setattr(Judge, "confirm", breaks)
    for token, name in ((bad, b"bob"), (good, b"alice"), (bad, b"bob")):
        assert b'"sub":"%b"' % name in (await wire.ask(token))[2]
    assert short == [False, False, True, True, True]


async def test_a_connection_that_breaks_takes_no_other_with_it(service: IntrospectionService, wire: Wire) -> None:
    """Those who asked together are answered together: the failure of one is its own."""
    short, told = service._routes._short, list[bytes | None]()

    def breaks(_answer: bytes | None) -> None:
        raise ConnectionResetError

    trust = service._parts.replica.trust
    asker, one = cast("Any", SimpleNamespace(trust=trust)), cast("Any", None)
    short._reply_all([(asker, one, breaks, 0.0), (asker, one, told.append, 0.0)], None)
    assert told == [None]


async def test_answers_of_the_short_way_are_counted(wire: Wire, stage: Standing, service: IntrospectionService) -> None:
    """A metric that misses what is asked most would show a service at rest."""
    token = await stage.put_opaque()
    service._routes._short._notes = RequestNotes(stage.parts.log, stage.parts.metrics)
    for _ in range(5):
        await wire.ask(token)
    told = stage.parts.metrics.render().decode()
    for line in (
        'keyturn_introspections_total{answer="active"} 5.0',
        "keyturn_introspection_memory_hits_total 4.0",
        'keyturn_http_request_seconds_count{path="/introspect",status="200"} 4.0',
    ):
        assert line in told, line
