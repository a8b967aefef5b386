"""One verdict, signed: the JWT response of RFC 9701, and a phantom token in place of an opaque one."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from introspection.app import IntrospectionService
from keyturn import entropy
from keyturn.contract.encoding import decode_object, unb64url
from keyturn.contract.keys import Revoked
from keyturn.contract.selectors import SelectorKind
from keyturn.verifier.verdict import Kind
from tests.authorization.signer import FakeSigner
from tests.building import RESOURCE, Standing, basic, new_access_token, serving_at
from tests.clocks import LeapingClock
from tests.introspection.conftest import BOTH, OTHER, Answer, Ask
from tests.introspection.test_introspect import INACTIVE, unusable
from tests.world import AUDIENCE, policy

SIGNED, PHANTOM = "application/token-introspection+jwt", "application/jwt"


def read(answer: Answer | bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a JWT; its signature is another test's."""
    header, payload, _ = (answer.body if isinstance(answer, Answer) else answer).split(b".")
    return decode_object(unb64url(header)), decode_object(unb64url(payload))


def genuine(stage: Standing, token: bytes) -> bool:
    """Say whether the key that the header names made the signature."""
    header, _ = read(token)
    signing_input, _, signature = token.rpartition(b".")
    key = stage.member.replica.verification[header["kid"]]
    return bool(key.algorithm.verify(signing_input, key.key, unb64url(signature)))


async def test_the_signed_answer_is_that_of_rfc_9701(ask: Ask, stage: Standing, signer: FakeSigner) -> None:
    """Checklist (9), RFC 9701, 5: typ, iss, iat, aud = caller, the object in one member; no top-level sub or exp."""
    for token in (stage.world.mint(), await stage.put_opaque()):
        plain, answer = await ask(token), await ask(token, accept=SIGNED)
        header, claims = read(answer)
        assert (answer.status, answer.headers["Content-Type"]) == (200, SIGNED)
        assert answer.headers["Cache-Control"] == "no-store"
        assert header["typ"] == "token-introspection+jwt"
        assert header["kid"] == signer.kids["token-introspection+jwt"]
        assert claims.keys() == {"iss", "iat", "aud", "token_introspection"}
        assert (claims["iss"], claims["aud"]) == (stage.world.issuer, RESOURCE)
        assert abs(claims["iat"] - stage.world.clock.now()) < 5
        assert claims["token_introspection"] == json.loads(plain.body)
        assert genuine(stage, answer.body)


async def test_a_signed_answer_is_for_the_caller_alone(ask: Ask, stage: Standing) -> None:
    """RFC 9701, 8.1: `aud` is who asked, so that another resource server cannot be shown it; kept or not."""
    token = stage.world.mint(aud=[AUDIENCE, "https://other.example"])
    for _ in range(2):
        for caller in (RESOURCE, OTHER, BOTH):
            assert read(await ask(token, caller, accept=SIGNED))[1]["aud"] == caller


async def test_a_signed_answer_is_no_access_token(ask: Ask, stage: Standing) -> None:
    """RFC 9701, 8.1 and RFC 8725, 3.11: by its type and by its key, whatever its claims say."""
    answer = await ask(stage.world.mint(), accept=SIGNED)
    assert stage.member.verifier.judge(answer.body, policy()).kind is Kind.INACTIVE
    assert (await ask(answer.body)).body == INACTIVE


async def test_every_unusable_token_gets_the_same_signed_answer(ask: Ask, stage: Standing) -> None:
    """Checklist (1): exactly {"active": false} in the signed answer (RFC 9701, 5), and not one header that differs."""
    answers = {}
    for name, token in (await unusable(stage)).items():
        answer = await ask(token, accept=SIGNED)
        _, claims = read(answer)
        del claims["iat"]
        headers = {header: text for header, text in answer.headers.items() if header != "Content-Length"}
        answers[name] = (answer.status, json.dumps(claims), json.dumps(headers))
    assert len(set(answers.values())) == 1
    assert json.loads(answers["nonsense"][1])["token_introspection"] == {"active": False}


async def test_a_phantom_token_is_an_access_token_of_the_same_names(ask: Ask, stage: Standing) -> None:
    """RFC 9068: what stands behind a gateway verifies it as any other, and every revocation finds it."""
    now = int(stage.world.clock.now())
    record = stage.world.claims(sid="session", auth_time=now - 9, nbf=now, secret_note="stays here")
    answer = await ask(await stage.put_opaque(**record), accept=PHANTOM)
    header, claims = read(answer)
    assert (answer.status, answer.headers["Content-Type"], header["typ"]) == (200, PHANTOM, "at+jwt")
    same = {name: value for name, value in record.items() if name not in ("iat", "secret_note")}
    assert {name: value for name, value in claims.items() if name != "iat"} == same
    verdict = stage.member.verifier.judge(answer.body, policy(scopes=("read",)))
    assert (verdict.kind, verdict.claims["sub"]) == (Kind.ACTIVE, "alice")
    again = await ask(answer.body)
    assert json.loads(again.body)["jti"] == record["jti"]


@pytest.mark.parametrize("kind", [SelectorKind.JTI, SelectorKind.GRANT, SelectorKind.SESSION])
async def test_a_phantom_token_dies_with_what_it_stands_for(ask: Ask, stage: Standing, kind: SelectorKind) -> None:
    """It was made before the revocation; the verifier behind the gateway refuses it all the same."""
    record = stage.world.claims(sid="session")
    token = await stage.put_opaque(**record)
    phantom = (await ask(token, accept=PHANTOM)).body
    assert stage.member.verifier.judge(phantom, policy()).kind is Kind.ACTIVE
    await stage.revoke(stage.world.entry(kind, record[kind.value]))
    assert stage.member.verifier.judge(phantom, policy()).kind is Kind.INACTIVE
    assert (await ask(token, accept=PHANTOM)).body == INACTIVE


async def test_a_jwt_is_its_own_phantom(ask: Ask, stage: Standing, signer: FakeSigner) -> None:
    """A gateway need not know which form its client got; nothing is signed for it."""
    token = stage.world.mint()
    assert (await ask(token, accept=PHANTOM)).body == token
    assert signer.batches == []


async def test_every_unusable_token_gets_the_same_plain_answer_in_place_of_a_phantom(
    ask: Ask, stage: Standing, signer: FakeSigner
) -> None:
    """Checklist (1), RFC 7662, 2.2: there is no token to hand out; a JWT that says so would be taken for one."""
    answers = {name: await ask(token, accept=PHANTOM) for name, token in (await unusable(stage)).items()}
    assert {name for name, answer in answers.items() if answer.body != INACTIVE} == set()
    assert {answer.headers["Content-Type"] for answer in answers.values()} == {"application/json"}
    assert len({(answer.status, tuple(sorted(answer.headers.items()))) for answer in answers.values()}) == 1
    assert signer.batches == []


async def test_no_phantom_outlives_its_token(
    ask: Ask, stage: Standing, signer: FakeSigner, clock: LeapingClock
) -> None:
    """`exp` is the token's own or sooner; past it there is none, though the skew is forgiven to the token itself."""
    exp = int(clock.now()) + 20
    tokens = [await stage.put_opaque(exp=exp), stage.world.mint(exp=exp).decode()]
    for token in tokens:
        assert read(await ask(token, accept=PHANTOM))[1]["exp"] == exp
    signer.longest_seconds = 5.0
    assert read(await ask(await stage.put_opaque(), accept=PHANTOM))[1]["exp"] <= clock.now() + 5
    signer.longest_seconds, signer.late_seconds = 86_400.0, 1
    assert (await ask(await stage.put_opaque(), accept=PHANTOM)).status == 503
    clock.ahead_seconds = exp - clock.now() + 0.5
    for token in tokens:
        assert json.loads((await ask(token)).body)["active"]
        assert (await ask(token, accept=PHANTOM)).body == INACTIVE


async def test_a_bound_token_says_so_in_each_form(ask: Ask, stage: Standing) -> None:
    """Checklist (8), RFC 9449, 6.2 and RFC 8705, 3.2: `cnf` goes along, or the binding would be laundered away."""
    for bound, token_type in (({"jkt": "abc"}, "DPoP"), ({"x5t#S256": "abc"}, "Bearer")):
        for token in (stage.world.mint(cnf=bound), await stage.put_opaque(cnf=bound)):
            plain = json.loads((await ask(token)).body)
            assert (plain["cnf"], plain["token_type"]) == (bound, token_type)
            assert read(await ask(token, accept=SIGNED))[1]["token_introspection"] == plain
            phantom = (await ask(token, accept=PHANTOM)).body
            assert read(phantom)[1]["cnf"] == bound
            assert stage.member.verifier.judge(phantom, policy()).reason == "bound"


async def test_what_would_be_signed_the_same_again_is_kept_for_a_moment(
    ask: Ask, stage: Standing, signer: FakeSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signature costs more than all the rest; it is never kept past its time, nor past a change of the keys."""
    token, now = await stage.put_opaque(), stage.parts.clock.boottime()
    monkeypatch.setattr(stage.parts.clock, "boottime", lambda: now)
    signed, phantom = await ask(token, accept=SIGNED), await ask(token, accept=PHANTOM)
    assert (await ask(token, accept=SIGNED)).body == signed.body
    assert (await ask(token, accept=PHANTOM)).body == phantom.body
    assert len(signer.batches) == 2
    monkeypatch.setattr(stage.parts.clock, "boottime", lambda: now + 1.1)
    assert (await ask(token, accept=SIGNED)).body != signed.body
    assert (await ask(token, accept=PHANTOM)).body == phantom.body
    kid, fresh = stage.world.signing_kid, stage.world.first_key()
    await stage.publish(Revoked(kid=kid, reason="stolen"), *fresh)
    renewed = await ask(token, accept=PHANTOM)
    assert read(renewed)[0]["kid"] == stage.world.signing_kid != kid
    assert stage.member.verifier.judge(renewed.body, policy()).kind is Kind.ACTIVE


async def test_what_a_key_signed_while_it_was_revoked_is_not_kept(
    ask: Ask, stage: Standing, signer: FakeSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the signature and its answer the key may go: the next one who asks gets a token that passes."""
    token, other, kid = await stage.put_opaque(), await stage.put_opaque(), stage.world.signing_kid
    await ask(token, accept=PHANTOM)

    async def revoke() -> None:
        monkeypatch.undo()
        fresh = stage.world.first_key()
        await stage.publish(Revoked(kid=kid, reason="stolen"), *fresh)
        await ask(token, accept=PHANTOM)  # Whoever asks now, the new key set is known to what is kept.

    monkeypatch.setattr(signer, "meanwhile", revoke)
    assert read(await ask(other, accept=PHANTOM))[0]["kid"] == kid
    again = await ask(other, accept=PHANTOM)
    assert read(again)[0]["kid"] == stage.world.signing_kid != kid
    assert stage.member.verifier.judge(again.body, policy()).kind is Kind.ACTIVE


async def test_each_of_many_askers_gets_his_own_phantom(ask: Ask, stage: Standing, signer: FakeSigner) -> None:
    """Asked for together, they are signed together, and none is mixed up."""
    tokens = [await stage.put_opaque(sub=f"user-{number}") for number in range(20)]
    answers = await asyncio.gather(*(ask(token, accept=PHANTOM) for token in tokens))
    assert [read(answer)[1]["sub"] for answer in answers] == [f"user-{number}" for number in range(20)]
    assert len(signer.batches) < 20


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_without_the_signer_nothing_signed_is_said(
    ask: Ask, stage: Standing, signer: FakeSigner, status: int
) -> None:
    """Checklist (6), RFC 9110, 15.6.4: 503 and Retry-After, never inactive; the plain answer goes on."""
    signer.status = status
    token = await stage.put_opaque()
    for accept in (SIGNED, PHANTOM):
        answer = await ask(token, accept=accept)
        assert (answer.status, answer.body) == (503, b'{"error":"temporarily_unavailable"}')
        assert answer.headers["Retry-After"] == "1"
    assert (await ask(new_access_token(), accept=SIGNED)).status == 503
    assert json.loads((await ask(token)).body)["active"]


async def test_without_the_store_no_form_says_anything(ask: Ask, stage: Standing, store: Any) -> None:
    """Checklist (6), RFC 9110, 15.6.4: what was signed a moment ago is no answer to a question asked now."""
    token = await stage.put_opaque()
    for accept in (SIGNED, PHANTOM):
        assert (await ask(token, accept=accept)).status == 200
        store.away = True
        answer = await ask(token, accept=accept)
        assert (answer.status, answer.headers["Content-Type"]) == (503, "application/json")
        store.away = False


async def test_a_service_without_a_signer_names_the_setting(stage: Standing, tmp_path: Path) -> None:
    """501: it will not be otherwise in a second."""
    service = IntrospectionService(stage.settings(tmp_path), stage.parts)
    async with serving_at([service], stage.parts) as session:
        sent = {"token": await stage.put_opaque()}
        for accept, status in ((SIGNED, 501), (PHANTOM, 501), ("application/json", 200)):
            headers = {**basic(RESOURCE), "Accept": accept}
            async with session.post("/introspect", data=sent, headers=headers) as answer:
                assert answer.status == status
                assert status == 200 or "introspection.signer" in (await answer.json())["error_description"]


async def test_what_nobody_makes_is_not_acceptable(session: ClientSession, stage: Standing) -> None:
    """RFC 9110, 15.5.7; the store is not asked for it, and a batch has one form."""
    for path, sent, accept in (
        ("/introspect", {"data": {"token": "x"}}, "text/html"),
        ("/introspect/batch", {"json": {"tokens": ["x"]}}, SIGNED),
    ):
        headers = {**basic(RESOURCE), "Accept": accept}
        async with session.post(path, headers=headers, **sent) as answer:
            told = await answer.json()
            assert (answer.status, told["error"]) == (406, "invalid_request")
            assert "application/json" in told["error_description"]


async def test_the_revocation_of_one_token_leaves_what_was_kept_of_others(ask: Ask, stage: Standing) -> None:
    """Answers are kept by what they say, and said only after a verdict: the revoked one is not found among them."""
    jti = entropy.uuid7(7)
    revoked, other = await stage.put_opaque(jti=jti), await stage.put_opaque()
    for token in (revoked, other):
        assert read(await ask(token, accept=SIGNED))[1]["token_introspection"]["active"]
    await stage.revoke(stage.world.entry(SelectorKind.JTI, jti), elsewhere=True)
    assert not read(await ask(revoked, accept=SIGNED))[1]["token_introspection"]["active"]
    assert (await ask(revoked, accept=PHANTOM)).body == INACTIVE
    assert read(await ask(other, accept=SIGNED))[1]["token_introspection"]["active"]
