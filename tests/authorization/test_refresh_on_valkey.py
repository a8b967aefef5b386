"""Refresh tokens on a real server: raced for, with answers that get lost, and over a restart (checklist, refresh)."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from redis.asyncio import Redis

from authorization.app import AuthorizationService
from keyturn.contract.encoding import encode_json
from keyturn.contract.jwk import ed25519_private_jwk
from keyturn.process.redis import connect
from serving.service import Service
from stack.server import EmbeddedServer
from tests.authorization.conftest import signer_of, stage_on
from tests.building import CLIENT, SECRETS, Standing, basic, serving_at, write_secret
from tests.families import APP, begin, families_of
from tests.slowing import slow_client
from tests.stumbling import Mishap, Stumbling, stumbling_client
from tests.waiting import eventually

ROUNDS = int(os.environ.get("KEYTURN_TEST_ROUNDS", "3"))
WAYS = [(how, lasting) for how in Mishap for lasting in (False, True)]


@dataclass
class Desk:
    """The authorization service on a server, and a client that refreshes."""

    stage: Standing
    http: ClientSession

    async def refresh(self, token: str) -> tuple[int, Any]:
        """Present a refresh token; a 503 says when to come back."""
        form = {"grant_type": "refresh_token", "refresh_token": token}
        async with self.http.post("/token", data=form, headers=basic(APP, SECRETS[CLIENT])) as answer:
            assert (answer.status == 503) == ("Retry-After" in answer.headers)
            return answer.status, await answer.json()

    async def is_current(self, token: str) -> bool:
        """Say whether a token is the one that is good."""
        held = (await families_of(self.stage).read(token)).held
        return held is not None and held.family.is_current(token) and not held.family.ended


@asynccontextmanager
async def desk_on(
    redis: Redis, url: str, identity: Any, folder: Path, *, beside: tuple[Service, ...] = ()
) -> AsyncIterator[Desk]:
    """Begin a world on a server, and serve; the grace is long enough for a busy machine."""
    async with AsyncExitStack() as stack:
        bell = connect(url, client_name="tests-bell", subscribing=True)
        stack.push_async_callback(bell.aclose)
        stage = await stack.enter_async_context(stage_on(redis, identity, pubsub=bell))
        await stack.enter_async_context(signer_of(stage, folder))
        write_secret(folder / "identity.jwk", encode_json(ed25519_private_jwk(identity)).decode())
        own = {"identity_file": "identity.jwk", "signer": f"unix:{folder}/run/sign.sock", "refresh_grace": 60}
        service = AuthorizationService(stage.settings(folder, authorization=own), stage.parts)
        yield Desk(stage, await stack.enter_async_context(serving_at([*beside, service], stage.parts)))


@pytest.mark.parametrize("latency_seconds", [0.0, 0.001, 0.005])
async def test_of_many_at_once_one_turns_the_family(
    valkey_url: str, identity: Any, tmp_path: Path, latency_seconds: float
) -> None:
    """Checklist, refresh (2) and (3), and R3: whatever the store's latency, all get one successor, which is good."""
    async with (
        slow_client(valkey_url, latency_seconds=latency_seconds) as redis,
        desk_on(redis, valkey_url, identity, tmp_path) as desk,
    ):
        token = await begin(desk.stage)
        for _ in range(ROUNDS):
            answers = await asyncio.gather(*(desk.refresh(token) for _ in range(8)))
            assert [status for status, _ in answers] == [200] * 8
            [successor] = {content["refresh_token"] for _, content in answers}
            assert await desk.is_current(successor)
            token = successor


async def test_at_whatever_step_the_store_is_lost_the_retry_gets_the_one_successor(
    valkey_url: str, identity: Any, tmp_path: Path
) -> None:
    """Checklist, refresh (2): who hears 503 asks again, and gets what it would have got; nothing was used up."""
    stumbling = Stumbling()
    async with (
        stumbling_client(valkey_url, stumbling) as redis,
        desk_on(redis, valkey_url, identity, tmp_path, beside=(stumbling,)) as desk,
    ):
        for how, lasting in WAYS:
            statuses, turned = [], 0
            for at in count(1):
                token = await begin(desk.stage)
                stumbling.set_out(at=at, how=how, lasting=lasting)
                status, _ = await desk.refresh(token)
                reached = stumbling.steps >= at
                stumbling.set_out()
                statuses.append(status)
                turned += status == 503 and not await desk.is_current(token)
                where = f"step {at} {how.name} {lasting}"
                assert status in (200, 503), where
                answers = [await desk.refresh(token) for _ in range(2)]
                assert [status for status, _ in answers] == [200, 200], where
                [successor] = {content["refresh_token"] for _, content in answers}
                assert await desk.is_current(successor), where
                if not reached:
                    break
            assert 503 in statuses
            if how is Mishap.UNANSWERED:
                assert turned > 0, "no turn whose answer got lost"


async def test_a_restart_changes_nothing(own_valkey: EmbeddedServer, identity: Any, tmp_path: Path) -> None:
    """Checklist, refresh (6): neither what is good, nor what was used, nor the successor of the last one."""
    redis = connect(own_valkey.url(), client_name="tests")
    async with desk_on(redis, own_valkey.url(), identity, tmp_path) as desk:
        first = await begin(desk.stage)
        second = (await desk.refresh(first))[1]["refresh_token"]
        ended = await begin(desk.stage, ended=True)
        await own_valkey.restart()
        await eventually(redis.ping, within_seconds=10)
        await eventually(lambda: desk.stage.parts.unready() is None, within_seconds=15)
        assert (await desk.refresh(first))[1]["refresh_token"] == second
        third = (await desk.refresh(second))[1]["refresh_token"]
        assert await desk.is_current(third)
        assert (await desk.refresh(ended))[0] == 400
        assert (await desk.refresh(first))[0] == 400  # Used before the restart, and again after it.
        assert (await desk.refresh(third))[0] == 400
    await redis.aclose()
