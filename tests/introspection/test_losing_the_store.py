"""The store lost at each step of a question: an answer in time that is right, or none; never "inactive" instead."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from introspection.app import IntrospectionService
from keyturn import entropy
from keyturn.clock import SystemClock
from keyturn.contract.inequalities import REQUEST_SECONDS
from keyturn.contract.selectors import SelectorKind
from keyturn.process.redis import connect
from stack.server import EmbeddedServer
from tests.building import CLIENTS, RESOURCE, Standing, basic, new_access_token, serving_at, standing
from tests.families import begin
from tests.introspection.conftest import SHOP
from tests.introspection.test_introspect import INACTIVE
from tests.stumbling import Mishap, Stumbling, done, stumbling_client
from tests.waiting import eventually

UNKNOWN = (503, b'{"error":"temporarily_unavailable"}', "1")


@pytest.fixture
def stumbling() -> Stumbling:
    """Return what counts the steps."""
    return Stumbling()


@pytest.fixture
async def stage(valkey_url: str, stumbling: Stumbling) -> AsyncIterator[Standing]:
    """Begin a world on a real Valkey; the service's replica hears of changes only when it asks."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(stumbling_client(valkey_url, stumbling))
        bell = connect(valkey_url, client_name="tests-bell", subscribing=True)
        stack.push_async_callback(bell.aclose)
        one = await stack.enter_async_context(
            standing(redis, pubsub=bell, deaf=True, clients={**CLIENTS, "shop": SHOP})
        )
        await one.publish(*one.world.first_key())
        yield one


@pytest.fixture
async def session(
    stage: Standing, stumbling: Stumbling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ClientSession]:
    """Serve introspection, and know what is done for its requests; its own look at the store shares no step."""
    monkeypatch.setattr("serving.probing.LOOK_SECONDS", 3600.0)
    service = IntrospectionService(stage.settings(tmp_path), stage.parts)
    async with serving_at([service, stumbling], stage.parts) as client:
        yield client


async def ask(session: ClientSession, token: str, *, bearer: str = "") -> tuple[int, bytes, str | None]:
    """Ask about one token, by a token of one's own if one is given; return status, body and when to ask again."""
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else basic(RESOURCE)
    async with session.post("/introspect", data={"token": token}, headers=headers) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.read(), answer.headers.get("Retry-After")


async def ask_batch(session: ClientSession, tokens: list[str]) -> tuple[int, bytes, str | None]:
    """Ask about several at once."""
    async with session.post("/introspect/batch", json={"tokens": tokens}, headers=basic(RESOURCE)) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.read(), answer.headers.get("Retry-After")


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("how", Mishap)
async def test_at_whatever_step_the_store_is_lost_the_answer_is_right_or_503(
    stage: Standing, session: ClientSession, stumbling: Stumbling, how: Mishap, lasting: bool
) -> None:
    """Checklist (6), RFC 9110, 15.6.4: never inactive for want of a store, nor active for want of a revocation.

    Each round revokes a token elsewhere, so that the answer takes reading the record, the positions, and what the
    replica has missed; the n-th step of round n goes wrong, until a round has no n-th step.
    """
    refresh = await begin(stage, claims={"client_id": RESOURCE})
    live = [stage.world.mint().decode(), await stage.put_opaque(), refresh]
    assert {json.loads((await ask(session, one))[1])["active"] for one in live} == {True}
    own = await stage.put_opaque(client_id=RESOURCE, aud=stage.world.issuer, scope="introspection")
    assert json.loads((await ask(session, live[0], bearer=own))[1])["active"]
    unknown = 0
    for at in count(1):
        jti = entropy.uuid7(stage.world.clock.now())
        revoked = await stage.put_opaque(jti=jti) if at % 2 else stage.world.mint(jti=jti).decode()
        await stage.revoke(stage.world.entry(SelectorKind.JTI, jti), elsewhere=True)
        stumbling.set_out(at=at, how=how, lasting=lasting)
        answer = await ask(session, revoked)
        reached, waited = stumbling.steps >= at, stumbling.waited_seconds
        assert answer in (UNKNOWN, (200, INACTIVE, None)), f"step {at}"
        assert waited < REQUEST_SECONDS, f"step {at}"
        unknown += answer == UNKNOWN
        stumbling.set_out()
        assert await ask(session, revoked) == (200, INACTIVE, None), f"after step {at}"
        for one in live:
            stumbling.set_out(at=at, how=how, lasting=lasting)
            status, body, again = await ask(session, one)
            assert (status, body, again) == UNKNOWN or json.loads(body)["active"], f"step {at}"
            stumbling.set_out(at=at, how=how, lasting=lasting)
            status, body, again = await ask(session, one, bearer=own)
            # Whoever asks by a token is no stranger either because the store is away.
            assert (status, body, again) == UNKNOWN or json.loads(body)["active"], f"step {at}"
            stumbling.set_out(at=at, how=how, lasting=lasting)
            status, body, again = await ask_batch(session, [*live, new_access_token()])
            actives = [result["active"] for result in json.loads(body).get("results", [])]
            assert (status, body, again) == UNKNOWN or actives == [True, True, True, False], f"step {at}"
        stumbling.set_out()
        assert json.loads((await ask(session, live[0]))[1])["active"], f"after step {at}"
        if not reached:
            break
    assert at > 2  # The record with the positions, and the stream, at least.
    assert unknown >= at - 2


async def test_a_frozen_and_a_killed_store_are_503_in_time_and_readiness_says_why(
    own_valkey: EmbeddedServer, tmp_path: Path
) -> None:
    """A load balancer must learn of it from `/readyz`, which recovers by itself, and nobody may wait without an end."""
    async with AsyncExitStack() as stack:
        redis, bell = (connect(own_valkey.url(), client_name="t", subscribing=bell) for bell in (False, True))
        for one in (redis, bell):
            stack.push_async_callback(one.aclose)
        stage = await stack.enter_async_context(standing(redis, pubsub=bell, clients={**CLIENTS, "shop": SHOP}))
        await stage.publish(*stage.world.first_key())
        service = IntrospectionService(stage.settings(tmp_path), stage.parts)
        session = await stack.enter_async_context(serving_at([service], stage.parts))
        tokens = [stage.world.mint().decode(), await stage.put_opaque(), "nonsense"]
        for lose, find in ((own_valkey.freeze, own_valkey.thaw), (own_valkey.kill, own_valkey.restart)):
            await done(lose)
            asked = SystemClock().boottime()
            assert set(await asyncio.gather(*(ask(session, one) for one in tokens))) == {UNKNOWN}
            assert SystemClock().boottime() - asked < REQUEST_SECONDS
            await eventually(lambda: service.unready() is not None)
            status, told = await ready(session)
            assert (status, told["reasons"]["introspection"].partition(":")[0]) == (503, "the store cannot be asked")
            await done(find)
            await eventually(lambda: service.unready() is None, within_seconds=10, saying=service.unready)
            assert (await ready(session))[0] == 200
            assert [json.loads((await ask(session, one))[1])["active"] for one in tokens] == [True, True, False]


async def ready(session: ClientSession) -> tuple[int, dict[str, Any]]:
    """Ask whether the service is ready."""
    async with session.get("/readyz") as answer:
        return answer.status, await answer.json()
