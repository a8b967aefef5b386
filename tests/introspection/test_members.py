"""Which members of a record or a token reach whom: all that the RFCs name, and nothing that they do not."""

import json
from typing import Any

import pytest

from keyturn.contract.encoding import b64url, encode_json
from keyturn.contract.keys import Revoked
from tests.authorization.signer import FakeSigner
from tests.building import Standing
from tests.introspection.conftest import Ask
from tests.introspection.test_renderings import PHANTOM, SIGNED, read

SECRET: dict[str, Any] = {"password_hash": "x", "email": "alice@example.com", "internal": {"a": 1}}


def full(stage: Standing) -> dict[str, Any]:
    """Return claims with each member that a rendering may tell, and some that none may."""
    now = int(stage.world.clock.now())
    return stage.world.claims(
        sid="session", nbf=now - 1, username="alice", auth_time=now - 9, acr="high", amr=["pwd"],
        roles=["r"], groups=["g"],
        entitlements=["e"], act={"sub": "api"}, status={"status_list": {"idx": 7, "uri": "https://issuer.example/1"}},
        cnf={"jkt": "key"}, scope="read", **SECRET,
    )  # fmt: skip


async def test_an_answer_tells_the_members_of_the_rfc_and_none_of_a_token_s_own(ask: Ask, stage: Standing) -> None:
    """RFC 7662, 2.2 and 5: what an API's own claims say of a person is not for each resource server that may ask."""
    claims = full(stage)
    told = ("scope", "client_id", "username", "exp", "iat", "nbf", "sub", "aud", "iss", "jti", "cnf", "grant_id", "sid")
    expected = {"active": True, "token_type": "DPoP"} | {name: claims[name] for name in told}
    for token in (stage.world.mint(**claims), await stage.put_opaque(**claims)):
        assert json.loads((await ask(token)).body) == expected
        assert read(await ask(token, accept=SIGNED))[1]["token_introspection"] == expected


async def test_a_phantom_takes_over_what_the_record_says_of_the_grant_and_nothing_else(
    ask: Ask, stage: Standing
) -> None:
    """RFC 9068, 2.2; RFC 8693, 4.1: who acts, how the user signed in, where its status stands: an API decides by it."""
    claims = full(stage)
    phantom = read(await ask(await stage.put_opaque(**claims), accept=PHANTOM))[1]
    assert phantom.keys() == claims.keys() - SECRET.keys()
    assert {name: phantom[name] for name in phantom if name != "iat"} == {
        name: claims[name] for name in phantom if name != "iat"
    }


async def test_a_phantom_is_kept_for_half_a_minute_and_for_half_of_what_is_left_of_it(
    ask: Ask, stage: Standing, signer: FakeSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gets it still has time to use it: one that ends at once would be refused at the API's next door."""
    now = stage.parts.clock.boottime()
    monkeypatch.setattr(stage.parts.clock, "boottime", lambda: now)
    long, short = await stage.put_opaque(), await stage.put_opaque(exp=int(stage.world.clock.now()) + 20)
    for token, kept_seconds in ((long, 30.0), (short, 9.9)):
        monkeypatch.setattr(stage.parts.clock, "boottime", lambda: now)
        first = (await ask(token, accept=PHANTOM)).body
        signed = len(signer.batches)
        for later, batches in ((kept_seconds - 1.0, signed), (kept_seconds + 0.5, signed + 1)):
            monkeypatch.setattr(stage.parts.clock, "boottime", lambda at=now + later: at)
            again = (await ask(token, accept=PHANTOM)).body
            assert len(signer.batches) == batches
            assert read(again)[1]["jti"] == read(first)[1]["jti"]
        monkeypatch.setattr(stage.parts.clock, "boottime", lambda: now)


async def test_a_phantom_that_the_signer_made_too_short_is_none(ask: Ask, stage: Standing, signer: FakeSigner) -> None:
    """A token that has ended when it is handed out would be an answer that no API takes."""
    signer.longest_seconds = -1.0
    assert (await ask(await stage.put_opaque(), accept=PHANTOM)).body == b'{"active":false}'


async def test_an_answer_that_was_signed_while_the_keys_changed_is_not_kept(
    ask: Ask, stage: Standing, signer: FakeSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 9701, 8.1: a resource server would refuse the key that was revoked meanwhile, for as long as it is kept."""
    now, changes = stage.parts.clock.boottime(), ["one"]
    monkeypatch.setattr(stage.parts.clock, "boottime", lambda: now)
    token, other = await stage.put_opaque(), await stage.put_opaque()

    async def revoke() -> None:
        if changes:
            changes.pop()
            kid, fresh = stage.world.signing_kid, stage.world.first_key()
            await stage.publish(Revoked(kid=kid, reason="stolen"), *fresh)
            assert (
                await ask(token, accept=SIGNED)
            ).status == 200  # Whoever asks now, the new key set is known to what is kept.

    monkeypatch.setattr(signer, "meanwhile", revoke)
    assert (await ask(other, accept=SIGNED)).status == 200
    signed = len(signer.batches)
    for _ in range(2):  # Once more, and then it is kept.
        await ask(other, accept=SIGNED)
    assert len(signer.batches) == signed + 1


@pytest.mark.parametrize("payload", [None, "", "{}", '{"exp":null}', '{"exp":"soon"}', "[]", "\N{SNOWMAN}", "{"])
async def test_what_the_signer_gives_that_is_no_token_is_503(
    ask: Ask, stage: Standing, signer: FakeSigner, payload: str | None
) -> None:
    """Checklist (6), RFC 9110, 15.6.4: the key service's trouble is neither "inactive" nor a stack trace."""
    made = "no-token" if payload is None else f"e30.{b64url(payload.encode())}.e30"
    signer.answer = encode_json({"tokens": [made]})
    answer = await ask(await stage.put_opaque(), accept=PHANTOM)
    assert (answer.status, answer.body) == (503, b'{"error":"temporarily_unavailable"}')
