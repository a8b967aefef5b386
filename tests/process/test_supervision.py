"""Background tasks come back when they end, until the block around them does."""

import asyncio

import pytest
import structlog

from keyturn.contract.errors import ConfigurationError
from keyturn.process.logging import TASK_RESTARTED
from keyturn.process.running import Supervisor, keep_running
from tests.clocks import ManualClock
from tests.waiting import eventually


async def test_a_task_is_started_again_after_growing_pauses() -> None:
    """A lost connection ends the task; it must come back, and not in a busy loop."""
    clock, runs = ManualClock(), 0

    async def fail() -> None:
        nonlocal runs
        runs += 1
        raise ConnectionError("sesame")

    with structlog.testing.capture_logs() as events:
        keeping = asyncio.ensure_future(
            keep_running("follower", fail, clock=clock, first_pause_seconds=1.0, longest_pause_seconds=8.0)
        )
        while runs < 7:
            before = runs
            await eventually(lambda: clock.sleepers == 1)
            clock.advance(8)
            await eventually(lambda before=before: runs > before)  # type: ignore[misc]  # A default argument binds it.
        keeping.cancel()
        await asyncio.wait({keeping})
    pauses = [event["pause_seconds"] for event in events if event["event"] == TASK_RESTARTED]
    assert len(pauses) >= 6
    for pause, longest in zip(pauses[:6], [1, 2, 4, 8, 8, 8], strict=True):
        assert longest / 2 <= pause <= longest
    assert keeping.cancelled()


async def test_a_task_that_was_healthy_comes_back_soon() -> None:
    """The pause counts failures in a row, not since the start."""
    clock, die = ManualClock(), asyncio.Event()

    async def work() -> None:
        await die.wait()
        die.clear()

    with structlog.testing.capture_logs() as events:
        keeping = asyncio.ensure_future(keep_running("worker", work, clock=clock, healthy_after_seconds=30))
        for lasted in (1, 1, 1, 31):
            await asyncio.wait({keeping}, timeout=0)
            clock.advance(lasted)
            die.set()
            await eventually(lambda: clock.sleepers == 1)
            clock.advance(10)
            await eventually(lambda: not die.is_set() and clock.sleepers == 0)
        keeping.cancel()
        await asyncio.wait({keeping})
    assert [event["failures"] for event in events if event["event"] == TASK_RESTARTED] == [1, 2, 3, 1]


async def test_a_task_that_cancels_itself_is_started_again() -> None:
    """A library may cancel its own tasks when it loses its connection; a task group would not even say so."""
    clock, runs = ManualClock(), 0

    async def cancel_itself() -> None:
        nonlocal runs
        runs += 1
        raise asyncio.CancelledError

    async with Supervisor(clock=clock) as supervisor:
        supervisor.keep_running("worker", cancel_itself)
        await eventually(lambda: clock.sleepers == 1)
        clock.advance(1)
        await eventually(lambda: runs == 2)


async def test_a_configuration_that_is_wrong_is_not_tried_again() -> None:
    """No retry mends it."""

    async def refuse() -> None:
        raise ConfigurationError("no KEK is set", setting="kek_file", mend="name it")

    with pytest.raises(ConfigurationError):
        await keep_running("worker", refuse, clock=ManualClock())


async def test_a_configuration_that_is_wrong_ends_the_block() -> None:
    """So that the process says so and ends, instead of running without its task."""

    async def refuse() -> None:
        raise ConfigurationError("no KEK is set", setting="kek_file", mend="name it")

    async def serve() -> None:
        async with Supervisor(clock=ManualClock()) as supervisor:
            supervisor.keep_running("worker", refuse)
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as group:
        await serve()
    assert group.group_contains(ConfigurationError)


async def test_the_end_of_the_block_ends_its_tasks() -> None:
    """A process that stops leaves no task behind, and waits for their clean end."""
    clock, starts, cleaned = ManualClock(), 0, 0

    async def work() -> None:
        nonlocal starts, cleaned
        starts += 1
        if starts == 1:
            raise ConnectionError
        try:
            await asyncio.Event().wait()
        finally:
            cleaned += 1

    async with Supervisor(clock=clock) as supervisor:
        supervisor.keep_running("follower", work)
        await eventually(lambda: clock.sleepers == 1)
        clock.advance(1)
        await eventually(lambda: starts == 2)
        assert supervisor.restarts == {"follower": 1}
    assert cleaned == 1


async def test_a_task_that_fails_at_cleaning_up_still_ends_when_told_to() -> None:
    """With the store gone a worker cannot say goodbye to it; starting again would keep the process from ending."""
    working, runs = asyncio.Event(), 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        try:
            working.set()
            await asyncio.Event().wait()
        finally:
            raise ConnectionError("sesame")

    keeping = asyncio.ensure_future(keep_running("worker", work, clock=ManualClock()))
    await working.wait()
    keeping.cancel()
    await asyncio.wait({keeping}, timeout=1)
    assert keeping.cancelled()
    assert runs == 1
