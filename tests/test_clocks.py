"""The tests' own clock: what a test concludes from it must be true."""

import asyncio

from tests.clocks import ManualClock


async def test_a_sleeper_wakes_when_its_moment_has_come_and_not_before() -> None:
    """A timeout that fires early or never would make every test of a deadline lie."""
    clock = ManualClock(now=100.0)
    sleeper = asyncio.create_task(clock.sleep(5))
    await clock.sleep(0)
    clock.advance(4.9)
    await clock.sleep(0)
    assert not sleeper.done()
    clock.advance(0.1)
    await sleeper
    assert clock.now() == 105.0
    assert clock.sleepers == 0


async def test_sleepers_wake_in_the_order_of_their_moments() -> None:
    """One long step of the clock must not reorder what happens in it."""
    clock, woken = ManualClock(), list[int]()

    async def sleep(seconds: int) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with asyncio.TaskGroup() as group:
        for seconds in (3, 1, 2):
            group.create_task(sleep(seconds))
        await clock.sleep(0)
        clock.advance(10)
    assert woken == [1, 2, 3]


def test_setting_the_wall_clock_leaves_the_other_alone() -> None:
    """Ages are measured on the clock that never goes back: a test must be able to move one alone."""
    clock = ManualClock(now=1_000.0, boottime=7.0)
    clock.set_wall(500.0)
    assert (clock.now(), clock.boottime()) == (500.0, 7.0)
