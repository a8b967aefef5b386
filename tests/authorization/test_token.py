"""`POST /token`, client credentials: RFC 6749 (4.4, 5.1, 5.2), RFC 8707, RFC 9068, and the checklist's lines."""

import asyncio
from typing import Any

import pytest
from aiohttp import ClientSession, FormData

from keyturn.contract.selectors import SelectorKind, grant_moment
from keyturn.contract.tokens import parse_token
from keyturn.verifier.verdict import Kind
from tests.authorization.conftest import Ask
from tests.authorization.signer import FakeSigner
from tests.building import ADMIN, CLIENT, RESOURCE, SECRETS, FickleRedis, Standing, basic
from tests.world import AUDIENCE, policy


async def test_a_client_gets_a_jwt_that_verifiers_accept(ask: Ask, stage: Standing) -> None:
    """RFC 6749, 5.1 and RFC 9068, 2.2: what was asked for, no more, and no refresh token (4.4.3)."""
    answer, content = await ask()
    assert answer.status == 200
    assert content.keys() == {"access_token", "token_type", "expires_in", "scope"}
    assert (content["token_type"], content["expires_in"], content["scope"]) == ("Bearer", 300, "read write")
    token = content["access_token"].encode()
    verdict = stage.member.verifier.judge(token, policy(scopes=("read", "write")))
    assert verdict.kind is Kind.ACTIVE
    claims = verdict.claims
    assert (claims["iss"], claims["sub"], claims["client_id"], claims["aud"]) == (
        stage.world.issuer, CLIENT, CLIENT, AUDIENCE,
    )  # fmt: skip
    assert claims["exp"] - claims["iat"] == 300
    assert all(isinstance(claims[name], int) for name in ("iat", "nbf", "exp"))
    assert grant_moment(claims["jti"]) == pytest.approx(stage.world.clock.now(), abs=5)
    assert grant_moment(claims["grant_id"]) == pytest.approx(stage.world.clock.now(), abs=5)


async def test_an_opaque_token_has_a_record_with_the_claims_of_a_jwt(ask: Ask, stage: Standing, tmp_path: Any) -> None:
    """Introspection and revocation treat both forms alike, because the record says what the JWT would."""
    answer, content = await ask(token_format="opaque", scope="read")
    assert answer.status == 200
    assert content["access_token"].startswith("kt_at_")
    assert (content["token_type"], content["expires_in"], content["scope"]) == ("Bearer", 300, "read")
    record = await stage.records.get(content["access_token"])
    assert record is not None
    assert record.keys() == {
        "iss", "sub", "client_id", "aud", "scope", "iat", "nbf", "exp", "jti", "grant_id",
    }  # fmt: skip
    assert (record["iss"], record["sub"], record["aud"]) == (stage.world.issuer, CLIENT, AUDIENCE)


async def test_the_form_of_the_token_is_the_clients_unless_it_asks_otherwise(ask: Ask) -> None:
    """`token_format` is our extension: default the client's, else jwt."""
    for client, form, opaque in (
        (CLIENT, {}, False),
        (CLIENT, {"token_format": "opaque"}, True),
        ("opaque", {}, True),
        ("opaque", {"token_format": "jwt"}, False),
    ):
        _, content = await ask(client, **form)
        assert content["access_token"].startswith("kt_at_") is opaque
    answer, content = await ask(token_format="saml")
    assert (answer.status, content["error"]) == (400, "invalid_request")


async def test_admin_tokens_are_opaque_whatever_is_asked_or_configured(ask: Ask) -> None:
    """A stolen signing key must not mint an operator, and a key's revocation must not lock the operator out."""
    _, content = await ask(ADMIN)
    assert content["access_token"].startswith("kt_at_")
    answer, content = await ask(ADMIN, token_format="jwt")
    assert (answer.status, content["error"]) == (400, "invalid_request")
    _, content = await ask("careless")
    assert content["access_token"].startswith("kt_at_")
    answer, content = await ask("careless", token_format="jwt", scope="keyturn:admin")
    assert (answer.status, content["error"]) == (400, "invalid_request")


async def test_scope_is_a_subset_of_the_clients(ask: Ask) -> None:
    """RFC 6749, 3.3: absent means all; more, or what is no scope, is `invalid_scope`."""
    assert (await ask(scope="write"))[1]["scope"] == "write"
    assert (await ask(scope="write read write"))[1]["scope"] == "write read"
    for wrong in ("read admin", "read  write", " read", 'read"', "r\tw", "é", "x" * 3000):
        answer, content = await ask(scope=wrong)
        assert (answer.status, content["error"]) == (400, "invalid_scope")
    _, content = await ask("refused", token_format="opaque")
    assert "scope" not in content


async def test_the_audience_is_the_clients_first_unless_it_names_others_of_its_own(ask: Ask) -> None:
    """RFC 8707, 2, and checklist (10): absolute, no fragment, subset, `invalid_target`."""

    async def audience(*fields: tuple[str, str]) -> Any:
        answer, content = await ask("wide", fields=[("grant_type", "client_credentials"), *fields])
        return parse_token(content["access_token"].encode()).claims["aud"] if answer.status == 200 else content["error"]

    two = "https://two.example/v1"
    assert await audience() == AUDIENCE
    assert await audience(("resource", two)) == two
    assert await audience(("audience", "urn:three")) == "urn:three"
    assert await audience(("resource", two), ("resource", AUDIENCE), ("resource", two)) == [two, AUDIENCE]
    assert await audience(("resource", two), ("audience", AUDIENCE)) == [two, AUDIENCE]
    for wrong in (
        "https://four.example", f"{AUDIENCE}#part", "/relative", "api.example", "https://two.example/v1/", "https://[",
        "a b", f"{AUDIENCE}#",
    ):  # fmt: skip
        assert await audience(("resource", wrong)) == "invalid_target"
        assert await audience(("resource", AUDIENCE), ("resource", wrong)) == "invalid_target"
    assert await audience(("audience", "urn:four")) == "invalid_target"
    for client, form in (("bare", {}), ("odd", {"resource": "https://odd.example/#part"})):
        assert (await ask(client, **form))[1]["error"] == "invalid_target"


async def test_grants_are_named_allowed_and_known(ask: Ask) -> None:
    """RFC 6749, 5.2: each error by its name."""
    for client, fields, error in (
        (CLIENT, [("scope", "read")], "invalid_request"),
        (CLIENT, [("grant_type", "")], "invalid_request"),
        (CLIENT, [("grant_type", "password")], "unsupported_grant_type"),
        (CLIENT, [("grant_type", "client_credentials"), ("grant_type", "client_credentials")], "invalid_request"),
        (CLIENT, [("grant_type", "client_credentials"), ("scope", "read"), ("scope", "read")], "invalid_request"),
        (RESOURCE, [("grant_type", "client_credentials")], "unauthorized_client"),
    ):
        answer, content = await ask(client, fields=fields)
        assert (answer.status, content["error"]) == (400, error)
    assert (await ask(nonsense="ignored"))[0].status == 200  # RFC 6749, 3.2.


async def test_every_answer_is_no_store(ask: Ask, session: ClientSession) -> None:
    """RFC 6749, 5.1, and checklist (6): on errors too."""
    answers = [(await ask())[0], (await ask(scope="no"))[0], (await ask(token_format="opaque"))[0]]
    for other in (session.post("/token"), session.get("/token"), session.post("/token", data={"a": "b"})):
        async with other as answer:
            answers.append(answer)
    assert [answer.status for answer in answers] == [200, 400, 200, 415, 405, 401]
    for answer in answers:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.content_type in ("application/json", "application/problem+json")


async def test_a_wrong_client_is_challenged_if_it_tried_basic(session: ClientSession) -> None:
    """RFC 6749, 5.2, and checklist (6)."""
    form = {"grant_type": "client_credentials"}
    async with session.post("/token", data=form, headers=basic(CLIENT, "wrong")) as answer:
        assert (answer.status, (await answer.json())["error"]) == (401, "invalid_client")
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    async with session.post("/token", data={**form, "client_id": CLIENT, "client_secret": "wrong"}) as answer:
        assert (answer.status, "WWW-Authenticate" in answer.headers) == (401, False)
    async with session.post("/token", data={**form, "client_id": CLIENT, "client_secret": SECRETS[CLIENT]}) as answer:
        assert answer.status == 200


async def test_nothing_counts_that_stands_in_the_query(session: ClientSession) -> None:
    """Secrets in URLs end up in logs; RFC 6749, 2.3.1 forbids them there."""
    query = {"grant_type": "client_credentials", "client_id": CLIENT, "client_secret": SECRETS[CLIENT]}
    empty = FormData([("x", "y")])
    async with session.post("/token", params=query, data=empty) as answer:
        assert answer.status == 401


async def test_a_new_grant_outlives_every_cutoff_that_is_known(ask: Ask, stage: Standing) -> None:
    """Checklist, revocation (10): `revoke --client-id` ends what was, and the next sign-in works at once.

    The cutoff lies ahead by less than the skew, as another host's clock would make it.
    """
    before = await ask()
    for kind, value in ((SelectorKind.CLIENT, CLIENT), (SelectorKind.ALL, ""), (SelectorKind.AUDIENCE, AUDIENCE)):
        await stage.revoke(stage.world.entry(kind, value, before=stage.world.clock.now() + 1.5))
    judge = stage.member.verifier.judge
    assert judge(before[1]["access_token"].encode(), policy()).reason == "revoked"
    _, content = await ask()
    assert judge(content["access_token"].encode(), policy()).kind is Kind.ACTIVE
    _, content = await ask(token_format="opaque")
    record = await stage.records.get(content["access_token"]) or {}
    assert not stage.parts.replica.revokes(stage.parts.replica.names(record))


async def test_the_signer_may_make_a_token_shorter_and_the_client_hears_of_it(ask: Ask, signer: FakeSigner) -> None:
    """Near a key's end its tokens live shorter; `expires_in` must not promise more."""
    signer.longest_seconds = 40
    assert 38 <= (await ask())[1]["expires_in"] <= 40


async def test_without_signer_or_store_a_client_is_told_to_come_back(
    ask: Ask, signer: FakeSigner, store: FickleRedis
) -> None:
    """503 with Retry-After; a JWT needs no store, an opaque token no signer."""
    signer.status = 503
    answer, content = await ask()
    assert (answer.status, content, answer.headers["Retry-After"]) == (503, {"error": "temporarily_unavailable"}, "1")
    assert (await ask(token_format="opaque"))[0].status == 200
    signer.status, store.away = 200, True
    assert (await ask())[0].status == 200
    answer, content = await ask(token_format="opaque")
    assert (answer.status, content) == (503, {"error": "temporarily_unavailable"})


async def test_a_refusal_by_the_signer_is_our_fault_and_takes_nobody_along(ask: Ask) -> None:
    """Tokens go to the signer together, all or none; one that is refused must not cost the others theirs."""
    answers = await asyncio.gather(*(ask("refused" if number == 3 else CLIENT) for number in range(8)))
    assert [answer.status for answer, _ in answers] == [200, 200, 200, 500, 200, 200, 200, 200]
    assert answers[3][1] == {"error": "server_error"}


async def test_concurrent_requests_get_tokens_of_their_own(ask: Ask, signer: FakeSigner) -> None:
    """Gathering must not mix up whose token is whose."""
    answers = await asyncio.gather(*(ask(scope=("read", "write")[number % 2]) for number in range(40)))
    tokens = [content["access_token"].encode() for _, content in answers]
    assert [parse_token(token).claims["scope"] for token in tokens] == ["read", "write"] * 20
    assert len({parse_token(token).claims["jti"] for token in tokens}) == 40
    assert sum(signer.batches) == 40


async def test_an_expired_replica_issues_nothing(ask: Ask, stage: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deleted client or a cutoff may have passed us by: nothing can be said, so nothing is issued."""
    boottime = stage.parts.clock.boottime()
    monkeypatch.setattr(stage.parts.clock, "boottime", lambda: boottime + 1000)
    answer, content = await ask()
    assert (answer.status, content) == (503, {"error": "temporarily_unavailable"})
