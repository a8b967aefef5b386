"""Grants that authorization found misused are ended by revocation: none is lost, and nobody else can ask for it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from keyturn import entropy
from keyturn.contract.errors import FeedUnavailable, StoreUnavailable
from keyturn.contract.selectors import SelectorKind
from revocation.ending import GrantEnder
from revocation.keeping import Keeping
from serving.endings import ENDINGS_KEY, Ending, Endings
from tests.building import Standing, new_record_keys, standing
from tests.clocks import HastyClock
from tests.revocation.conftest import Office
from tests.waiting import eventually

KEEPING = Keeping(longest_token_seconds=300, grant_seconds=86_400, skew_seconds=2, leeway_seconds=60)


async def add(office: Office, grant_id: str, *, iss: str | None = None) -> None:
    """Write down that a grant has to end, as authorization's script does."""
    endings = Endings(office.stage.redis, office.stage.record_keys)
    box = endings.sealed(Ending(iss=iss or office.stage.world.issuer, grant_id=grant_id, reason="refresh_token_reused"))
    await office.stage.redis.xadd(ENDINGS_KEY, {"ending": box})


async def left(office: Office) -> int:
    """Count the endings that wait."""
    return int(await office.stage.redis.xlen(ENDINGS_KEY))


async def test_a_grant_is_ended_at_every_verifier_and_then_its_ending_goes(office: Office) -> None:
    """RFC 9700, 4.14.2 and checklist, refresh (4): access tokens of the family die with it."""
    now = office.stage.world.clock.now()
    grants = [entropy.uuid7(now) for _ in range(3)]
    tokens, other = [office.jwt(grant_id=grant) for grant in grants], office.jwt()
    with capture_logs() as logs:
        for grant in grants:
            await add(office, grant)
        await eventually(lambda: not any(map(office.passes, tokens)))
        await eventually(lambda: _none_left(office))
    assert office.passes(other)
    told = [(line["grant_id"], line["reason"]) for line in logs if line["event"] == "grant_ended"]
    assert told == [(grant, "refresh_token_reused") for grant in grants]
    assert office.figure("keyturn_endings_total", outcome="revoked") == 3
    assert not office.passes(office.jwt(grant_id=grants[0])), "one that was being minted"


async def test_what_the_stores_owner_writes_ends_nobodys_grant_and_is_cleared_away(office: Office) -> None:
    """Else who can write the store could sign anybody out; an entry that cannot be read must not stand in the way."""
    redis, grant = office.stage.redis, entropy.uuid7(office.stage.world.clock.now())
    token = office.jwt(grant_id=grant)
    forger = Endings(redis, new_record_keys())
    ending = Ending(iss=office.stage.world.issuer, grant_id=grant, reason="")
    await redis.xadd(ENDINGS_KEY, {"ending": forger.sealed(ending)})
    await redis.xadd(ENDINGS_KEY, {"other": b"field"})
    with capture_logs() as logs:
        await add(office, grant, iss="https://other.example")
        await eventually(lambda: _none_left(office))
    assert "ending_unreadable" in [line["event"] for line in logs]
    assert office.figure("keyturn_endings_total", outcome="unreadable") == 3
    assert office.passes(token)
    assert office.position == (1, 0)


class Halting:
    """A writer that fails as often as it is told, and takes note of what it wrote."""

    def __init__(self) -> None:
        """Fail once."""
        self.failures, self.written = 1, list[Any]()

    async def write_list(self, entries: Any) -> None:
        """Write, or fail."""
        if self.failures:
            self.failures -= 1
            raise FeedUnavailable("the lane is away")
        self.written += entries


@pytest.fixture
async def stage(valkey: Redis) -> AsyncIterator[Standing]:
    """Begin a world without any service."""
    async with standing(valkey) as one:
        yield one


async def test_nothing_is_let_go_before_its_revocation_is_durable(valkey: Redis, stage: Standing) -> None:
    """Who dies in between, or cannot write, leaves the ending to whoever comes next; twice is no harm."""
    endings, writer = Endings(valkey, stage.record_keys), Halting()
    ender = GrantEnder(endings, writer, KEEPING, stage.parts)  # type: ignore[arg-type]
    grant = entropy.uuid7(stage.world.clock.now())
    ending = Ending(iss=stage.world.issuer, grant_id=grant, reason="refresh_token_reused")
    await valkey.xadd(ENDINGS_KEY, {"ending": endings.sealed(ending)})
    with pytest.raises(FeedUnavailable):
        await ender.end_some(wait_seconds=0.01)
    assert await valkey.xlen(ENDINGS_KEY) == 1
    await ender.end_some(wait_seconds=0.01)
    assert await valkey.xlen(ENDINGS_KEY) == 0
    [entry] = writer.written
    assert (entry.selector.kind, entry.selector.value, entry.reason) == (SelectorKind.GRANT, grant, ending.reason)
    assert entry.until >= stage.world.clock.now() + KEEPING.grant_seconds - 1
    await ender.end_some(wait_seconds=0.01)  # With nothing to do.
    assert len(writer.written) == 1
    await valkey.set(ENDINGS_KEY, "another type")
    with pytest.raises(StoreUnavailable):
        await ender.end_some(wait_seconds=0.01)


async def test_a_lane_that_is_away_is_told_once_and_not_besieged(valkey: Redis, stage: Standing) -> None:
    """An outage of an hour must be neither three thousand lines of the log nor a loop without a pause."""
    clock = HastyClock()
    endings, writer = Endings(valkey, stage.record_keys), Halting()
    writer.failures = 5
    ender = GrantEnder(endings, writer, KEEPING, replace(stage.parts, clock=clock))  # type: ignore[arg-type]
    ending = Ending(iss=stage.world.issuer, grant_id=entropy.uuid7(stage.world.clock.now()), reason="")
    await valkey.xadd(ENDINGS_KEY, {"ending": endings.sealed(ending)})
    began = clock.boottime()
    with capture_logs() as logs:
        running = asyncio.create_task(ender.run())
        await eventually(lambda: writer.written)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [line["event"] for line in logs].count("endings_wait") == 1
    assert 5 * 0.5 <= clock.boottime() - began <= 5 * 1.0


async def _none_left(office: Office) -> bool:
    return await left(office) == 0
