"""The store freezes, or is killed: what was acknowledged holds, and what cannot be known is not said."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.fleet import EXPIRED_SECONDS, LEASE_SECONDS, STALE_SECONDS
from tests.faults.people import People
from tests.faults.recorder import CLOCK
from tests.waiting import eventually

TOKENS_AT_HAND = 30
BACK_SECONDS = 3.0


async def test_a_frozen_server_makes_sidecars_stale_then_expired_and_a_thawed_one_fresh(people: People) -> None:
    """A silent store is no reason to refuse anybody, until a revocation may have passed everybody by."""
    server, live = people.fleet.server, await people.token()
    revoked = await people.token()
    assert await people.revoke(revoked) == 200
    server.freeze()
    try:
        await eventually(lambda: people.are("stale"), within_seconds=STALE_SECONDS + 2)
        for sidecar in people.sidecars():
            assert (await people.check(live, sidecar)).state == "stale"
        assert await people.statuses(revoked) == [401, 401]
        assert people.recorder.false_rejects() == []
        await eventually(lambda: people.are("expired"), within_seconds=EXPIRED_SECONDS)
        assert await people.statuses(live) == [503, 503]
        assert await people.statuses(revoked) == [503, 503]
    finally:
        server.thaw()
    await eventually(lambda: people.are("fresh"), within_seconds=BACK_SECONDS)
    assert await people.statuses(live) == [200, 200]
    assert await people.statuses(revoked) == [401, 401]


async def test_a_frozen_server_makes_services_say_that_they_cannot_tell(people: People) -> None:
    """Never an inactive that is not sure, a 200 for a revocation that is not durable, or a token without a lease."""
    server, live = people.fleet.server, await people.token()
    server.freeze()
    frozen = CLOCK.boottime()
    try:
        await eventually(lambda: people.are("stale"), within_seconds=STALE_SECONDS + 2)
        await eventually(lambda: CLOCK.boottime() > frozen + LEASE_SECONDS)
        told = await asyncio.gather(people.introspect(live), people.sign_in(), people.revoke(live), people.rotate())
    finally:
        server.thaw()
    assert all(one is None for one in told)
    assert people.refused == [(503, "1")] * 4


async def test_a_server_that_is_killed_under_load_loses_and_mixes_up_nothing(people: People) -> None:
    """Revocations and rotations go on throughout: what was acknowledged holds from its receipt on, for good."""
    recorder, server = people.recorder, people.fleet.server
    async with load_on(people):
        for long in (False, True, False):
            await progress(people, revocations=20, rotations=3)
            await server.kill()
            down = CLOCK.boottime()
            if long:
                await eventually(lambda: people.are("stale"), within_seconds=STALE_SECONDS + 2)
            await eventually(lambda: len(recorder.since(down)) >= 100)  # noqa: B023 - waited for right here
            await server.restart()
        await progress(people, revocations=20, rotations=3)
    await eventually(people.well, within_seconds=10)
    assert recorder.false_rejects() == []
    assert recorder.false_accepts() == []
    assert {(status, after) for status, after in people.refused} <= {(503, "1")}
    for held in recorder.acknowledged():
        assert await people.statuses(held) == [401, 401]
        assert await people.introspect(held) is False
    for held in recorder.live()[-10:]:
        assert await people.statuses(held) == [200, 200]
        assert await people.introspect(held) is True


async def progress(people: People, *, revocations: int, rotations: int) -> None:
    """Wait until so many more of both have been acknowledged."""
    acknowledged = len(people.recorder.acknowledged()) + revocations
    rotated = len(people.rotated) + rotations
    await eventually(
        lambda: len(people.recorder.acknowledged()) >= acknowledged and len(people.rotated) >= rotated,
        within_seconds=20, saying=lambda: counts(people),
    )  # fmt: skip


@asynccontextmanager
async def load_on(people: People) -> AsyncIterator[None]:
    """Issue, check, revoke and rotate for as long as the block lasts."""
    jobs = (issue, revoke, rotate, introspect, *(check for _ in range(4)))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(job(people)) for job in jobs]
        yield
        for task in tasks:
            task.cancel()


async def issue(people: People) -> None:
    """Keep tokens at hand."""
    while True:
        if len(people.recorder.live()) < TOKENS_AT_HAND:
            await people.sign_in()
        await CLOCK.sleep(0.01)


async def check(people: People) -> None:
    """Ask about live tokens at each sidecar in turn, and about revoked ones now and then."""
    turn = 0
    while True:
        turn += 1
        live = people.recorder.live()
        pool = people.recorder.acknowledged() if turn % 4 == 0 else live
        if pool:
            await people.check(pool[turn // 4 % len(pool)], people.sidecars()[turn % 2])
        await CLOCK.sleep(0.002)


async def revoke(people: People) -> None:
    """Revoke the oldest live token again and again, with a receipt or without."""
    turn = 0
    while True:
        turn += 1
        live = people.recorder.live()
        if len(live) > TOKENS_AT_HAND // 2:
            await people.revoke(live[0], wait=turn % 2 == 0)
        await CLOCK.sleep(0.02)


async def introspect(people: People) -> None:
    """Ask about the newest revoked token: from the acknowledgement on it is inactive, or nobody can tell."""
    while True:
        if revoked := people.recorder.acknowledged():
            assert await people.introspect(revoked[-1]) is not True
        await CLOCK.sleep(0.02)


async def rotate(people: People) -> None:
    """Rotate again and again."""
    while True:
        await people.rotate()
        await CLOCK.sleep(0.2)


def counts(people: People) -> str:
    """Say how far it is."""
    recorder = people.recorder
    return (
        f"{len(recorder.acknowledged())} acknowledged, {len(people.rotated)} rotations, "
        f"{len(recorder.answers)} answers, {people.refused[-3:]}\n{people.fleet.last_words()}"
    )
