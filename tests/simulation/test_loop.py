"""The loop of the simulated world: asyncio as ever, but time leaps, and a seed decides what asyncio leaves open."""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

import pytest

from tests.simulation.clock import SimulatedClock
from tests.simulation.loop import OWNER, SimulatedLoop


def played(main: Callable[[SimulatedLoop], Coroutine[Any, Any, Any]], *, seed: int = 1) -> Any:
    """Run a coroutine on a loop of its own."""
    loop = SimulatedLoop(seed)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.finish(_nothing())


async def _nothing() -> None:
    """End at once."""


def test_a_year_passes_in_no_time() -> None:
    """Time is virtual: the loop leaps to the next timer."""

    async def main(loop: SimulatedLoop) -> float:
        await SimulatedClock(loop).sleep(365 * 86_400.0)
        return loop.time()

    assert played(main) == 365 * 86_400.0


def test_timeouts_conditions_queues_and_groups_work_as_ever() -> None:
    """Production code runs unchanged, so everything of asyncio that it uses has to work."""

    async def main(loop: SimulatedLoop) -> list[str]:
        clock, told, changed = SimulatedClock(loop), list[str](), asyncio.Condition()
        queue: asyncio.Queue[str] = asyncio.Queue(1)

        async def wait_for_change() -> None:
            async with changed:
                await changed.wait()
                told.append(f"changed at {loop.time():g}")

        async def change() -> None:
            await clock.sleep(2)
            async with changed:
                changed.notify_all()
            await queue.put("word")

        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_change())
            group.create_task(change())
            told.append(await queue.get())
        try:
            async with asyncio.timeout(3):
                await queue.get()
        except TimeoutError:
            told.append(f"timed out at {loop.time():g}")
        told.append(await asyncio.to_thread(str.upper, "inline"))
        return told

    assert sorted(played(main)) == ["INLINE", "changed at 2", "timed out at 5", "word"]


def test_the_seed_decides_who_runs_first_and_nothing_else_does() -> None:
    """Tasks that are ready at one moment run in every order over many seeds, and in one order for each."""

    async def main(loop: SimulatedLoop) -> str:
        told: list[str] = []

        async def say(name: str) -> None:
            await SimulatedClock(loop).sleep(1)
            told.append(name)

        await asyncio.gather(*(say(name) for name in "abc"))
        return "".join(told)

    orders = [played(main, seed=seed) for seed in range(60)]
    assert set(orders) == {"abc", "acb", "bac", "bca", "cab", "cba"}
    assert orders == [played(main, seed=seed) for seed in range(60)]


class _Process:
    """Just enough of a process to be frozen."""

    frozen = False

    def adopt(self, task: "asyncio.Task[Any]") -> None:
        """Keep no books."""


def test_a_frozen_process_stands_still_while_time_goes_on() -> None:
    """As one that was stopped by a signal, or a virtual machine that moves to another host."""

    async def main(loop: SimulatedLoop) -> list[float]:
        process, clock, ticks, context = _Process(), SimulatedClock(loop), list[float](), copy_context()
        context.run(OWNER.set, process)

        async def tick() -> None:
            while True:
                await clock.sleep(1)
                ticks.append(loop.time())

        task = loop.create_task(tick(), context=context)
        await clock.sleep(2.5)
        process.frozen = True
        loop.freeze()
        await clock.sleep(3)
        process.frozen = False
        loop.thaw()
        await clock.sleep(1.25)
        task.cancel()
        return ticks

    assert played(main) == [1.0, 2.0, 5.5, 6.5]


def test_an_error_in_a_callback_ends_the_run() -> None:
    """A checker speaks up wherever it is called from, and its word must not be lost in a log."""

    async def main(loop: SimulatedLoop) -> None:
        loop.call_later(1, _fail)
        await SimulatedClock(loop).sleep(10)

    with pytest.raises(AssertionError, match="as a checker would"):
        played(main)


def _fail() -> None:
    raise AssertionError("as a checker would")


def test_what_waits_for_ever_and_what_never_stops_are_found() -> None:
    """A deadlock and a busy circle both leave the virtual clock where it is: a run must end all the same."""

    async def deadlock(loop: SimulatedLoop) -> None:
        await loop.create_future()

    async def circle(loop: SimulatedLoop) -> None:
        while True:
            await SimulatedClock(loop).sleep(0)

    with pytest.raises(RuntimeError, match="nothing is left that could ever happen"):
        played(deadlock)
    with pytest.raises(RuntimeError, match="time stands still"):
        played(circle)
