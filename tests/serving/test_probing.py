"""Readiness of a process that can say nothing without its store."""

import asyncio

import pytest

from keyturn.contract.errors import FeedUnavailable, KeyturnError, StoreUnavailable
from serving.probing import LOOK_SECONDS, StoreProbe
from serving.problems import Busy
from tests.clocks import ManualClock
from tests.waiting import eventually


@pytest.mark.parametrize("error", [StoreUnavailable, FeedUnavailable, Busy])
async def test_a_store_that_cannot_be_asked_makes_unready_until_it_can_be(error: type[KeyturnError]) -> None:
    """Nobody has to ask for it to recover: without questions, no answer would ever show that the store is back."""
    clock, failing = ManualClock(), True

    async def ask() -> None:
        if failing:
            raise error("10.0.0.7:6379 refused")

    probe = StoreProbe(ask, clock)
    assert probe.unready() is None
    task = asyncio.create_task(probe.run())
    await eventually(lambda: clock.sleepers)
    reason = str(probe.unready())
    assert error.__name__ in reason
    assert "10.0.0.7" not in reason  # Where the store is, is nobody's business.
    failing = False
    clock.advance(LOOK_SECONDS)
    await eventually(lambda: probe.unready() is None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
