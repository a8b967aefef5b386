"""What holds properties to their corners must fail where a corner cannot be reached."""

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.reaching import MOST_ROUNDS, reach


def test_a_property_is_checked_until_it_has_been_everywhere() -> None:
    """And no longer than that."""
    reached: Counter[str] = Counter()

    @settings(max_examples=1)
    @given(st.none())
    def check(_: None) -> None:
        reached["often"] += 3
        reached["seldom"] += 1

    reach(check, reached, {"often": 3, "seldom": 2})
    assert reached == {"often": 6, "seldom": 2}


def test_a_corner_that_is_never_reached_is_named() -> None:
    """Else the property would pass for nothing."""
    reached: Counter[str] = Counter()

    @settings(max_examples=1)
    @given(st.none())
    def check(_: None) -> None:
        reached["often"] += 1

    with pytest.raises(AssertionError, match="'never': 0"):
        reach(check, reached, {"often": 1, "never": 1})
    assert reached["often"] == MOST_ROUNDS


@pytest.fixture(params=["ci", "default"])
def profile(request: pytest.FixtureRequest) -> Iterator[str]:
    """Have a profile of Hypothesis in force: that of CI draws the same examples at each call of a test."""
    before = settings.get_current_profile_name()
    settings.load_profile(request.param)
    yield request.param
    settings.load_profile(before)


def draw() -> list[int]:
    """Return what the rounds of a property draw that is never where it should be."""
    drawn: list[int] = []

    @settings(max_examples=5, database=None, phases=[Phase.generate])  # The first is 0, always.
    @given(st.integers(0, 2**256))
    def check(number: int) -> None:
        drawn.append(number)

    with pytest.raises(AssertionError, match="never"):
        reach(check, Counter(), {"never": 1})
    return drawn


def test_no_round_is_the_one_before_over_again(profile: str) -> None:
    """What fixes the examples of a test in CI must not fix those of all its rounds; a second run there is the same."""
    drawn = draw()
    assert len(set(drawn)) > 2 * MOST_ROUNDS
    assert (draw() == drawn) is (profile == "ci")


def test_a_check_that_takes_no_seed_is_refused() -> None:
    """It would draw the same in each round, in CI alone."""
    with pytest.raises(TypeError, match="no test by Hypothesis"):
        reach(lambda: None, Counter(), {})
