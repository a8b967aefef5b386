"""RFC 8935 push: one after the other, at least once, whatever the receiver does."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from structlog.testing import capture_logs

from keyturn.clock import SystemClock
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.selectors import SelectorKind
from keyturn.process.settings import Settings
from keyturn.process.values import Secret
from revocation.streams import pushing
from revocation.streams.addresses import PublicResolver, is_public
from revocation.streams.pushing import (
    LARGEST_ANSWER_BYTES,
    LONGEST_PAUSE_SECONDS,
    Courier,
    Fate,
    Outcome,
    judge,
    pause_after,
)
from revocation.streams.settings import MOST_STREAMS, StreamSettings, read_streams
from revocation.streams.stream import Signed
from revocation.streams.telling import Telling
from tests.building import RESOURCE, write_secret
from tests.clocks import ManualClock
from tests.revocation.streams.receiving import AUDIENCE, Post, another, post_on, told
from tests.waiting import eventually


@dataclass
class Receiver:
    """A receiver that answers as it is told, 202 if it is told nothing, and writes down who was revoked."""

    url: str = ""
    answers: list[web.Response] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    asked: list[web.Request] = field(default_factory=list)
    together = most_together = 0

    async def take(self, request: web.Request) -> web.Response:
        """Take one."""
        self.together += 1
        self.most_together = max(self.together, self.most_together)
        try:
            self.asked.append(request)
            if request.path != "/events":
                return web.Response(status=202)
            claims = told(await request.text())
            answer = self.answers.pop(0) if self.answers else web.Response(status=202)
            if answer.status == 202:
                self.taken.append(claims["sub_id"]["sub"])
            return answer
        finally:
            self.together -= 1

    def settings(self, **changes: object) -> StreamSettings:
        """Return the settings of a stream that leads here."""
        members = {"audience": AUDIENCE, "push": self.url, "private_addresses": True} | changes
        return StreamSettings(**members)  # type: ignore[arg-type]


@asynccontextmanager
async def listening() -> AsyncIterator[Receiver]:
    """Run a receiver."""
    receiver, app = Receiver(), web.Application()

    async def take(request: web.Request) -> web.StreamResponse:
        return await receiver.take(request)  # Looked up each time: a test may put another in its place.

    app.router.add_route("*", "/{any}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/events"
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """Run a receiver, to which a stream goes back soon after a failure."""
    monkeypatch.setattr(pushing, "FIRST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(pushing, "LOOK_AGAIN_SECONDS", 0.02)
    async with listening() as one:
        yield one


@pytest.fixture
async def pushed(valkey: Redis, valkey_url: str, receiver: Receiver, tmp_path: Path) -> AsyncIterator[Post]:
    """Run a stream that is pushed there, from when it has begun."""
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text("the-bearer")
    settings = receiver.settings(authorization=Secret.read(tmp_path / "token"))
    async with post_on(valkey, valkey_url, one=settings) as post:
        await eventually(lambda: valkey.get("keyturn:streams:one:progress"))
        yield post


async def test_each_revocation_is_pushed_in_order(pushed: Post, receiver: Receiver) -> None:
    """RFC 8935, 2.1: one SET in a POST, its media type, and the receiver's own bearer token."""
    await pushed.revoke("alice", "bob", "carol")
    await eventually(lambda: receiver.taken == ["alice", "bob", "carol"])
    assert (await pushed.poll())[0] == 404, "what is pushed is for nobody to fetch"
    headers = receiver.asked[0].headers
    assert headers["Content-Type"] == "application/secevent+jwt"
    assert headers["Accept"] == "application/json"
    assert headers["Authorization"] == "Bearer the-bearer"


@pytest.mark.parametrize("status", [200, 307, 401, 503])
async def test_what_is_not_taken_is_sent_again_before_the_next(status: int, pushed: Post, receiver: Receiver) -> None:
    """RFC 8935, 2.2: 202 alone says that it is taken; a redirect would lead where nobody has configured."""
    elsewhere = {"Location": receiver.url.replace("/events", "/elsewhere")}
    receiver.answers = [web.Response(status=status, headers=elsewhere), web.Response(status=status)]
    await pushed.revoke("alice", "bob")
    await eventually(lambda: receiver.taken == ["alice", "bob"])
    assert receiver.most_together == 1
    assert {request.path for request in receiver.asked} == {"/events"}


async def test_what_the_receiver_refuses_is_a_dead_letter_and_the_next_goes_on(
    pushed: Post, receiver: Receiver
) -> None:
    """RFC 8935, 2.3: its 400 with `err` is for good; one bad token must not hold up all revocations behind it."""
    receiver.answers = [web.json_response({"err": "invalid_request", "description": "cannot read it"}, status=400)]
    await pushed.revoke("alice", "bob")
    await eventually(lambda: receiver.taken == ["bob"])

    async def letters() -> list[str]:
        _, answer = await pushed.operator("/streams/one/dead-letters")
        return [one["err"] for one in answer["dead_letters"]]

    await eventually(letters)
    assert await letters() == ["invalid_request"]


async def test_a_receiver_that_does_not_know_our_key_yet_is_tried_again(pushed: Post, receiver: Receiver) -> None:
    """Right after a rotation its copy of our JWKS may be old: the revocation must not be lost for that."""
    receiver.answers = [web.json_response({"err": "invalid_key", "description": ""}, status=400)]
    await pushed.revoke("alice")
    await eventually(lambda: receiver.taken == ["alice"])


async def test_a_receiver_that_answers_for_ever_is_left(
    pushed: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A huge answer must not fill our memory; what it begins with decides."""
    receiver.answers = [web.Response(status=400, body=b'{"err": "' + b"x" * 1_000_000, content_type="application/json")]
    await pushed.revoke("alice")
    await eventually(lambda: receiver.taken == ["alice"])


async def test_a_body_without_an_end_is_left_at_its_limit(
    pushed: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist, every endpoint: neither our memory nor our time is the receiver's."""
    told_once = asyncio.Event()
    take = receiver.take

    async def endless(request: web.Request) -> web.StreamResponse:
        if told_once.is_set():
            return await take(request)
        told_once.set()
        answer = web.StreamResponse(status=400, headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        with suppress(ConnectionError):
            while True:
                await answer.write(b" " * 1_000)
        return answer

    monkeypatch.setattr(receiver, "take", endless)
    await pushed.revoke("alice")
    await eventually(lambda: receiver.taken == ["alice"])


async def test_a_packed_answer_is_not_unpacked(pushed: Post, receiver: Receiver) -> None:
    """A few bytes can unpack to a gigabyte; what is not plain JSON is no word of the receiver's and tried again."""
    packed = gzip.compress(b'{"err": "invalid_request", "description": ""}')
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    receiver.answers = [web.Response(status=400, body=packed, headers=headers)]
    await pushed.revoke("alice")
    await eventually(lambda: receiver.taken == ["alice"])


async def test_no_proxy_of_the_environment_and_no_cookie_comes_between(
    valkey: Redis, valkey_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy resolves the receiver's name itself, past our look at its address; a cookie would name us to others."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    receiver.url = receiver.url.replace("127.0.0.1", "localhost")  # Of a bare address no client keeps cookies.
    receiver.answers = [web.Response(status=503, headers={"Set-Cookie": "a=b; Path=/"})]
    async with post_on(valkey, valkey_url, one=receiver.settings()) as post:
        await eventually(lambda: valkey.get("keyturn:streams:one:progress"))
        await post.revoke("alice")
        await eventually(lambda: receiver.taken == ["alice"])
    assert ["Cookie" in request.headers for request in receiver.asked] == [False, False]


async def test_a_receiver_that_says_nothing_is_left_after_its_time(
    valkey: Redis, valkey_url: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its stream waiting for a bounded time; what it took without a word it is told again."""
    monkeypatch.setattr(pushing, "ANSWER_SECONDS", 0.3)
    silent, take, asked = asyncio.Event(), receiver.take, 0

    async def at_first_silent(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        if asked == 1:
            await silent.wait()
        return await take(request)

    monkeypatch.setattr(receiver, "take", at_first_silent)
    async with post_on(valkey, valkey_url, one=receiver.settings()) as post:
        await eventually(lambda: valkey.get("keyturn:streams:one:progress"))
        await post.revoke("alice")
        await eventually(lambda: receiver.taken)
        silent.set()


async def test_a_stream_that_stalls_and_flows_again_says_so_once(
    pushed: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operator has to learn of it, and not from a log that a receiver fills."""
    monkeypatch.setattr(pushing, "MOST_SIGNED", 2)
    stream, signed = pushed.streams.by_name["one"], list[int]()
    sign = stream.signed

    async def counted(tellings: Sequence[Telling]) -> list[Signed]:
        signed.append(len(tellings))
        return await sign(tellings)

    monkeypatch.setattr(stream, "signed", counted)
    (courier,), pauses, sleep = pushed.streams._couriers, list[float](), SystemClock().sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(courier._clock, "sleep", noted)
    word = {"err": "access_denied", "description": "d" * 1_000}
    receiver.answers = [web.json_response(word, status=400) for _ in range(3)]
    world = pushed.stage.world
    with capture_logs() as logs:
        await pushed.stage.revoke(*(world.entry(SelectorKind.SUBJECT, str(number)) for number in range(5)))
        await eventually(lambda: "stream_flows" in [line["event"] for line in logs])
        await eventually(lambda: len(receiver.taken) == 5)
    told_of = [line for line in logs if line["event"] in ("stream_stalled", "stream_flows")]
    assert [line["event"] for line in told_of] == ["stream_stalled", "stream_flows"]
    assert (told_of[0]["description"], told_of[1]["failures"]) == ("d" * 200, 3)
    assert max(signed) == 2, "a receiver that is away would have all signed anew at each try"
    longest = (0.02, 0.04, 0.08)
    assert all(most / 2 <= one <= most for one, most in zip(filter(None, pauses), longest, strict=False)), pauses
    assert len(list(filter(None, pauses))) >= 3


async def test_nothing_is_sent_that_might_be_answered_after_the_turn(pushed: Post, receiver: Receiver) -> None:
    """RFC 8935, 2: another replica pushes by then, and the receiver would hear both at once."""
    (courier,), clock, sent = pushed.streams._couriers, ManualClock(), list[str]()
    courier = Courier(courier._stream, receiver.url, pushed.stage.parts, bell=pushed.streams.bell)
    courier._clock = clock

    async def slowly(_session: object, token: str) -> Outcome:
        sent.append(token)
        clock.advance(pushing.ANSWER_SECONDS)
        return Outcome(Fate.TAKEN)

    courier._send = slowly  # type: ignore[assignment, method-assign]
    entry, began = pushed.stage.world.entry(SelectorKind.JTI, "a"), clock.boottime()
    signed = [Signed(Telling(f"{number}", 1, number, entry, 0.0), "x") for number in range(9)]
    await courier._push(None, signed)  # type: ignore[arg-type]
    assert 0 < len(sent) < 9
    assert clock.boottime() - began < pushing.TURN_SECONDS


async def test_two_replicas_of_the_service_take_turns(pushed: Post, receiver: Receiver) -> None:
    """One at a time: else the order would be lost, and everything told twice."""
    async with another(pushed, one=receiver.settings()):
        for name in ("alice", "bob", "carol"):
            await pushed.revoke(name)
        await eventually(lambda: len(receiver.taken) >= 3)
    assert receiver.taken == ["alice", "bob", "carol"]


async def test_a_restart_goes_on_where_it_was(valkey: Redis, valkey_url: str, receiver: Receiver) -> None:
    """Nothing that was revoked while nobody pushed is passed over."""
    async with post_on(valkey, valkey_url, other=StreamSettings(audience="x", client=RESOURCE)) as post:
        async with another(post, one=receiver.settings()):
            await eventually(lambda: valkey.get("keyturn:streams:one:progress"))
            await post.revoke("alice")
            await eventually(lambda: _stands_at(valkey, 1))
        await post.revoke("bob")
        async with another(post, one=receiver.settings()):
            await eventually(lambda: receiver.taken == ["alice", "bob"])


async def _stands_at(valkey: Redis, sequence: int) -> bool:
    return f'"sequence":{sequence}'.encode() in (await valkey.get("keyturn:streams:one:progress") or b"")


async def test_an_address_inside_is_not_pushed_to_unless_that_is_set() -> None:
    """A name that somebody else holds must not lead our requests, and what answers them, into our network."""

    class Names:
        async def resolve(self, host: str, port: int, family: object) -> list[dict[str, object]]:
            return [{"host": one} for one in ("10.0.0.1", "93.184.216.34", "127.0.0.1", "::1", "fd00::1")]

        async def close(self) -> None:
            pass

    resolver = PublicResolver(Names())  # type: ignore[arg-type]
    assert [one["host"] for one in await resolver.resolve("receiver.example")] == ["93.184.216.34"]
    with pytest.raises(OSError, match="no public address"):
        await PublicResolver().resolve("localhost", 80)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "::1", "::",
        "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "2002:7f00:0001::", "64:ff9b::a9fe:a9fe", "ff02::1", "example",
        "::ffff:224.0.0.1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "64:ff9b:1::a9fe:a9fe", "::10.0.0.1",
        "::ffff:0:a00:1", "fec0::1", "5f00::1", "3fff::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_the_internets_is_known(address: str) -> None:
    """Also where IPv4 hides in IPv6: 169.254.169.254 is where clouds keep their secrets."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::808:808"],
)
def test_an_address_of_the_internet_is_known(address: str) -> None:
    """Receivers live there."""
    assert is_public(address)


@pytest.mark.parametrize(
    ("members", "setting"),
    [
        ({"audience": "x"}, "streams.one.push"),
        ({"audience": "x", "push": "https://a.example", "client": "c"}, "streams.one.push"),
        ({"audience": "x", "push": "http://a.example/events"}, "streams.one.push"),
        ({"audience": "x", "push": "https://user:pass@a.example/"}, "streams.one.push"),
        ({"audience": "x", "push": "https://10.0.0.1/"}, "streams.one.private_addresses"),
        ({"audience": "x", "push": "http://localhost:1/"}, "streams.one.private_addresses"),
        ({"audience": "x", "push": "https://2130706433/"}, "streams.one.private_addresses"),
        ({"audience": "x", "push": "https://127.1/"}, "streams.one.private_addresses"),
        ({"audience": "x", "push": "https://a.example:port/"}, "streams.one.push"),
        ({"audience": "x", "client": "c", "private_addresses": True}, "streams.one.client"),
        ({"audience": "x", "client": "c", "authorization_file": "token"}, "streams.one.client"),
        ({"audience": "x", "push": "https://a.example/", "authorization_file": "two-lines"},
         "streams.one.authorization_file"),
    ],
)  # fmt: skip
def test_a_stream_that_cannot_work_is_refused_at_start(
    members: dict[str, object], setting: str, tmp_path: Path
) -> None:
    """Its receiver would wait for ever; the message names the setting, and never repeats a password."""
    write_secret(tmp_path / "token", "the-bearer")
    write_secret(tmp_path / "two-lines", "the-pass@word\nX-Header: smuggled")
    with pytest.raises(ConfigurationError) as refused:
        read_streams(Settings({"streams": {"one": members}}, {}, beside=tmp_path))
    assert refused.value.setting == setting
    assert "pass@" not in str(refused.value)


def test_streams_have_names_for_a_path_and_a_number() -> None:
    """Checklist, every endpoint: a name is a part of a key in the store and of a path; each stream reads the feed."""

    def read(*names: str) -> int:
        one = {"audience": "x", "client": "c"}
        return len(read_streams(Settings({"streams": dict.fromkeys(names, one)}, {}, beside=Path())))

    assert read(*(str(number) for number in range(MOST_STREAMS))) == MOST_STREAMS
    with pytest.raises(ConfigurationError, match="too many"):
        read(*(str(number) for number in range(MOST_STREAMS + 1)))
    for name in ("a/b", "a:b", "A", "", "x" * 65):
        with pytest.raises(ConfigurationError, match="path"):
            read(name)


@given(st.integers(1, 10_000))
def test_pauses_grow_and_are_spread(failures: int) -> None:
    """A receiver that comes back must not be met by all at once, nor be forgotten for longer than the limit."""
    longest = pause_after(failures, lambda _low, high: high)
    shortest = pause_after(failures, lambda low, _high: low)
    assert longest / 2 == shortest
    assert longest == min(2 ** (failures - 1), LONGEST_PAUSE_SECONDS)


@given(st.integers(100, 599), st.sampled_from(["application/json", "text/html"]), st.binary(max_size=64))
def test_no_answer_but_202_ever_counts_as_taken(status: int, kind: str, body: bytes) -> None:
    """RFC 8935, 2.2."""
    assert (judge(status, kind, body).fate is Fate.TAKEN) == (status == 202)
    assert len(body) < LARGEST_ANSWER_BYTES


@pytest.mark.parametrize(
    ("err", "fate"),
    [
        ("invalid_request", Fate.REFUSED), ("invalid_issuer", Fate.REFUSED), ("invalid_audience", Fate.REFUSED),
        ("invalid_key", Fate.LATER), ("authentication_failed", Fate.LATER), ("access_denied", Fate.LATER),
    ],
)  # fmt: skip
def test_what_can_be_mended_is_not_for_good(err: str, fate: Fate) -> None:
    """RFC 8935, 2.4: of its codes three are about us and our keys; a page of a proxy's is nobody's word."""
    body = json.dumps({"err": err}).encode()
    assert judge(400, "application/json", body).fate is fate
    assert judge(400, "text/html", body).fate is judge(500, "application/json", body).fate is Fate.LATER


async def test_a_receiver_that_does_not_answer_is_left_and_tried_again(
    pushed: Post, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps one stream waiting for a bounded time, and no other."""
    gone = asyncio.Event()
    take = receiver.take

    async def silent(request: web.Request) -> web.Response:
        if not gone.is_set():
            gone.set()
            assert request.transport is not None
            request.transport.abort()
        return await take(request)

    monkeypatch.setattr(receiver, "take", silent)
    await pushed.revoke("alice")
    await eventually(lambda: receiver.taken == ["alice"])
