"""What is written and counted of questions: an operator sees what was asked, by whom, and what came of it."""

from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from structlog.testing import capture_logs

from introspection.app import IntrospectionService
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.contract.tokens import LARGEST_TOKEN_BYTES
from keyturn.feed.redis import head_key
from serving.clientassertions import ASSERTION_TYPE
from serving.failures import HOLD_SECONDS, OF_ADDRESS
from tests.building import RESOURCE, FickleRedis, Standing, basic, new_access_token, serving_at
from tests.introspection.conftest import OTHER, Ask
from tests.introspection.test_callers import caller_claims
from tests.introspection.test_introspect import INACTIVE


def facts(logs: list[Any], *names: str) -> list[tuple[Any, ...]]:
    """Return these facts of each request's line, None for what it does not say."""
    return [tuple(one.get(name) for name in names) for one in logs if one["event"] == "request"]


def counted(stage: Standing, name: str) -> dict[str, float]:
    """Return a counter by its labels as they are shown; what was never counted is left out."""
    lines = [line for line in stage.parts.metrics.render().decode().splitlines() if line.startswith(name + "_total")]
    shown = {line.partition("{")[2].partition("}")[0]: float(line.rpartition(" ")[2]) for line in lines}
    return {labels: count for labels, count in shown.items() if count}


async def test_each_answer_is_counted_and_its_line_says_who_asked_and_what_was_told(
    ask: Ask, stage: Standing, store: FickleRedis
) -> None:
    """Why a token is inactive no caller is told (RFC 7662, 2.2): whoever has to find out reads it here."""
    token = await stage.put_opaque()
    with capture_logs() as logs:
        await ask(token)
        await ask(stage.world.mint(), accept="application/jwt")
        await ask(token, OTHER, accept="application/token-introspection+jwt")
        await ask(new_access_token())
        store.away = True
        await ask(token)
        store.away = False
    told = facts(logs, "client_id", "answer", "reason", "state", "rendering", "status")
    assert told == [
        (RESOURCE, "active", "active", "fresh", "json", 200),
        (RESOURCE, "active", "active", "fresh", "phantom", 200),
        (OTHER, "inactive", "audience", "fresh", "signed", 200),
        (RESOURCE, "inactive", "no_record", "fresh", "json", 200),
        (RESOURCE, "unknown", "store_unavailable", "fresh", "json", 503),
    ]
    assert [(one["event"], one["code"]) for one in logs if one["log_level"] == "warning"] == [
        ("introspection_unavailable", "store_unavailable")
    ]
    expected = {'answer="active"': 2.0, 'answer="inactive"': 2.0, 'answer="unknown"': 1.0}
    assert counted(stage, "keyturn_introspections") == expected


async def test_who_asks_by_a_token_is_named_and_what_is_too_large_is_said_to_be(
    session: ClientSession, stage: Standing
) -> None:
    """Whose token asks so often: the line has the client, and never the token."""
    bearer = await stage.put_opaque(**caller_claims(stage))
    with capture_logs() as logs:
        for token in ("x", "x" * (LARGEST_TOKEN_BYTES + 1)):
            async with session.post(
                "/introspect", data={"token": token}, headers={"Authorization": f"Bearer {bearer}"}
            ) as answer:
                assert (answer.status, await answer.read()) == (200, INACTIVE)
    assert facts(logs, "client_id", "reason") == [(RESOURCE, "malformed"), (RESOURCE, "oversized")]


async def test_no_more_is_remembered_than_is_set(stage: Standing, tmp_path: Path) -> None:
    """`[introspection] cached_tokens` bounds what the process needs."""
    service = IntrospectionService(stage.settings(tmp_path, introspection={"cached_tokens": 1}), stage.parts)
    async with serving_at([service], stage.parts) as client:
        for _ in range(3):
            async with client.post(
                "/introspect", data={"token": await stage.put_opaque()}, headers=basic(RESOURCE)
            ) as one:
                assert one.status == 200
    assert b"keyturn_introspection_memory_tokens 1.0" in stage.parts.metrics.render()


async def test_readiness_says_what_a_question_would_meet(
    stage: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever balances the load must not send questions to whom nothing but 503 comes from: each cause by its name."""
    service = IntrospectionService(stage.settings(tmp_path), stage.parts)
    assert service.unready() is None
    await service._look()
    await stage.redis.hset(head_key(Lane.REVOCATIONS), "position", "7:1:ahead")  # type: ignore[misc]
    with pytest.raises(FeedUnavailable):
        await service._look()
    boottime = stage.parts.clock.boottime()
    monkeypatch.setattr(stage.parts.clock, "boottime", lambda: boottime + 1000)
    assert "silent" in str(service.unready())


async def test_a_batch_counts_as_many_answers_as_it_has(session: ClientSession, stage: Standing) -> None:
    """A metric by which a batch of a hundred is one question would show a service at rest."""
    tokens = [stage.world.mint().decode(), "x", await stage.put_opaque(), "y", "z"]
    with capture_logs() as logs:
        async with session.post("/introspect/batch", json={"tokens": tokens}, headers=basic(RESOURCE)) as answer:
            assert answer.status == 200
    assert facts(logs, "client_id", "tokens", "active", "inactive", "unknown") == [(RESOURCE, 5, 2, 3, None)]
    assert counted(stage, "keyturn_introspections") == {'answer="active"': 2.0, 'answer="inactive"': 3.0}


async def test_what_is_remembered_is_shown(ask: Ask, stage: Standing) -> None:
    """Whoever sets `cached_tokens` has to see what comes of it."""
    first, second = await stage.put_opaque(), await stage.put_opaque()
    for token, accept in ((first, None), (second, None), (second, None), (second, "application/json")):
        await ask(token, accept=accept)  # By the short way, and by the long one.
    shown = stage.parts.metrics.render()
    assert b"keyturn_introspection_memory_tokens 2.0" in shown
    assert b"keyturn_introspection_memory_hits_total 2.0" in shown


async def test_a_caller_that_is_refused_is_counted_by_how_it_tried_and_its_line_says_why(
    session: ClientSession, stage: Standing
) -> None:
    """Someone who guesses has to be seen; 401 says nothing but `invalid_client` (RFC 6749, 5.2)."""
    bearer = await stage.put_opaque(**caller_claims(stage, exp=int(stage.world.clock.now()) - 600))
    sent: list[tuple[dict[str, str], dict[str, str]]] = [
        (basic(RESOURCE, "wrong"), {}),
        ({}, {"client_id": RESOURCE, "client_secret": "wrong"}),
        ({}, {"client_assertion": "a.b.c", "client_assertion_type": ASSERTION_TYPE}),
        ({"Authorization": "Digest x"}, {}),
        ({"Authorization": f"Bearer {bearer}"}, {}),
        (basic("client"), {}),
    ]  # fmt: skip
    with capture_logs() as logs:
        for headers, form in sent:
            async with session.post("/introspect", data={"token": "x", **form}, headers=headers) as answer:
                assert answer.status == 401
    assert facts(logs, "client_id", "error_code", "refused") == [
        (None, "invalid_client", None),
        (None, "invalid_client", None),
        (None, "invalid_client", "malformed"),
        (None, "invalid_client", None),
        (None, "bearer", "expired"),
        ("client", "invalid_client", None),
    ]
    methods = ("client_secret_basic", "client_secret_post", "private_key_jwt", "none", "bearer")
    expected = {f'method="{one}",slowed="false"': 1.0 for one in methods}
    assert counted(stage, "keyturn_authentication_failures") == expected


async def test_each_way_to_fail_uses_up_the_same_allowance(session: ClientSession, slept: list[float]) -> None:
    """Failed authentication is slowed by address, whatever was presented: a way that is not would be the guesser's."""
    tries: list[tuple[dict[str, str], dict[str, str]]] = [
        ({"Authorization": "Digest x"}, {}),
        (basic("nobody", "x"), {}),
        ({}, {"client_assertion": "a.b.c", "client_assertion_type": ASSERTION_TYPE}),
        ({"Authorization": "Bearer x"}, {}),
        ({}, {}),
    ]
    for number in range(int(OF_ADDRESS.burst) + len(tries)):
        headers, form = tries[number % len(tries)]
        async with session.post("/introspect", data={"token": "x", **form}, headers=headers) as answer:
            told = answer.status, answer.headers.get("Retry-After")
            assert told == (401, None if number < OF_ADDRESS.burst else "1"), number
    assert slept == [HOLD_SECONDS] * len(tries)
