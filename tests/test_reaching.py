"""What holds properties to their corners must fail where a corner cannot be reached."""

from collections import Counter

import pytest

from tests.reaching import MOST_ROUNDS, reach


def test_a_property_is_checked_until_it_has_been_everywhere() -> None:
    """And no longer than that."""
    reached: Counter[str] = Counter()

    def check() -> None:
        reached["often"] += 3
        reached["seldom"] += 1

    reach(check, reached, {"often": 3, "seldom": 2})
    assert reached == {"often": 6, "seldom": 2}


def test_a_corner_that_is_never_reached_is_named() -> None:
    """Else the property would pass for nothing."""
    reached: Counter[str] = Counter()

    def check() -> None:
        reached["often"] += 1

    with pytest.raises(AssertionError, match="'never': 0"):
        reach(check, reached, {"often": 1, "never": 1})
    assert reached["often"] == MOST_ROUNDS
