"""The whole system in a simulated world: every seed is a history of its own, and no invariant breaks in any."""

from collections import Counter

import pytest

from tests.simulation.plan import plan_of
from tests.simulation.world import run

SEEDS = 1_000
_BATCH = 25  # So that each ends in time on a busy machine.
_USUAL = ("accepted while fresh", "refused after a receipt", "refused in the end", "receipts", "well in the end")
_SELDOM = (
    "refused a revoked key", "accepted though revoked, not knowing", "leaps forward", "revocation in doubt",
    "lease refusals", "writes lost",
)  # fmt: skip
_MOST_FOR_SELDOM = 60


def test_a_seed_alone_decides_the_history() -> None:
    """Else a failure could not be played again, let alone made smaller."""
    for seed in range(5):
        first, second = run(plan_of(seed)), run(plan_of(seed))
        assert first.digest == second.digest, f"seed {seed} went two ways"
        assert first.reached == second.reached
    assert run(plan_of(1)).digest != run(plan_of(2)).digest


@pytest.mark.parametrize("first", range(0, SEEDS, _BATCH))
def test_no_invariant_breaks(first: int) -> None:
    """Whatever the network, the clocks and the processes do; and each batch gets to where it matters."""
    reached = Counter[str]()
    for seed in range(first, first + _BATCH):
        one = run(plan_of(seed))
        assert one.failure is None, f"seed {seed}: {one.failure!r}\n{one.told}"
        reached += one.reached
    missing = [state for state in _USUAL if not reached[state]]
    assert not missing, f"no history has reached {missing}"


def test_the_interesting_states_are_reached() -> None:
    """Where a world never gets, an invariant holds for nothing."""
    reached = Counter[str]()
    for seed in range(_MOST_FOR_SELDOM):
        reached += run(plan_of(seed)).reached
        if all(reached[state] for state in _SELDOM):
            return
    raise AssertionError(f"not all reached: { {state: reached[state] for state in _SELDOM} }")
