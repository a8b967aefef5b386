"""The tests' own way to wait: it returns when something holds, and fails with a reason when it never does."""

import pytest

from keyturn.clock import SystemClock
from tests.waiting import eventually


async def test_returns_as_soon_as_the_predicate_holds() -> None:
    """Waiting costs no more than what is waited for."""
    looks = iter([False, False, True])
    await eventually(lambda: next(looks))
    assert next(looks, None) is None


async def test_fails_in_time_and_says_what_is_the_case_instead() -> None:
    """A wait that fails silently, or never, hides the bug it was written to find."""
    clock = SystemClock()
    begun = clock.boottime()
    with pytest.raises(AssertionError, match="state is stale"):
        await eventually(lambda: False, within_seconds=0.05, saying=lambda: "state is stale")
    assert clock.boottime() - begun < 2


async def test_a_predicate_may_be_a_coroutine_function() -> None:
    """Most of what a test waits for is asked over a connection."""

    async def holds() -> bool:
        return True

    await eventually(holds)
