"""The simulated world is worth what it finds: each bug that is planted in the production code, and soon."""

import pytest

from tests.simulation.plants import MOST_SEEDS, PASSED_OVER, PLANTS, Plant, until_found


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(plant: Plant) -> None:
    """By the invariant that it breaks, within the seeds that a run has time for."""
    found = until_found(plant, passing_over=PASSED_OVER.get(plant, 0))
    assert found is not None, f"not found by {MOST_SEEDS} seeds"
    assert found.invariant in PLANTS[plant], f"seed {found.seeds}: {found.by!r}"
