"""`POST /introspect`: RFC 7662, and each line of the checklist that is there by now."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import ClientSession

from introspection.render import render
from keyturn import entropy
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential
from keyturn.contract.keys import Revoked
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.verifier.freshness import State
from keyturn.verifier.verdict import Kind, Verdict
from serving.problems import Style, answer_status
from tests.building import CLIENT, RESOURCE, SECRETS, FickleRedis, Standing, basic, new_access_token
from tests.clocks import LeapingClock
from tests.introspection.conftest import BOTH, OTHER, Ask
from tests.world import AUDIENCE

INACTIVE = b'{"active":false}'


async def test_an_active_jwt_is_told_with_its_claims(ask: Ask, stage: Standing) -> None:
    """RFC 7662, 2.2."""
    claims = stage.world.claims()
    answer = await ask(stage.world.mint(**claims))
    assert answer.status == 200
    assert json.loads(answer.body) == {"active": True, "token_type": "Bearer", **claims}
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"].startswith("application/json")


async def test_an_active_opaque_token_is_told_as_a_jwt_would_be(ask: Ask, stage: Standing) -> None:
    """A resource server need not know which form its client got."""
    claims = stage.world.claims()
    answer = await ask(await stage.put_opaque(**claims))
    assert json.loads(answer.body) == {"active": True, "token_type": "Bearer", **claims}


async def unusable(stage: Standing) -> dict[str, str | bytes]:
    """Return a token for each way of being unusable by `resource`."""
    world, now = stage.world, int(stage.world.clock.now())
    jti = {name: entropy.uuid7(now) for name in ("jwt", "opaque")}
    forms: dict[str, str | bytes] = {}
    changed: dict[str, dict[str, Any]] = {
        "expired": {"iat": now - 900, "exp": now - 600},
        "not yet valid": {"nbf": now + 600},
        "of a wrong audience": {"aud": "https://other.example"},
        "of a deleted client": {"client_id": "gone"},
        "of another issuer": {"iss": "https://evil.example"},
        "without a jti": {"jti": None},
        "with a broken scope": {"scope": " read"},
    }
    for name, changes in changed.items():
        forms[f"JWT {name}"] = world.mint(**changes)
        forms[f"opaque {name}"] = await stage.put_opaque(**changes)
    code, good = make_credential(CredentialKind.CODE, entropy.token_bytes(RANDOM_BYTES)), world.mint()
    await stage.records.put(code, world.claims(), expires_at=now + 60)
    forms |= {
        "code with the record of a token": code,
        "JWT revoked": world.mint(jti=jti["jwt"]),
        "opaque revoked": await stage.put_opaque(jti=jti["opaque"]),
        "opaque unknown": new_access_token(),
        "opaque malformed": new_access_token()[:-1] + "!",
        "opaque with a wrong checksum": "kt_at_" + "A" * 48,
        "refresh token": "kt_rt_" + new_access_token()[6:],
        "client secret": SECRETS[CLIENT],
        "JWT of another signature": good[:-8] + b"AAAAAAAA",
        "JWT with padding": good + b"==",
        "JWT of an unknown key": world.mint(header={"kid": "nobody"}),
        "JWT of another typ": world.mint(header={"typ": "JWT"}),
        "JWT of alg none": world.mint(header={"alg": "none"}),
        "nonsense": "nonsense",
        "three dots": "a.b.c",
        "not ASCII": "é",
        "oversized": "x" * 9000,
    }
    await stage.revoke(*(world.entry(SelectorKind.JTI, one) for one in jti.values()), elsewhere=True)
    return forms


async def test_every_token_that_the_caller_cannot_use_gets_the_same_answer(
    ask: Ask, stage: Standing, store: FickleRedis
) -> None:
    """Checklist (1), (4), RFC 7662, 2.2 and 4: a caller must not learn whether a token of others exists.

    The same bytes, the same headers; and as a measure of time that no busy machine disturbs, the same number of round
    trips to the store (the one that is oversized needs none).
    """
    tokens = await unusable(stage)
    await ask("warm up")  # The first question after the revocations makes the replica catch up.
    answers = {}
    for name, token in tokens.items():
        before = store.trips
        answers[name] = (await ask(token), store.trips - before if name != "oversized" else 1)
    assert {name: answer for name, (answer, _) in answers.items() if answer.body != INACTIVE} == {}
    assert (
        len({(answer.status, tuple(sorted(answer.headers.items())), trips) for answer, trips in answers.values()}) == 1
    )


async def test_a_key_that_was_revoked_takes_its_tokens_along(ask: Ask, stage: Standing) -> None:
    """Both lanes' positions are read: what an operator was told is revoked is inactive from then on, here too."""
    token = stage.world.mint()
    assert b'"active":true' in (await ask(token)).body
    other = await stage.world.caught_up()
    kid = stage.world.signing_kid
    fresh = stage.world.first_key()
    await stage.world.publisher(Lane.KEYS, other).append([Revoked(kid=kid, reason="stolen"), *fresh])
    assert (await ask(token)).body == INACTIVE
    assert b'"active":true' in (await ask(stage.world.mint())).body


@pytest.mark.parametrize("opaque", [False, True], ids=["JWT", "opaque"])
async def test_a_revocation_that_was_answered_is_obeyed_at_once(ask: Ask, stage: Standing, opaque: bool) -> None:
    """The replica hears nothing by itself here: the position read beside the record makes it catch up."""
    for number in range(5):
        changes: dict[str, Any] = {"jti": entropy.uuid7(number)}
        token = await stage.put_opaque(**changes) if opaque else stage.world.mint(**changes)
        assert b'"active":true' in (await ask(token)).body
        await stage.revoke(stage.world.entry(SelectorKind.JTI, changes["jti"]), elsewhere=True)
        answers = await asyncio.gather(*(ask(token) for _ in range(4)))
        assert {answer.body for answer in answers} == {INACTIVE}


async def test_a_token_is_active_for_the_audiences_of_the_caller_only(ask: Ask, stage: Standing) -> None:
    """A resource server must not learn of tokens that are for others."""
    for put in (stage.world.mint, stage.put_opaque):
        made: Any = put(aud=["https://first.example", AUDIENCE])
        token = await made if asyncio.iscoroutine(made) else made
        assert b'"active":true' in (await ask(token, RESOURCE)).body
        assert b'"active":true' in (await ask(token, BOTH)).body
        assert (await ask(token, OTHER)).body == INACTIVE
        assert (await ask(token, "nothing")).body == INACTIVE
    for audience in ("https://other.example", AUDIENCE):  # One of the caller's is enough, whichever.
        for token in (stage.world.mint(aud=audience), await stage.put_opaque(aud=audience)):
            assert b'"active":true' in (await ask(token, BOTH)).body


async def test_only_a_client_that_may_introspect_is_answered(ask: Ask, session: ClientSession, stage: Standing) -> None:
    """Checklist (2), RFC 7662, 2.1 and 2.3: 401 invalid_client, also for public clients."""
    token = stage.world.mint().decode()
    wrong = basic(RESOURCE, "wrong")
    for headers, form in (
        (wrong, {}),
        (basic("nobody", "x"), {}),
        (basic("public", ""), {}),
        ({}, {"client_id": "public"}),
        (basic(CLIENT), {}),
        ({}, {"client_id": CLIENT, "client_secret": SECRETS[CLIENT]}),
        ({}, {}),
        ({"Authorization": "Digest x"}, {}),
    ):
        async with session.post("/introspect", data={"token": token, **form}, headers=headers) as answer:
            assert (answer.status, (await answer.json())["error"]) == (401, "invalid_client")
            assert answer.headers["Cache-Control"] == "no-store"
            assert ("WWW-Authenticate" in answer.headers) == bool(headers)
    form = {"token": token, "client_id": RESOURCE, "client_secret": SECRETS[RESOURCE]}
    async with session.post("/introspect", data=form) as answer:
        assert (await answer.json())["active"] is True


async def test_a_hint_changes_nothing(ask: Ask, stage: Standing) -> None:
    """Checklist (3): right, wrong, unknown and absent give the same answer (RFC 7662, 2.1)."""
    for token in (stage.world.mint(), await stage.put_opaque(), new_access_token()):
        answers = {(await ask(token)).body}
        for hint in ("access_token", "refresh_token", "nonsense"):
            answers.add((await ask(token, token_type_hint=hint)).body)
        assert len(answers) == 1


async def test_the_time_of_a_token_is_looked_at_again_on_each_answer(
    ask: Ask, stage: Standing, clock: LeapingClock
) -> None:
    """Checklist (10), RFC 7662, 4: `exp` binds on a cache hit, too; the skew is forgiven, no more."""
    now = clock.now()
    tokens = [stage.world.mint(exp=int(now) + 2), await stage.put_opaque(exp=int(now) + 2)]
    for token in tokens:
        assert b'"active":true' in (await ask(token)).body
    clock.ahead_seconds = 2 + stage.parts.skew_seconds
    for token in tokens:
        assert (await ask(token)).body == INACTIVE


async def test_without_the_store_nothing_is_said(ask: Ask, stage: Standing, store: FickleRedis) -> None:
    """Checklist (6), RFC 9110, 15.6.4: 503, never inactive; for JWTs too, since a revocation may be there."""
    tokens = [stage.world.mint(), await stage.put_opaque(), new_access_token(), "nonsense"]
    assert b'"active":true' in (await ask(tokens[0])).body
    store.away = True
    for token in tokens:
        answer = await ask(token)
        assert (answer.status, answer.body) == (503, b'{"error":"temporarily_unavailable"}')
        assert (answer.headers["Retry-After"], answer.headers["Cache-Control"]) == ("1", "no-store")
    store.away = False
    assert b'"active":true' in (await ask(tokens[0])).body


async def test_a_store_that_was_emptied_says_nothing_of_revocations(
    ask: Ask, stage: Standing, store: FickleRedis
) -> None:
    """No position is not position zero: with the lanes gone, a record's absence means nothing either."""
    token = await stage.put_opaque()
    await store.flushall()
    for one in (token, stage.world.mint()):
        assert (await ask(one)).status == 503


async def test_an_expired_replica_says_nothing(ask: Ask, stage: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown is 503, never inactive."""
    boottime = stage.parts.clock.boottime()
    monkeypatch.setattr(stage.parts.clock, "boottime", lambda: boottime + 1000)
    for token in (stage.world.mint(), await stage.put_opaque(), new_access_token()):
        assert (await ask(token)).status == 503


async def test_questions_are_post_forms_with_one_token(session: ClientSession) -> None:
    """Checklist (7), RFC 7662, 2.1, RFC 6749, 3.2: a POST form; 400 for no token or two; no query; no-store."""
    headers = basic(RESOURCE)
    token = {"token": "x"}
    for asked, status in (
        (session.get("/introspect", params=token, headers=headers), 405),
        (session.post("/introspect", json=token, headers=headers), 415),
        (session.post("/introspect", data=[("token", "x"), ("token", "x")], headers=headers), 400),
        (session.post("/introspect", data={"a": "b"}, headers=headers), 400),
        (session.post("/introspect", data={"token": ""}, headers=headers), 400),
        (session.post("/introspect", params=token, data={"a": "b"}, headers=headers), 400),
    ):
        async with asked as answer:
            assert answer.status == status
            assert answer.headers["Cache-Control"] == "no-store"


async def test_questions_asked_together_share_their_way_to_the_store(
    ask: Ask, stage: Standing, store: FickleRedis
) -> None:
    """Each gets its own answer, in far fewer round trips."""
    tokens = [await stage.put_opaque(sub=f"user-{number}") for number in range(30)]
    before = store.trips
    answers = await asyncio.gather(*(ask(token) for token in tokens))
    assert [json.loads(answer.body)["sub"] for answer in answers] == [f"user-{number}" for number in range(30)]
    assert store.trips - before < 30


def test_an_unknown_verdict_has_one_rendering() -> None:
    """The 503 of introspection is that of every OAuth endpoint here."""
    rendered, plain = render(Verdict(Kind.UNKNOWN, "x", State.EXPIRED)), answer_status(503, Style.OAUTH)
    assert (rendered.status, rendered.body, rendered.headers) == (plain.status, plain.body, plain.headers)
