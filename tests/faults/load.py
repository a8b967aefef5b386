"""Steady work of everybody at once, every word of it recorded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.faults.people import People
from tests.faults.recorder import CLOCK
from tests.waiting import eventually

TOKENS_AT_HAND = 30
_PROGRESS_SECONDS = 30.0


@dataclass(frozen=True)
class Pace:
    """How often things are ordered; a rotation waits for its receipt besides."""

    between_revocations_seconds: float = 0.02
    between_rotations_seconds: float = 0.2


async def progress(people: People, *, revocations: int, rotations: int) -> None:
    """Wait until so many more of both have been acknowledged."""
    recorder = people.recorder
    acknowledged, rotated = len(recorder.acknowledged()) + revocations, len(recorder.rotations) + rotations
    await eventually(
        lambda: len(recorder.acknowledged()) >= acknowledged and len(recorder.rotations) >= rotated,
        within_seconds=_PROGRESS_SECONDS, saying=lambda: counts(people),
    )  # fmt: skip


def counts(people: People) -> str:
    """Say how far it is."""
    recorder = people.recorder
    return (
        f"{len(recorder.acknowledged())} acknowledged, {len(recorder.rotations)} rotations, "
        f"{len(recorder.answers)} answers, {people.refused[-3:]}\n{people.fleet.last_words()}"
    )


@asynccontextmanager
async def load_on(people: People, pace: Pace) -> AsyncIterator[None]:
    """Issue, check, revoke, rotate, introspect and look at states for as long as the block lasts."""
    checks = [check(people) for _ in range(4)]
    async with asyncio.TaskGroup() as group:
        jobs = (issue(people), revoke(people, pace), rotate(people, pace), introspect(people), watch(people), *checks)
        tasks = [group.create_task(job) for job in jobs]
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


async def revoke(people: People, pace: Pace) -> None:
    """Revoke the oldest live token again and again, with a receipt or without."""
    turn = 0
    while True:
        turn += 1
        live = people.recorder.live()
        if len(live) > TOKENS_AT_HAND // 2:
            await people.revoke(live[0], wait=turn % 2 == 0)
        await CLOCK.sleep(pace.between_revocations_seconds)


async def introspect(people: People) -> None:
    """Ask about the newest revoked token: from the acknowledgement on it is inactive, or nobody can tell."""
    while True:
        if revoked := people.recorder.acknowledged():
            assert await people.introspect(revoked[-1]) is not True
        await CLOCK.sleep(0.02)


async def rotate(people: People, pace: Pace) -> None:
    """Rotate again and again."""
    while True:
        await people.rotate()
        await CLOCK.sleep(pace.between_rotations_seconds)


async def watch(people: People) -> None:
    """Ask each sidecar for its state, again and again."""
    while True:
        for sidecar in people.sidecars():
            await people.state(sidecar)
        await CLOCK.sleep(0.01)
