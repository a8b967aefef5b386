"""`POST /token`, refresh: RFC 6749 (6), RFC 9700 (4.14.2), RFC 8707 (2.2), and the checklist's lines on refresh."""

import asyncio
from typing import Any, cast

import pytest

from keyturn import entropy
from keyturn.contract.credentials import CredentialKind, credential_kind
from keyturn.contract.selectors import SelectorKind
from keyturn.contract.tokens import parse_token
from keyturn.verifier.verdict import Kind
from serving.endings import ENDINGS_KEY, Endings
from serving.promises import PROMISE_KEY, Promise, Promises
from tests.authorization.conftest import OTHER_APP, Ask
from tests.authorization.signer import FakeSigner
from tests.building import CLIENT, FickleRedis, Standing
from tests.families import APP, TWO, begin, begin_turned, families_of, new_refresh_token
from tests.world import AUDIENCE, policy

INVALID = (400, "invalid_grant")


async def refresh(ask: Ask, token: str, client_id: str = APP, **form: str) -> tuple[int, Any]:
    """Present a refresh token, and return status and content."""
    fields = [("grant_type", "refresh_token"), ("refresh_token", token), *form.items()]
    answer, content = await ask(client_id, fields=fields)
    return answer.status, content


async def refused(ask: Ask, token: str, client_id: str = APP, **form: str) -> tuple[int, str]:
    """Present a refresh token that is not good, and return status and error."""
    status, content = await refresh(ask, token, client_id, **form)
    return status, content["error"]


async def endings(stage: Standing) -> list[str]:
    """Return the grants that revocation is to end."""
    written = await Endings(stage.redis, stage.record_keys).read(wait_seconds=0.001)
    return [one.ending.grant_id for one in written if one.ending is not None]


async def test_a_refresh_token_is_answered_with_the_next_one_and_an_access_token_of_its_grant(
    ask: Ask, stage: Standing
) -> None:
    """RFC 6749, 6: for the same subject, client, scope and session; RFC 9700, 4.14.2: rotated."""
    token = await begin(stage)
    status, content = await refresh(ask, token)
    assert status == 200
    assert content.keys() == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert content["refresh_token"] != token
    assert credential_kind(content["refresh_token"]) is CredentialKind.REFRESH
    verdict = stage.member.verifier.judge(content["access_token"].encode(), policy(scopes=("read", "write")))
    assert verdict.kind is Kind.ACTIVE
    held = (await families_of(stage).read(token)).held
    assert held is not None
    named = {name: verdict.claims[name] for name in held.family.claims}
    assert named == held.family.claims
    assert (await refresh(ask, content["refresh_token"]))[0] == 200


async def test_an_opaque_access_token_comes_of_a_refresh_token_too(ask: Ask, stage: Standing) -> None:
    """Its record names grant and session, so that a revocation finds it."""
    token = await begin(stage)
    status, content = await refresh(ask, token, token_format="opaque")
    assert status == 200
    record = await stage.records.get(content["access_token"]) or {}
    assert (record["sid"], record["sub"], record["client_id"]) == ("session-1", "alice", APP)


async def test_many_at_once_get_one_successor(ask: Ask, stage: Standing) -> None:
    """Checklist (2) and (3): whoever loses finds the family turned; there is no half-done winner to wait for."""
    token = await begin(stage)
    for _ in range(5):
        answers = await asyncio.gather(*(refresh(ask, token) for _ in range(8)))
        assert [status for status, _ in answers] == [200] * 8
        successors = {content["refresh_token"] for _, content in answers}
        assert len(successors) == 1
        assert len({content["access_token"] for _, content in answers}) == 8
        token = successors.pop()
    assert await endings(stage) == []


async def test_the_same_retry_within_the_grace_gets_the_same_successor(ask: Ask, stage: Standing) -> None:
    """Checklist (2): its answer may have got lost; the access token is a new one, of the same grant."""
    token = await begin(stage)
    first, again = [(await refresh(ask, token))[1] for _ in range(2)]
    assert first["refresh_token"] == again["refresh_token"]
    assert first["access_token"] != again["access_token"]
    assert parse_token(again["access_token"].encode()).claims["sid"] == "session-1"


async def test_the_grace_covers_the_immediate_predecessor_only(ask: Ask, stage: Standing) -> None:
    """Checklist (2): once the successor was used, too, whoever comes with the first one is not the same client."""
    first = await begin(stage)
    second = (await refresh(ask, first))[1]["refresh_token"]
    third = (await refresh(ask, second))[1]["refresh_token"]
    assert await refused(ask, first) == INVALID
    assert [await refused(ask, token) for token in (first, second, third)] == [INVALID] * 3


@pytest.mark.parametrize(("ago_seconds", "good"), [(8.0, True), (-8.0, True), (12.0, False), (-3600.0, False)])
async def test_the_grace_is_short_by_the_stores_clock(
    ask: Ask, stage: Standing, ago_seconds: float, good: bool
) -> None:
    """One clock for all replicas of the service; one that was set back does not make the grace long."""
    used, successor = await begin_turned(stage, ago_seconds=ago_seconds)
    status, content = await refresh(ask, used)
    assert (status, content.get("refresh_token")) == ((200, successor) if good else (400, None))


async def test_reuse_after_the_grace_ends_the_family_and_asks_for_the_end_of_the_grant(
    ask: Ask, stage: Standing
) -> None:
    """Checklist (4), RFC 9700, 4.14.2: which of the two is the thief cannot be told, so neither gets anything more."""
    used, successor = await begin_turned(stage, ago_seconds=60.0)
    held = (await families_of(stage).read(used)).held
    assert held is not None
    assert await refused(ask, used) == INVALID
    assert await endings(stage) == [held.family.claims["grant_id"]]
    assert await refused(ask, successor) == INVALID
    assert await refused(ask, used) == INVALID
    assert len(await endings(stage)) == 1, "an ended family asks for its end once"


async def test_a_used_token_is_known_again_however_old_it_is(ask: Ask, stage: Standing) -> None:
    """A thief may have turned the family a thousand times before its owner comes back: he must not be the last."""
    token = oldest = await begin(stage)
    for _ in range(5):
        token = (await refresh(ask, token))[1]["refresh_token"]
    assert await refused(ask, oldest) == INVALID
    assert await refused(ask, token) == INVALID
    assert len(await endings(stage)) == 1


async def test_another_clients_token_changes_nothing(ask: Ask, stage: Standing) -> None:
    """Checklist (1), RFC 6749, 6: bound to its client, which is known before any reuse logic; else anybody ends it."""
    used, successor = await begin_turned(stage, ago_seconds=60.0)
    for token in (used, successor):
        assert await refused(ask, token, OTHER_APP) == INVALID
    assert await endings(stage) == []
    assert (await refresh(ask, successor))[0] == 200


async def test_what_is_no_good_token_gets_one_answer(ask: Ask, stage: Standing) -> None:
    """RFC 6749, 5.2: unknown, malformed, expired, ended and of another kind are told alike."""
    now, access = stage.world.clock.now(), await stage.put_opaque()
    wrong = [
        new_refresh_token(), "nonsense", "kt_rt_", access, "kt_rt_" + "A" * 48, "ü", stage.world.mint().decode(),
        await begin(stage, expires_at=now - 1), await begin(stage, ends_at=now - 1), await begin(stage, ended=True),
        await begin(stage, claims={"iss": "https://other.example"}),
    ]  # fmt: skip
    answers = [await refresh(ask, token) for token in wrong]
    assert [(status, content) for status, content in answers] == [answers[0]] * len(wrong)
    assert answers[0][1]["error"] == "invalid_grant"
    assert await endings(stage) == []


async def test_a_refresh_token_is_named_and_its_grant_type_is_the_clients(ask: Ask, stage: Standing) -> None:
    """RFC 6749, 5.2 and 6."""
    token = await begin(stage, claims={"client_id": CLIENT})
    answer, content = await ask(APP, fields=[("grant_type", "refresh_token")])
    assert (answer.status, content["error"]) == (400, "invalid_request")
    assert await refused(ask, token, CLIENT) == (400, "unauthorized_client")


async def test_narrowing_narrows_the_access_token_and_never_the_grant(ask: Ask, stage: Standing) -> None:
    """Checklist (5), RFC 6749, 6 and RFC 8707, 2.2."""
    token = await begin(stage)
    _, content = await refresh(ask, token, scope="read", resource=TWO)
    claims = parse_token(content["access_token"].encode()).claims
    assert (content["scope"], claims["scope"], claims["aud"]) == ("read", "read", TWO)
    _, content = await refresh(ask, content["refresh_token"])
    claims = parse_token(content["access_token"].encode()).claims
    assert (content["scope"], claims["scope"], claims["aud"]) == ("read write", "read write", [AUDIENCE, TWO])


async def test_more_than_the_grant_is_refused_and_uses_nothing_up(ask: Ask, stage: Standing) -> None:
    """RFC 6749, 6: "MUST NOT include any scope not originally granted"; what the client may else have is no reason."""
    token = await begin(stage, claims={"scope": "read", "aud": AUDIENCE})
    assert await refused(ask, token, scope="read write") == (400, "invalid_scope")
    assert await refused(ask, token, resource=TWO) == (400, "invalid_target")
    assert await refused(ask, token, token_format="saml") == (400, "invalid_request")
    status, content = await refresh(ask, token)
    assert (status, content["scope"]) == (200, "read")
    lost = await begin(stage, claims={"scope": "admin"})
    assert await refused(ask, lost) == (400, "invalid_scope")  # The client may not have it any more.


async def test_the_end_of_the_family_is_absolute(ask: Ask, stage: Standing) -> None:
    """Checklist (5): no turn moves it, and no token outlives it."""
    ends_at = stage.world.clock.now() + 100.0
    token = await begin(stage, ends_at=ends_at, expires_at=ends_at)
    for _ in range(3):
        _, content = await refresh(ask, token)
        token = content["refresh_token"]
        assert content["expires_in"] <= 100
        held = (await families_of(stage).read(token)).held
        assert held is not None
        assert (held.family.ends_at, held.family.expires_at) == (ends_at, ends_at)


async def test_a_grant_lasts_no_longer_than_revocation_keeps_what_names_it(ask: Ask, stage: Standing) -> None:
    """Invariant 21: else a grant that was revoked would come back once its revocation is forgotten."""
    now = stage.world.clock.now()
    promise = Promise(iss=stage.world.issuer, seconds=3600.0, at=now)
    await Promises(stage.redis, stage.record_keys).write(promise)
    older = await begin(stage, claims={"grant_id": entropy.uuid7(now - 3601)})
    younger = await begin(stage, claims={"grant_id": entropy.uuid7(now - 3600 + 100)})
    assert await refused(ask, older) == INVALID
    status, content = await refresh(ask, younger)
    assert (status, 90 <= content["expires_in"] <= 100) == (200, True)


async def test_without_revocations_word_nothing_turns(ask: Ask, stage: Standing) -> None:
    """RFC 9110, 15.6.4: a store that was emptied, or a revocation service that never ran. The token stays good."""
    token = await begin(stage)
    await stage.redis.delete(PROMISE_KEY)
    assert (await refresh(ask, token))[0] == 503
    promise = Promise(iss=stage.world.issuer, seconds=3600.0, at=stage.world.clock.now())
    await Promises(stage.redis, stage.record_keys).write(promise)
    assert (await refresh(ask, token))[0] == 200


async def test_a_grant_in_its_last_seconds_gives_nothing_more(ask: Ask, stage: Standing, signer: FakeSigner) -> None:
    """A token that is over before it arrives is none; a signer whose clock is ahead would refuse to make it."""
    now = stage.world.clock.now()
    assert await refused(ask, await begin(stage, ends_at=now + stage.parts.skew_seconds + 0.9)) == INVALID
    assert signer.batches == []
    assert (await refresh(ask, await begin(stage, ends_at=now + 60)))[0] == 200


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_a_revoked_grant_mints_nothing(ask: Ask, stage: Standing, elsewhere: bool) -> None:
    """Checklist, revocation (10): by whatever names the grant; where it was revoked a moment ago elsewhere, too."""
    grant = entropy.uuid7(stage.world.clock.now())
    for kind, value, claims in (
        (SelectorKind.SESSION, "session-9", {"sid": "session-9"}),
        (SelectorKind.GRANT, grant, {"grant_id": grant}),
        (SelectorKind.SUBJECT, "bob", {"sub": "bob"}),
        (SelectorKind.AUDIENCE, TWO, {}),
        (SelectorKind.CLIENT, APP, {}),
        (SelectorKind.ALL, "", {}),
    ):
        token = await begin(stage, claims=claims)
        before = None if kind in {SelectorKind.SESSION, SelectorKind.GRANT} else stage.world.clock.now() + 1
        await stage.revoke(stage.world.entry(kind, value, before=before), elsewhere=elsewhere)
        assert await refused(ask, token) == INVALID, kind
    assert await endings(stage) == []


async def test_a_revocation_in_the_middle_is_seen_before_the_family_turns(
    ask: Ask, stage: Standing, signer: FakeSigner
) -> None:
    """Architecture, revocation: the test stands inside the consuming script; here it comes while the signer signs."""
    token = await begin(stage, claims={"sid": "session-7"})

    async def revoke() -> None:
        await stage.revoke(stage.world.entry(SelectorKind.SESSION, "session-7"), elsewhere=True)

    signer.meanwhile = revoke  # type: ignore[method-assign]
    assert await refused(ask, token) == INVALID
    held = (await families_of(stage).read(token)).held
    assert held is not None
    assert held.family.is_current(token)


async def test_without_a_signer_nothing_is_used_up(ask: Ask, stage: Standing, signer: FakeSigner) -> None:
    """The client comes back, maybe after the grace: its token must be as good as it was."""
    token = await begin(stage)
    signer.status = 503
    assert await refused(ask, token) == (503, "temporarily_unavailable")
    held = (await families_of(stage).read(token)).held
    assert held is not None
    assert held.family.is_current(token)
    signer.status = 200
    assert (await refresh(ask, token))[0] == 200


async def test_without_a_store_or_a_fresh_replica_a_client_is_told_to_come_back(
    ask: Ask, stage: Standing, store: FickleRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After, never `invalid_grant`: a client would throw its token away."""
    token = await begin(stage)
    store.away = True
    assert await refused(ask, token) == (503, "temporarily_unavailable")
    store.away = False
    boottime = stage.parts.clock.boottime()
    monkeypatch.setattr(stage.parts.clock, "boottime", lambda: boottime + 1000)
    assert await refused(ask, token) == (503, "temporarily_unavailable")


async def test_where_too_many_endings_wait_a_reuse_is_told_to_come_back(
    ask: Ask, stage: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ending that is not written down would leave access tokens alive: then the family is not ended either."""
    used, _ = await begin_turned(stage, ago_seconds=60.0)
    monkeypatch.setattr("serving.families.MOST_ENDINGS", 1)
    await stage.redis.xadd(ENDINGS_KEY, {"ending": b"somebody's"})
    assert await refused(ask, used) == (503, "temporarily_unavailable")
    await stage.redis.delete(ENDINGS_KEY)
    assert await refused(ask, used) == INVALID
    assert len(await endings(stage)) == 1


async def test_what_the_stores_owner_writes_is_nobodys_token(ask: Ask, stage: Standing) -> None:
    """A stolen store forges no token: boxes open under their own name only, and another type is no answer."""
    token, other = await begin(stage), await begin(stage, claims={"sub": "mallory"})
    families = families_of(stage)
    one, two = (await families.read(token)).held, (await families.read(other)).held
    assert one is not None
    assert two is not None
    await stage.redis.set(one.name, two.box)
    assert await refused(ask, token) == INVALID
    await stage.redis.set(one.name, b"")
    assert await refused(ask, token) == INVALID
    await stage.redis.delete(one.name)
    await cast("Any", stage.redis.hset(one.name, "a", "b"))
    assert await refused(ask, token) == (503, "temporarily_unavailable")
    assert (await refresh(ask, other))[0] == 200


async def test_no_token_stands_in_the_store_and_a_turn_takes_no_room(ask: Ask, stage: Standing) -> None:
    """Whoever reads the store redeems nothing; a family of ten thousand turns must not fill it."""
    token = await begin(stage)
    seen, keys = [token], await stage.redis.dbsize()
    for _ in range(3):
        seen.append((await refresh(ask, seen[-1]))[1]["refresh_token"])
    assert await stage.redis.dbsize() == keys
    held = (await families_of(stage).read(token)).held
    assert held is not None
    whole = held.box + repr(held.family).encode()
    assert not any(part in whole for one in seen for part in (one.encode(), one[6:].encode()))
    assert 0 < await stage.redis.pttl(held.name) <= (86_400 + 2) * 1000
