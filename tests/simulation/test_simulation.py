"""The whole system in a simulated world: every seed is a history of its own, and no invariant breaks in any."""

from collections import Counter

import pytest

from tests.simulation.plan import plan_of
from tests.simulation.world import run

SEEDS = 1_000
_BATCH = 100
_INTERESTING = (
    "accepted while fresh", "refused after a receipt", "refused a revoked key", "refused in the end",
    "accepted though revoked, not knowing", "leaps forward", "revocation in doubt",
    "lease refusals", "receipts", "well in the end",
)  # fmt: skip


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
    missing = [state for state in _INTERESTING if not reached[state]]
    assert not missing, f"no history has reached {missing}"
