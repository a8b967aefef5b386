"""`POST /events` and `POST /backchannel-logout` on a real Valkey: answered only when it is durable."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from keyturn.clock import SystemClock
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.selectors import Entry, Selector
from revocation.receiving import senders
from revocation.receiving.meaning import LOGOUT, LOGOUT_SECONDS
from revocation.receiving.once import PREFIX, Received
from serving.service import Service
from tests.building import FickleRedis
from tests.revocation.conftest import PROVIDER, Office, office_on
from tests.revocation.receiving.test_meaning import SESSION_REVOKED
from tests.verifier.abroad import URL, Abroad
from tests.waiting import eventually

US = "our-client"
NOBODYS = dict.fromkeys(("azp", "scp", "sub", "exp", "client_id", "scope"))


@dataclass
class Desk:
    """The service, and another issuer that sends it events."""

    office: Office
    abroad: Abroad
    file: Path

    def event(self, *, header: Mapping[str, Any] | None = None, kid: str | None = None, **changes: Any) -> bytes:
        """Return a Security Event Token: alice's sessions are over."""
        subject = {"format": "iss_sub", "iss": URL, "sub": "alice"}
        claims = NOBODYS | {"aud": US, "jti": "one", "sub_id": subject, "events": {SESSION_REVOKED: {}}} | changes
        return self.abroad.mint(kid=kid, header={"typ": "secevent+jwt"} | dict(header or {}), **claims)

    def logout(self, *, header: Mapping[str, Any] | None = None, **changes: Any) -> str:
        """Return a logout token of alice."""
        claims = NOBODYS | {"aud": US, "jti": "one", "sub": "alice", "events": {LOGOUT: {}}} | changes
        return self.abroad.mint(header={"typ": "logout+jwt"} | dict(header or {}), **claims).decode()

    async def send(self, token: bytes, kind: str = "application/secevent+jwt") -> tuple[int, Any]:
        """Send an event, and return what comes back."""
        async with self.office.http.post("/events", data=token, headers={"Content-Type": kind}) as answer:
            text = await answer.text()
            # RFC 8935, 2.3: the description is in a language, and which one has to be said.
            assert answer.status != 400 or answer.headers["Content-Language"] == "en"
            return answer.status, json.loads(text) if text else None

    async def send_logout(self, token: str) -> tuple[int, Any]:
        """Send a logout token, and return what comes back."""
        async with self.office.http.post("/backchannel-logout", data={"logout_token": token}) as answer:
            text = await answer.text()
            assert answer.headers["Cache-Control"] == "no-store"  # Back-Channel Logout 1.0, 2.8.
            return answer.status, json.loads(text) if text else None

    async def revoked(self) -> list[Selector]:
        """Return all that is named in the lane."""
        return [entry.selector for entry in await self.entries()]

    async def entries(self) -> list[Entry]:
        """Return all that stands in the lane."""
        return [entry for event in await self.office.events() for entry in event.entries]


@asynccontextmanager
async def desk_on(
    valkey: Redis, valkey_url: str, tmp_path: Path, *, beside: Sequence[Service] = ()
) -> AsyncIterator[Desk]:
    """Run the service with one other issuer, whose keys are in a file."""
    file = tmp_path / "jwks.json"
    settings = {"URL": URL, "TOKEN": "1h", "JWKS_FILE": str(file), "ALGORITHMS": "ES256", "AUDIENCE": US}
    changes: dict[str, Any] = {f"KEYTURN_ISSUERS__WORKFORCE__{name}": value for name, value in settings.items()}
    abroad = Abroad(SystemClock(), jwks=file)
    file.write_bytes(abroad.jwks)
    async with office_on(valkey, valkey_url, tmp_path, beside=beside, **changes) as office:
        keys = office.service._senders._keys[URL]
        await eventually(lambda: keys.trouble is None, within_seconds=10)
        yield Desk(office, abroad, file)


@pytest.fixture
async def desk(valkey: Redis, valkey_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    """Run the whole for one test."""
    async with desk_on(valkey, valkey_url, tmp_path) as one:
        yield one


async def test_an_event_is_revoked_before_it_is_taken(desk: Desk) -> None:
    """RFC 8935, 2.2: 202 is the sender's leave to forget it."""
    issued = desk.office.stage.world.clock.now() - 3
    assert await desk.send(desk.event(events={SESSION_REVOKED: {"event_timestamp": issued}})) == (202, None)
    (selector,) = await desk.revoked()
    assert (selector.iss, selector.kind, selector.value, selector.before) == (URL, "sub", "alice", issued)
    assert await desk.send(desk.event()) == (202, None)  # The same `jti` again: taken, and nothing more is revoked.
    assert len(await desk.revoked()) == 1
    assert await desk.send(desk.event(jti="two", events={"https://unknown.example/type": {}})) == (202, None)
    assert len(await desk.revoked()) == 1
    token = {"format": "jwt_id", "iss": URL, "jti": "a-token"}
    assert await desk.send(desk.event(jti="three", sub_id=token)) == (202, None)
    entry, now = (await desk.entries())[-1], desk.office.stage.world.clock.now()
    assert 3_600 < entry.until - now < 3_700  # By the life of that issuer's tokens, which is longer than that of ours.


async def test_a_logout_token_is_revoked_before_it_is_taken_and_once(desk: Desk) -> None:
    """Back-Channel Logout 1.0, 2.6 and 2.8: 200 once, 400 for the same `jti` again, however many come at once."""
    token = desk.logout(sid="s-1")
    answers = await asyncio.gather(*(desk.send_logout(token) for _ in range(4)))
    assert sorted(status for status, _ in answers) == [200, 400, 400, 400]
    assert {(one.kind, one.value) for one in await desk.revoked()} == {("sid", "s-1"), ("sub", "alice")}
    standing = len(await desk.revoked())
    status, answer = await desk.send_logout(token)
    assert (status, answer["error"]) == (400, "invalid_request")
    assert len(await desk.revoked()) == standing, "a replay wrote into the lane"


async def test_what_was_taken_is_remembered_for_as_long_as_it_could_be_taken_again(desk: Desk, valkey: Redis) -> None:
    """Back-Channel Logout 1.0, 2.6: forgotten sooner, a replay would be taken; kept for ever, the store would grow."""
    skew_ms = desk.office.stage.parts.skew_seconds * 1000

    async def remembered_ms() -> list[int]:
        return [await valkey.pttl(name) for name in await valkey.keys(f"{PREFIX}*")]

    assert (await desk.send_logout(desk.logout()))[0] == 200
    (left_ms,) = await remembered_ms()
    assert 0 <= (LOGOUT_SECONDS * 1000 + 4 * skew_ms) - left_ms < 10_000
    assert left_ms > LOGOUT_SECONDS * 1000 + 2 * skew_ms  # From the future by S when it came, too old by S at the end.
    assert (await desk.send(desk.event(jti="two")))[0] == 202
    assert 3_600_000 < max(await remembered_ms()) <= 86_400_000


async def test_the_same_jti_of_another_issuer_is_another_event() -> None:
    """RFC 8417, 2.2: it is unique for its issuer; else one provider could use up the names of another's events."""
    received = Received(FickleRedis())
    assert await received.add("https://a.example", "1", lasting_seconds=60.0)
    assert await received.has("https://a.example", "1")
    assert not await received.has("https://b.example", "1")
    assert not await received.has("https://a.example1", "")
    assert not await received.add("https://a.example", "1", lasting_seconds=60.0)


async def test_a_clock_that_was_set_back_refuses_no_event_and_forgets_none_early(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is an hour ahead of our clock is now by the publishers' word, and is kept for as long from then on."""
    stage = desk.office.stage
    truth = stage.parts.replica.heard_at
    event = desk.event(iat=int(truth))
    monkeypatch.setattr(stage.parts.clock, "now", lambda: truth - 3600)
    assert await desk.send(event) == (202, None)
    (entry,) = await desk.entries()
    assert entry.selector.value == "alice"
    assert entry.until >= truth + 3600  # The issuer's tokens live for an hour.


async def test_what_an_attacker_sends_is_refused_and_revokes_nothing(desk: Desk) -> None:
    """RFC 8935, 2.4: without a word more than the code; a stranger must not be able to log anybody out."""
    good, stranger = desk.event(), Abroad(desk.office.stage.world.clock)
    head, payload, signature = good.split(b".")
    theirs = stranger.mint(header={"typ": "secevent+jwt", "kid": desk.abroad._world.signing_kid})
    attacks: list[tuple[bytes, str]] = [
        (theirs, "authentication_failed"),
        (b"", "invalid_request"),
        (good + b"=", "invalid_request"),
        (b"x" * 9000, "invalid_request"),
        (b".".join((b"eyJhbGciOiJub25lIn0", payload, b"")), "invalid_request"),
        (b".".join((head, desk.event(jti="another").split(b".")[1], signature)), "authentication_failed"),
        (b".".join((head, payload, signature[:-2] + b"AA")), "authentication_failed"),
        (desk.event(header={"typ": "JWT"}), "invalid_request"),
        (desk.event(header={"typ": "logout+jwt"}), "invalid_request"),
        (desk.event(header={"typ": "at+jwt"}), "invalid_request"),
        (desk.event(header={"jku": "https://evil.example"}), "invalid_request"),
        (desk.event(header={"kid": "another"}), "invalid_key"),
        (desk.event(iss="https://evil.example"), "invalid_issuer"),
        (desk.event(iss=desk.office.stage.world.issuer), "invalid_issuer"),
        (desk.event(iss=None), "invalid_issuer"),
        (desk.event(iss=[URL]), "invalid_issuer"),
        (desk.event(aud="another"), "invalid_audience"),
        (desk.event(events={}), "invalid_request"),
    ]
    for token, err in attacks:
        status, answer = await desk.send(token)
        assert (status, answer["err"]) == (400, err), token[:80]
        assert answer.keys() == {"err", "description"}
    assert desk.office.figure("keyturn_received_events_total", kind="set", outcome="refused") == len(attacks)
    assert (await desk.send(good, "application/jwt"))[0] == 415
    for logout in (
        desk.logout(header={"typ": "JWT"}), desk.logout(nonce="n"), desk.logout(events=None), desk.logout(iss="https://evil.example"),
        desk.event().decode(), desk.logout(header={"kid": "another"}), "x",
    ):  # fmt: skip
        status, answer = await desk.send_logout(logout)
        assert (status, answer["error"]) == (400, "invalid_request")
    assert await desk.revoked() == []


async def test_a_type_may_be_spelled_in_full(desk: Desk) -> None:
    """RFC 7515, 4.1.9: `application/` may be left out of a `typ`, and so may stand there."""
    assert (await desk.send(desk.event(header={"typ": "application/secevent+jwt"})))[0] == 202
    assert (await desk.send_logout(desk.logout(jti="two", header={"typ": "application/logout+jwt"})))[0] == 200


async def test_an_issuer_that_was_not_asked_for_events_is_none_and_its_keys_are_not_read(office: Office) -> None:
    """Each is a connection to somebody else, and each a way in: nothing is opened that nobody has configured."""
    assert office.service._senders._keys == {}
    token = Abroad(office.stage.world.clock).mint(header={"typ": "secevent+jwt"}, iss=PROVIDER)
    headers = {"Content-Type": "application/secevent+jwt"}
    async with office.http.post("/events", data=token, headers=headers) as answer:
        assert (answer.status, (await answer.json())["err"]) == (400, "invalid_issuer")


async def test_what_was_taken_or_passed_over_is_logged_without_whom_it_concerns(desk: Desk) -> None:
    """An operator sees that a sender says what ends nothing here; a stranger's words must not fill the log."""
    unknown = f"https://unknown.example/{'x' * 1_000}"
    with capture_logs() as logs:
        assert (await desk.send(desk.event(events={SESSION_REVOKED: {}, unknown: {}})))[0] == 202
    told = {line["event"]: line for line in logs if line["event"].startswith("event_")}
    assert told.keys() == {"event_taken", "event_passed_over"}
    assert told["event_taken"]["selectors"] == ["sub"]
    assert told["event_passed_over"]["reasons"] == ["event_type"]
    assert "alice" not in str(logs)
    assert all(len(one) <= 128 for line in told.values() for one in line["types"])
    assert desk.office.figure("keyturn_received_events_total", kind="set", outcome="revoked") == 1


async def test_strangers_with_invented_keys_have_few_wait_for_them(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checklist, every endpoint: a limit on everything that grows; whoever is turned away may come again."""
    monkeypatch.setattr(senders, "MOST_WAITING", 2)
    keys, gate = desk.office.service._senders._keys[URL], asyncio.Event()

    async def slowly() -> None:
        await gate.wait()

    monkeypatch.setattr(keys, "renew", slowly)
    keys.usable_until = float("-inf")
    asked = [asyncio.create_task(desk.send(desk.event(jti=str(number)))) for number in range(2)]
    await eventually(lambda: desk.office.service._senders._waiting == 2)
    assert (await asyncio.wait_for(desk.send(desk.event()), 5))[0] == 503  # At once, and not when its time is up.
    gate.set()
    assert [status for status, _ in await asyncio.gather(*asked)] == [503, 503]
    assert desk.office.service._senders._waiting == 0


async def test_what_cannot_be_made_durable_is_not_taken_and_comes_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sender forgets what was taken: a store that is away must be 503, and the repetition is no replay."""

    async def gone(*_arguments: object, **_options: object) -> None:
        raise FeedUnavailable("gone")

    monkeypatch.setattr(desk.office.service._writer, "write", gone)
    assert (await desk.send(desk.event()))[0] == 503
    assert (await desk.send_logout(desk.logout()))[0] == 503
    monkeypatch.undo()
    assert (await desk.send(desk.event()))[0] == 202
    assert (await desk.send_logout(desk.logout(jti="two")))[0] == 200
    assert len(await desk.revoked()) == 2


async def test_an_issuer_whose_keys_cannot_be_had_is_503(desk: Desk) -> None:
    """Not 400: the sender would give up, and the session would live on here."""
    keys = desk.office.service._senders._keys[URL]
    desk.file.unlink()
    keys.usable_until = float("-inf")
    status, answer = await desk.send(desk.event())
    assert (status, answer["code"]) == (503, "issuer_keys_unavailable")
    assert (await desk.send_logout(desk.logout()))[0] == 503
    assert await desk.revoked() == []
