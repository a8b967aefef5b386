"""`authorization_code` at the token endpoint: bound, timely, unrevoked, and once (RFC 6749, 4.1.3; RFC 7636, 4.6)."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from authorization.codes import PREFIX, USED_PREFIX
from keyturn.contract.selectors import SelectorKind
from serving.endings import Ending, Endings
from tests.authorization.conftest import signer_of, stage_on
from tests.authorization.door import APP, BACK, WEB, Door, door_on
from tests.authorization.signer import FakeSigner
from tests.building import CLIENT, SECRETS, FickleRedis, Standing, basic
from tests.clocks import LeapingClock
from tests.slowing import slow_client
from tests.world import policy

ROUNDS = int(os.environ.get("KEYTURN_TEST_ROUNDS", "3"))
UNUSABLE = "kt_ac_" + "A" * 48


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code": None}, "invalid_request"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"code_verifier": None}, "invalid_request"),
        ({"code_verifier": "a" * 42}, "invalid_request"),
        ({"code_verifier": "a" * 129}, "invalid_request"),
        ({"code_verifier": "a" * 43}, "invalid_grant"),
        ({"redirect_uri": BACK[WEB]}, "invalid_grant"),
        ({"redirect_uri": BACK[APP] + "x"}, "invalid_grant"),
        ({"code": UNUSABLE}, "invalid_grant"),
        ({"code": "x"}, "invalid_grant"),
        ({"token_format": "saml"}, "invalid_request"),
        ({"resource": "https://other.example"}, "invalid_target"),
    ],
)
async def test_a_code_is_looked_at_before_it_is_used(door: Door, changes: dict[str, Any], error: str) -> None:
    """Checklist, token endpoint 2 and 3: who does not know all that belongs to it can use nothing up."""
    code = await door.code()
    status, content = await door.redeem(code, **changes)
    assert (status, content["error"]) == (400, error)
    assert (await door.redeem(code))[0] == 200


async def test_a_code_is_its_own_clients(door: Door) -> None:
    """RFC 6749, 4.1.3: another client gets nothing for it, and does not spoil it either."""
    code = await door.code()
    assert (await door.redeem(code, WEB, redirect_uri=BACK[APP]))[1]["error"] == "invalid_grant"
    form = {
        "grant_type": "authorization_code", "code": code, "redirect_uri": BACK[APP], "code_verifier": door.verifier,
    }  # fmt: skip
    for headers, error in ((basic(CLIENT, SECRETS[CLIENT]), "unauthorized_client"), ({}, "invalid_client")):
        async with door.http.post("/token", data=form, headers=headers) as answer:
            assert (await answer.json())["error"] == error
    assert (await door.redeem(code))[0] == 200


async def test_a_public_client_gets_nothing_for_itself(door: Door) -> None:
    """RFC 6749, 4.4: client credentials are for clients that have some."""
    form = {"grant_type": "client_credentials", "client_id": APP}
    async with door.http.post("/token", data=form) as answer:
        assert (answer.status, (await answer.json())["error"]) == (400, "unauthorized_client")


async def test_a_used_code_is_remembered_as_used(door: Door, store: FickleRedis) -> None:
    """RFC 6749, 4.1.2: MUST NOT be used more than once; and how it was used must outlast the minute that it had."""
    code = await door.code()
    [name] = await store.keys(f"{PREFIX}*")
    assert 55_000 < await store.pttl(name) <= 60_000
    assert (await door.redeem(code))[0] == 200
    assert (await door.redeem(code))[1]["error"] == "invalid_grant"
    [mark] = await store.keys(f"{USED_PREFIX}*")
    assert await store.pttl(mark) > await store.pttl(name) > 29 * 86_400_000
    assert code.encode() not in name + (await store.get(name) or b"")


async def test_a_code_that_comes_again_ends_what_came_of_it(door: Door, stage: Standing) -> None:
    """RFC 6749, 4.1.2, and checklist, token endpoint (1): a later replay revokes what the first got; said once."""
    code = await door.code()
    _, content = await door.redeem(code)
    claims = stage.member.verifier.judge(content["access_token"].encode(), policy()).claims
    endings = Endings(stage.redis, stage.record_keys)
    for changes in ({"code_verifier": "a" * 43}, {"redirect_uri": BACK[WEB]}, {"client_id": "nobody"}):
        status, told = await door.redeem(code, **changes)
        assert status in (400, 401)  # Who has not all of it can end nothing, nor learn whether it was used.
        assert "used" not in told["error_description"]
    assert await endings.read(wait_seconds=0.001) == []
    for _ in range(3):
        told = (await door.redeem(code))[1]
        assert told["error"] == "invalid_grant"
        assert "all that came of it ends" in told["error_description"]
    [written] = await endings.read(wait_seconds=0.001)
    assert written.ending == Ending(iss=stage.world.issuer, grant_id=claims["grant_id"], reason="code_reused")


async def test_a_replay_ends_it_long_after_the_codes_minute_too(
    door: Door, stage: Standing, clock: LeapingClock
) -> None:
    """A thief may come late: what he comes with was good for a minute, what came of it is good for weeks."""
    code = await door.code()
    assert (await door.redeem(code))[0] == 200
    clock.ahead_seconds = 600
    assert (await door.redeem(code))[1]["error"] == "invalid_grant"
    assert len(await Endings(stage.redis, stage.record_keys).read(wait_seconds=0.001)) == 1


async def test_where_too_many_endings_wait_a_replay_is_told_to_come_back(
    door: Door, stage: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has to end must be written down before anybody is told no: else nobody would ever end it."""
    code = await door.code()
    assert (await door.redeem(code))[0] == 200
    monkeypatch.setattr("authorization.codes.MOST_ENDINGS", 0)
    assert (await door.redeem(code))[0] == 503
    monkeypatch.undo()
    assert (await door.redeem(code))[0] == 400
    assert len(await Endings(stage.redis, stage.record_keys).read(wait_seconds=0.001)) == 1


async def test_the_first_answer_has_a_refresh_token_for_who_may_use_one(door: Door, stage: Standing) -> None:
    """RFC 6749, 4.1.4: it turns as any, and its grant is the sign-in."""
    browser = door.browser()
    back = await door.let_in(await door.begin(browser), sid="session-1", auth_time=1_700_000_000)
    _, content = await door.redeem((await browser.open(path=back)).told["code"])
    form = {"grant_type": "refresh_token", "client_id": APP, "refresh_token": content["refresh_token"]}
    async with door.http.post("/token", data=form) as answer:
        assert answer.status == 200
        told = await answer.json()
    assert told["refresh_token"] != content["refresh_token"]
    assert told["scope"] == "read write"
    first, second = (
        stage.member.verifier.judge(one["access_token"].encode(), policy()).claims for one in (content, told)
    )
    kept = ("sub", "client_id", "grant_id", "sid", "auth_time")  # RFC 9068, 2.2.1: the same for all of a grant.
    assert {name: first[name] for name in kept} == {name: second[name] for name in kept}
    assert first["jti"] != second["jti"]


async def test_a_code_is_good_for_a_minute(door: Door, clock: LeapingClock, store: FickleRedis) -> None:
    """RFC 6749, 4.1.2: ten minutes at most; by our clock, whatever the store still holds."""
    code = await door.code()
    [name] = await store.keys(f"{PREFIX}*")
    await store.persist(name)
    clock.ahead_seconds = 61
    assert (await door.redeem(code))[1]["error"] == "invalid_grant"
    assert await store.keys(f"{USED_PREFIX}*") == []


@pytest.fixture
def clock() -> LeapingClock:
    """Return a clock that a test can set ahead."""
    return LeapingClock()


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (SelectorKind.SUBJECT, "alice"), (SelectorKind.CLIENT, APP), (SelectorKind.AUDIENCE, "https://api.example"),
        (SelectorKind.ALL, ""), (SelectorKind.SESSION, "s1"),
    ],
)  # fmt: skip
async def test_a_sign_in_that_was_revoked_meanwhile_comes_to_nothing(
    door: Door, stage: Standing, kind: SelectorKind, value: str, elsewhere: bool
) -> None:
    """Checklist, revocation (10): from the page's word to the code, and from there to the tokens; a new one works."""
    browser = door.browser()
    back = await door.let_in(await door.begin(browser), sid="s1")
    code = (await browser.open(path=await door.let_in(await door.begin(browser), sid="s1"))).told["code"]
    before = None if kind is SelectorKind.SESSION else stage.world.clock.now()
    await stage.revoke(stage.world.entry(kind, value, before=before), elsewhere=elsewhere)
    late = (await browser.open(path=back)).told["code"]
    for one in (code, late):
        assert (await door.redeem(one))[1]["error"] == "invalid_grant"
    door.page_token = ""  # It was revoked, too.
    fresh = await door.code()
    assert (await door.redeem(fresh))[0] == 200


async def test_a_clock_that_runs_ahead_dates_no_sign_in_past_a_revocation_to_come(
    door: Door, stage: Standing, clock: LeapingClock
) -> None:
    """A grant that is dated ten minutes ahead would outlive each cutoff that an operator orders within these."""
    clock.ahead_seconds = 600  # Stale by it, and not expired: the service serves.
    code = await door.code()
    truth = clock.now() - clock.ahead_seconds
    await stage.revoke(stage.world.entry(SelectorKind.SUBJECT, "alice", before=truth + stage.parts.skew_seconds + 1))
    assert (await door.redeem(code))[1]["error"] == "invalid_grant"


def revoking_meanwhile(stage: Standing, signer: FakeSigner, subject: str) -> list[str]:
    """Have a subject revoked elsewhere each time that something is being signed; return whom, as often as it was."""
    rounds: list[str] = []

    async def meanwhile() -> None:
        rounds.append(subject)
        entry = stage.world.entry(SelectorKind.SUBJECT, subject, before=stage.world.clock.now())
        await stage.revoke(entry, elsewhere=True)

    signer.meanwhile = meanwhile  # type: ignore[method-assign]
    return rounds


async def test_a_revocation_that_arrives_while_the_token_is_made_wins(
    door: Door, stage: Standing, signer: FakeSigner
) -> None:
    """Architecture, revocation: the consuming script asks where the lane stands; nothing slips in between."""
    code, rounds = await door.code(), revoking_meanwhile(stage, signer, "alice")
    assert (await door.redeem(code))[1]["error"] == "invalid_grant"
    assert len(rounds) == 1


@pytest.mark.parametrize(("subject", "status"), [("alice", 400), ("bob", 200)])
async def test_what_only_the_store_knows_yet_is_asked_of_the_store(
    store: FickleRedis, identity: Any, tmp_path: Path, subject: str, status: int
) -> None:
    """No doorbell rings at this replica: the consuming script alone tells that the lane has moved on meanwhile."""
    async with (
        stage_on(store, identity, deaf=True) as stage,
        signer_of(stage, tmp_path) as signer,
        door_on(stage, identity, tmp_path, signer=f"unix:{tmp_path}/run/sign.sock") as door,
    ):
        code, rounds = await door.code(), revoking_meanwhile(stage, signer, subject)
        assert (await door.redeem(code))[0] == status
        assert len(rounds) == 1


async def test_revocations_of_others_meanwhile_are_no_hindrance(
    door: Door, stage: Standing, signer: FakeSigner
) -> None:
    """The lane moves on all the time: the grant is judged again there, and nothing is signed twice."""
    code, rounds = await door.code(), revoking_meanwhile(stage, signer, "bob")
    assert (await door.redeem(code))[0] == 200
    assert len(rounds) == 1


async def test_without_a_signer_the_code_is_not_used_up(door: Door, signer: FakeSigner) -> None:
    """503, and the same request is right later."""
    code = await door.code()
    signer.status = 503
    assert (await door.redeem(code))[0] == 503
    signer.status = 200
    assert (await door.redeem(code))[0] == 200


async def test_without_a_store_nothing_is_said_of_a_code(door: Door, store: FickleRedis) -> None:
    """503, never `invalid_grant`: a client that believed that would throw a good code away."""
    code = await door.code()
    store.away = True
    status, content = await door.redeem(code)
    assert (status, content["error"]) == (503, "temporarily_unavailable")
    store.away = False
    assert (await door.redeem(code))[0] == 200


@pytest.mark.parametrize("latency_ms", [0, 1, 5])
async def test_of_eight_at_once_exactly_one_gets_the_tokens(
    valkey_url: str, valkey: Redis, identity: Any, tmp_path: Path, latency_ms: int
) -> None:
    """Goal R3, and checklist, token endpoint (1): where a store is slow, check-then-consume lets several through."""
    async with (
        slow_client(valkey_url, latency_seconds=latency_ms / 1000) as redis,
        stage_on(redis, identity, pubsub=valkey) as stage,
        signer_of(stage, tmp_path),
        door_on(stage, identity, tmp_path, signer=f"unix:{tmp_path}/run/sign.sock") as door,
    ):
        for _ in range(ROUNDS):
            code = await door.code()
            answers = await asyncio.gather(*(door.redeem(code) for _ in range(8)))
            assert sorted(status for status, _ in answers) == [200] + [400] * 7
            assert {content["error"] for status, content in answers if status == 400} == {"invalid_grant"}
