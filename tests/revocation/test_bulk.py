"""`POST /revocations/bulk`: lists of any length, each line settled or named, nothing lost and nothing starved."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from aiohttp import ClientPayloadError
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from keyturn import entropy
from keyturn.contract.encoding import decode_object
from keyturn.contract.errors import FeedUnavailable, InvalidSelector, MalformedInput
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Selector
from revocation import bulk, listreading
from revocation.lists import LARGEST_LINE_BYTES, Line, Lines
from revocation.reading import OrderReader
from revocation.writer import LARGEST_EVENT_BYTES, size_of
from tests.building import ADMIN, CLIENT
from tests.reaching import reach
from tests.revocation.conftest import Office
from tests.waiting import eventually

LIST = {"Content-Type": "application/x-ndjson"}


def lines_of(*selectors: Any) -> bytes:
    """Write a list."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in selectors)


def jtis(count: int, prefix: str = "t") -> bytes:
    """Write a list of that many tokens."""
    return lines_of(*({"jti": f"{prefix}-{number}"} for number in range(count)))


async def send(
    office: Office, body: bytes | AsyncIterator[bytes], query: str = "", **claims: Any
) -> tuple[int, list[dict[str, Any]]]:
    """Send a list as an operator; return status and the lines of the answer."""
    token = await office.opaque(**({"client_id": ADMIN, "scope": "keyturn:admin", "sub": ADMIN} | claims))
    headers = {"Authorization": f"Bearer {token}", **LIST}
    async with office.http.post(f"/revocations/bulk{query}", data=body, headers=headers) as response:
        told = [json.loads(line) for line in (await response.read()).splitlines()]
        return response.status, told


def revoked(office: Office, *jtis: str) -> list[bool]:
    """Say which of these tokens our own replica calls revoked."""
    replica = office.stage.parts.replica
    return [replica.revokes(replica.names(office.stage.world.claims(jti=jti))) for jti in jtis]


@given(pieces=st.lists(st.binary(max_size=40)), first=st.integers(1, 9))
def test_lines_do_not_depend_on_how_they_arrive(pieces: list[bytes], first: int) -> None:
    """A piece may end in the middle of a line, or of a character; numbers and contents stay the same."""
    whole, split = Lines(first=first), Lines(first=first)
    together = [*whole.feed(b"".join(pieces)), *whole.end()]
    apart = [line for piece in pieces for line in split.feed(piece)] + list(split.end())
    assert apart == together
    assert [line.number for line in together] == list(range(first, first + len(together)))
    assert b"\n".join(line.raw or b"" for line in together) == b"".join(pieces).removesuffix(b"\n")


@pytest.mark.parametrize("step", [1000, LARGEST_LINE_BYTES + 1, 100_000])
def test_a_line_without_an_end_is_not_held_and_the_next_one_is_found(step: int) -> None:
    """A gigabyte without a newline must take no gigabyte of memory."""
    lines, body = Lines(first=1), b"a\n" + b"x" * 50_000 + b"\nb\n"
    found: list[Line] = []
    for start in range(0, len(body), step):
        found += lines.feed(body[start : start + step])
        assert len(lines._held) <= LARGEST_LINE_BYTES
    assert [*found, *lines.end()] == [Line(1, b"a"), Line(2, None), Line(3, b"b")]


async def test_each_line_of_a_list_is_revoked_in_few_events(office: Office) -> None:
    """What it is for: after a breach a hundred thousand tokens end in one order, and the last line is the receipt."""
    status, told = await send(office, jtis(1_200), "?wait=all")
    assert (status, [one["status"] for one in (told[0], told[-1])]) == (200, ["begun", "done"])
    last = told[-1]
    assert (last["line"], last["accepted"], last["skipped"]) == (1_200, 1_200, 0)
    assert (last["receipt"]["adopted"], last["receipt"]["live"], last["receipt"]["complete"]) == (1, 1, True)
    assert office.position == (1, last["sequence"]) == (1, 3)
    assert all(revoked(office, "t-0", "t-600", "t-1199"))
    assert not office.passes(office.jwt(jti="t-1199"))
    assert office.passes(office.jwt(jti="t-1200"))


async def test_an_event_of_a_list_has_a_most_of_bytes(office: Office) -> None:
    """Five hundred long names are a message of a size that pub/sub does not forgive; and no event is wasted on few."""
    _, told = await send(office, lines_of(*({"jti": "x" * 500 + str(number)} for number in range(700))))
    assert (told[-1]["status"], told[-1]["accepted"]) == ("done", 700)
    sizes = [sum(map(size_of, event.entries)) for event in await office.events()]
    assert max(sizes) <= LARGEST_EVENT_BYTES
    assert min(sizes[:-1]) > LARGEST_EVENT_BYTES - 1_000


async def test_only_the_last_part_of_a_list_asks_for_reports_and_only_where_somebody_waits(office: Office) -> None:
    """Asked by each of two thousand parts, every verifier would write two thousand times."""
    for query, expected in (("", [False, False]), ("?wait=all", [False, True])):
        before = len(await office.events())
        _, told = await send(office, jtis(600), query)
        assert [event.report for event in (await office.events())[before:]] == expected
        assert told[-1]["receipt"].get("complete") is (True if query else None)


async def test_how_far_a_list_has_come_is_told_while_it_is_read_and_counted(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends a million sees that it goes on; and a proxy between must not gather the lines."""
    monkeypatch.setattr(listreading, "PROGRESS_SECONDS", 0.0)
    _, told = await send(office, jtis(1_200) + b"\n")
    steps = [(one["line"], one["accepted"]) for one in told if one["status"] == "progress"]
    assert steps == [(500, 500), (1_000, 1_000), (1_201, 1_200)]  # A blank line at the end was read, too.
    assert told[-1]["line"] == 1_201
    assert office.figure("keyturn_revocations_total", outcome="revoked") == 1_200
    token = await office.opaque(client_id=ADMIN, scope="keyturn:admin", sub=ADMIN)
    headers = {"Authorization": f"Bearer {token}", **LIST}
    async with office.http.post("/revocations/bulk", data=b"", headers=headers) as response:
        assert response.headers["X-Accel-Buffering"] == "no"


async def test_a_list_has_an_end_by_lines_and_by_time(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checklist, every endpoint: limits and a timeout; what was sent before is settled and told."""
    with monkeypatch.context() as patch:
        patch.setattr(listreading, "MOST_LINES", 3)
        _, told = await send(office, jtis(5))
        assert (told[-1]["status"], told[-1]["line"], told[-1]["bad"]["line"]) == ("stopped", 3, 4)
        assert (await send(office, jtis(1), "?from_line=4"))[0] == 400
    monkeypatch.setattr(listreading, "LONGEST_LIST_SECONDS", -1.0)
    _, told = await send(office, jtis(1))
    assert (told[-1]["status"], told[-1]["error"]["code"]) == ("stopped", "list_cut_off")


async def test_selectors_of_every_kind_may_stand_in_one_list(office: Office) -> None:
    """Blank lines and Windows' line ends are no mistakes; the last line may lack its end."""
    body = b'{"sid": "s-1"}\r\n\n{"sub": "eve"}\n  \n{"grant_id": "g"}\n{"aud": "https://old.example"}'
    _, told = await send(office, body)
    assert (told[-1]["status"], told[-1]["line"], told[-1]["accepted"]) == ("done", 6, 4)
    replica, claims = office.stage.parts.replica, office.stage.world.claims
    for ended in ({"sid": "s-1"}, {"sub": "eve", "grant_id": entropy.uuid7(1.0)}):
        assert replica.revokes(replica.names(claims(**ended)))


async def test_an_empty_list_revokes_nothing_and_tells_the_moment(office: Office) -> None:
    """The moment is the service's, so that whoever goes on later can give the same one again."""
    now = office.stage.world.clock.now()
    status, told = await send(office, b"")
    assert (status, [one["status"] for one in told], office.position) == (200, ["begun", "done"], (1, 0))
    assert now <= told[0]["before"] <= office.stage.world.clock.now()
    assert told[-1]["receipt"] is None


BAD = {
    b"nonsense": "JSON",
    b'"sub"': "object",
    b'{"sub": ""}': "string",
    b'{"sub": "a", "sub": "b"}': "twice",
    b'{"subject": "a"}': "unknown member",
    b'{"sub": "a", "before": 9e9}': "future",
    b'{"sub": "a", "iss": "https://other.example"}': "iss",
    b"{" * 2_000: "JSON",
    b'{"jti": "' + b"x" * LARGEST_LINE_BYTES + b'"}': "longer",
    b"\xff\xfe": "JSON",
}


@pytest.mark.parametrize(("bad", "why"), BAD.items(), ids=range(len(BAD)))
async def test_a_bad_line_is_named_and_all_before_it_is_durable(office: Office, bad: bytes, why: str) -> None:
    """Whoever mends line 3 must know that it is line 3, and that the first two are done."""
    status, told = await send(office, jtis(2) + bad + b"\n" + jtis(2, "later"))
    last = told[-1]
    assert (status, last["status"], last["line"], last["accepted"]) == (200, "stopped", 2, 2)
    assert last["bad"]["line"] == 3
    assert why in last["bad"]["reason"]
    assert revoked(office, "t-1", "later-0") == [True, False]
    _, told = await send(office, jtis(2, "later"), "?from_line=4")
    assert (told[-1]["status"], told[-1]["line"], revoked(office, "later-1")) == ("done", 5, [True])


async def test_bad_lines_are_skipped_and_each_is_told_where_that_is_asked(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By policy the rest is not held up; but a file that is none at all must not look like a success."""
    body = b"x\n" + jtis(2) + b"y\n" + jtis(1, "last")
    _, told = await send(office, body, "?on_bad=skip")
    skipped = [one for one in told if one["status"] == "skipped"]
    assert [(one["bad"]["line"], one["line"], one["accepted"]) for one in skipped] == [(1, 1, 0), (4, 4, 2)]
    assert (told[-1]["status"], told[-1]["accepted"], told[-1]["skipped"]) == ("done", 3, 2)
    assert revoked(office, "t-1", "last-0") == [True, True]
    monkeypatch.setattr(listreading, "MOST_SKIPPED", 3)
    _, told = await send(office, b"x\n" * 10, "?on_bad=skip")
    assert (told[-1]["status"], told[-1]["bad"]["line"], told[-1]["line"]) == ("stopped", 4, 3)


async def test_a_repeat_after_a_cut_ends_no_sign_in_that_came_between(office: Office) -> None:
    """Cutoffs get the moment of the list, not of the line: to repeat lines is harmless."""
    begun = (await send(office, b""))[1][0]["before"]
    await send(office, lines_of({"sub": "alice"}), f"?before={begun}")
    fresh = office.jwt(sub="alice", grant_id=entropy.uuid7(begun + 0.002))
    for _ in range(2):
        _, told = await send(office, lines_of({"sub": "alice"}), f"?before={begun}&wait=all")
        assert told[-1]["status"] == "done"
    assert office.passes(fresh)
    assert not office.passes(office.jwt(sub="alice", grant_id=entropy.uuid7(begun - 1)))


async def test_a_client_that_breaks_off_leaves_whole_lines_only(office: Office) -> None:
    """What it sent may be durable or not; the half line is no selector, and the next list is taken."""
    arrived = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield jtis(600) + b'{"jti": "cut'
        await arrived.wait()

    sending = asyncio.create_task(send(office, half()))
    await eventually(lambda: office.position[1] == 2, saying=lambda: office.position)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert revoked(office, "t-599", "cut") == [True, False]
    await eventually(lambda: office.service._bulk_routes._open == 0)
    _, told = await send(office, jtis(1, "cut"), "?from_line=601")
    assert (told[-1]["status"], told[-1]["line"]) == ("done", 601)


async def test_what_a_slow_client_has_sent_does_not_wait_for_the_rest(office: Office) -> None:
    """A list that comes from a pipe is revoked as it comes."""
    rest = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield jtis(2)
        await rest.wait()
        yield jtis(1, "rest")

    sending = asyncio.create_task(send(office, slow()))
    await eventually(lambda: all(revoked(office, "t-0", "t-1")))
    rest.set()
    assert (await sending)[1][-1]["accepted"] == 3


async def test_a_store_that_fails_midway_ends_the_list_with_what_is_settled(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """200 was said already, so the last line has to say no; going on behind what is settled loses nothing."""
    append, appended = office.stage.parts.feed.append, 0

    async def failing(*arguments: Any, **named: Any) -> None:
        nonlocal appended
        appended += 1
        if appended == 2:
            raise FeedUnavailable("gone")
        await append(*arguments, **named)

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(office.stage.parts.feed, "append", failing)
        _, told = await send(office, jtis(2_000))
    assert ("unavailable", "gone") in [(line["event"], line.get("reason")) for line in logs]
    assert "gone" not in str(told), "reasons of an outage are the operator's"
    last = told[-1]
    assert (last["status"], last["error"]["code"], last["line"], last["accepted"]) == (
        "stopped", "feed_unavailable", 500, 500,
    )  # fmt: skip
    rest = b"".join(jtis(2_000).splitlines(keepends=True)[last["line"] :])
    _, told = await send(office, rest, f"?from_line={last['line'] + 1}")
    assert (told[-1]["status"], told[-1]["line"]) == ("done", 2_000)
    assert all(revoked(office, *(f"t-{number}" for number in range(2_000))))


async def torn(office: Office, body: bytes | AsyncIterator[bytes]) -> list[dict[str, Any]]:
    """Send a list whose answer is cut off; return the lines that came before."""
    token = await office.opaque(client_id=ADMIN, scope="keyturn:admin", sub=ADMIN)
    headers, told = {"Authorization": f"Bearer {token}", **LIST}, []
    async with office.http.post("/revocations/bulk", data=body, headers=headers) as response:
        try:
            async for line in response.content:
                told.append(json.loads(line))
        except ClientPayloadError:
            return told
    raise AssertionError(f"it ended like a whole answer: {told}")


async def test_a_fault_of_ours_midway_is_a_last_line_and_no_end_of_the_answer(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 9112, 8: 200 was said already; neither who reads lines nor who reads bytes may take this for success."""
    line = OrderReader.line

    def failing(self: OrderReader, raw: bytes, **named: Any) -> Any:
        if b'"t-600"' in raw:
            raise RuntimeError("kt_cs_not_for_your_eyes")
        return line(self, raw, **named)

    with monkeypatch.context() as patch:
        patch.setattr(OrderReader, "line", failing)
        told = await torn(office, jtis(1_200))
    last = told[-1]
    assert (last["status"], last["error"]["code"]) == ("stopped", "server_error")
    assert "not_for_your_eyes" not in str(told)
    rest = b"".join(jtis(1_200).splitlines(keepends=True)[last["line"] :])
    _, told = await send(office, rest, f"?from_line={last['line'] + 1}")
    assert (told[-1]["status"], told[-1]["line"]) == ("done", 1_200)
    assert all(revoked(office, *(f"t-{number}" for number in range(1_200))))


async def test_a_service_that_ends_says_so_to_whoever_sends_a_list(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist, every endpoint; RFC 9112, 8: what is cut off by a restart says up to where all is durable."""

    async def cancelled(*_: Any) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(office.service._bulk_routes, "_receipt", cancelled)
    told = await torn(office, jtis(3))
    assert (told[-1]["status"], told[-1]["error"]["code"], told[-1]["line"]) == ("stopped", "list_cut_off", 3)
    assert office.service._bulk_routes._open == 0


async def test_other_revocations_do_not_wait_behind_a_list(office: Office) -> None:
    """While a long list is read, one token still ends at once: its event is the next."""
    feed_more = asyncio.Event()

    async def long() -> AsyncIterator[bytes]:
        for number in range(20):
            yield jtis(500, f"p{number}")
        await feed_more.wait()

    sending = asyncio.create_task(send(office, long()))
    await eventually(lambda: office.position[1] > 0)
    before = office.position[1]
    status, told = await office.admin("POST", "/revocations", {"selector": {"sub": "eve"}})
    parts_before_it = told["sequence"] - before
    feed_more.set()
    assert (await sending)[1][-1]["accepted"] == 10_000
    assert status == 200
    assert parts_before_it < 19, "it did not wait for the whole list"


async def test_a_list_is_read_no_faster_than_it_is_written(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would fill the writer's queue, and be refused by it, the faster its client sends."""
    monkeypatch.setattr(listreading, "MOST_IN_A_PART", 2)
    gate, append = asyncio.Event(), office.stage.parts.feed.append

    async def gated(*arguments: Any, **named: Any) -> None:
        await gate.wait()
        await append(*arguments, **named)

    monkeypatch.setattr(office.stage.parts.feed, "append", gated)
    sending = asyncio.create_task(send(office, jtis(80)))
    await eventually(lambda: len(office.service._writer) == 2 * listreading.PARTS_UNDER_WAY)
    await asyncio.wait([sending], timeout=0.1)
    assert len(office.service._writer) == 2 * listreading.PARTS_UNDER_WAY
    gate.set()
    assert (await sending)[1][-1]["accepted"] == 80


async def test_a_list_may_take_longer_than_other_requests(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million lines over a thin line are no attack; their client is cut off by the limits of lists alone."""
    timeout, given = asyncio.timeout, list[float]()

    def noted(seconds: float | None) -> Any:
        given.append(seconds or 0.0)
        return timeout(seconds)

    monkeypatch.setattr(asyncio, "timeout", noted)
    assert (await send(office, jtis(1)))[1][-1]["status"] == "done"
    assert max(given) > listreading.LONGEST_LIST_SECONDS


async def test_only_some_lists_are_read_at_once(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes memory and turns of the writer."""
    monkeypatch.setattr(bulk, "MOST_AT_ONCE", 1)
    done = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield jtis(1)
        await done.wait()

    sending = asyncio.create_task(send(office, endless()))
    await eventually(lambda: office.service._bulk_routes._open == 1)
    assert (await send(office, jtis(1)))[0] == 503
    done.set()
    await sending
    assert (await send(office, jtis(1)))[0] == 200


async def test_a_list_that_stays_silent_is_cut_off(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that went to sleep would keep its place for ever."""
    monkeypatch.setattr(listreading, "LONGEST_PAUSE_SECONDS", 0.3)
    done = asyncio.Event()

    async def asleep() -> AsyncIterator[bytes]:
        yield jtis(3)
        await done.wait()

    sending = asyncio.create_task(send(office, asleep()))
    await eventually(lambda: office.service._bulk_routes._open == 0 and office.position[1] == 1)
    done.set()
    _, told = await sending
    assert (told[-1]["status"], told[-1]["error"]["code"], told[-1]["line"]) == ("stopped", "list_cut_off", 3)


@pytest.mark.parametrize(
    "query",
    ["from_line=0", "from_line=x", "on_bad=ignore", "before=soon", "before=9e9", "before=nan", "from=3", "wait=some",
     "from_line=1&from_line=2"],
)  # fmt: skip
async def test_a_mistyped_question_is_refused_before_anything_is_read(office: Office, query: str) -> None:
    """`onbad=skip` must not stop at line 3 of a million."""
    status, told = await send(office, jtis(1), f"?{query}")
    assert (status, told[0]["status"], office.position) == (400, 400, (1, 0))


async def test_only_an_operator_may_and_only_with_a_list(office: Office) -> None:
    """Admin routes refuse by default; a body of another type is no list."""
    assert (await send(office, jtis(1), client_id=CLIENT))[0] == 401
    assert (await send(office, jtis(1), scope="read"))[0] == 403
    assert (await office.admin("POST", "/revocations/bulk", {"sub": "alice"}))[0] == 415
    async with office.http.post("/revocations/bulk", data=jtis(1), headers=LIST) as response:
        assert response.status == 401
    assert office.position == (1, 0)


def sequences(office: Office, told: Iterable[tuple[int, Any]]) -> set[int]:
    """Return the events that receipts name."""
    return {receipt["sequence"] for _, receipt in told if receipt["epoch"] == office.position[0]}


async def test_two_thousand_revocations_at_once_become_few_events(office: Office) -> None:
    """A logout storm over HTTP: each is durable and answered, and verifiers read dozens of events, not thousands."""
    token = await office.opaque(client_id=ADMIN, scope="keyturn:admin", sub=ADMIN)
    headers, limit = {"Authorization": f"Bearer {token}"}, asyncio.Semaphore(200)

    async def one(number: int) -> tuple[int, Any]:
        async with (
            limit,
            office.http.post("/revocations", json={"selector": {"jti": f"t-{number}"}}, headers=headers) as response,
        ):
            return response.status, await response.json()

    answers = await asyncio.gather(*map(one, range(2_000)))
    assert {status for status, _ in answers} == {200}
    assert office.position[1] == len(sequences(office, answers)) <= 60
    assert all(revoked(office, *(f"t-{number}" for number in range(2_000))))
    assert office.stage.parts.replica.place(Lane.REVOCATIONS) == office.position


NAMES = st.sampled_from([b'"jti"'] * 6 + [b'"sid"', b'"iss"', b'"\\u006ati"', b'"nonsense"', b" jti", b'"'])
VALUES = st.sampled_from(
    [
        b'"t-1"',
        b'"t-2"',
        b'"t-3"',
        b'"\\u0061"',
        b'""',
        b'":"',
        b'"\xff"',
        b'"' + b"x" * 513 + b'"',
        b"1",
        b'["a"]',
        b"{}",
    ]
)
LINES = st.builds(
    lambda members, begin, end: begin + b",".join(b":".join(member) for member in members) + end,
    st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=2), st.sampled_from([b"{"] * 6 + [b" {", b"[", b"{{"]),
    st.sampled_from([b"}"] * 6 + [b"} ", b"}}", b"", b"}\x00"]),
)  # fmt: skip


async def test_a_line_that_is_read_the_short_way_says_what_it_says_the_long_way(office: Office) -> None:
    """RFC 8725, 2.7 and RFC 8259, 4: no spelling of a line may slip past the strict reading of its JSON."""
    reader, reached = office.service._bulk_routes._reader, Counter[str]()

    @settings(max_examples=1500, deadline=None)
    def read(raw: bytes, *, long: bool) -> Selector | str:
        try:
            entry = reader.entry(decode_object(raw), before=1.0) if long else reader.line(raw, before=1.0)
        except (MalformedInput, InvalidSelector) as error:
            return str(error)
        return entry.selector

    @settings(max_examples=250, deadline=None)
    @given(LINES)
    def check(raw: bytes) -> None:
        told = read(raw, long=False)
        assert told == read(raw, long=True)
        reached["good" if isinstance(told, Selector) else "bad"] += 1

    reach(check, reached, {"good": 21, "bad": 21})
