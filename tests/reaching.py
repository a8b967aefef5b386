"""A property that never came to a corner has shown nothing of it: so it is tried until it has been in each."""

from collections import Counter
from collections.abc import Callable, Mapping

from hypothesis import is_hypothesis_test, seed, settings

from keyturn import entropy

MOST_ROUNDS = 20


def reach(check: Callable[[], None], reached: Counter[str], fewest: Mapping[str, int]) -> None:
    """Check until `reached` counts at least the `fewest` of each corner.

    Chance decides how soon that is, so a fixed number of examples would fail now and then, and with the next version of
    the library that makes them up. `check` is a test by Hypothesis, which in CI draws the same examples at each
    call: so each round has a seed of its own. In CI these are the same in each run, elsewhere they are not.

    Raises:
        TypeError: `check` takes no seed, so that each round would be the first one again.
        AssertionError: After `MOST_ROUNDS` some corner was still not reached as often as it should.

    """
    if not is_hypothesis_test(check):
        raise TypeError(f"{check} is no test by Hypothesis: no round of it would differ from the first")
    first = 0 if settings().derandomize else int.from_bytes(entropy.token_bytes(8))
    for number in range(first, first + MOST_ROUNDS):
        seed(number)(check)()
        if all(reached[corner] >= count for corner, count in fewest.items()):
            return
    missing = {corner: reached[corner] for corner, count in fewest.items() if reached[corner] < count}
    raise AssertionError(f"not reached in {MOST_ROUNDS} rounds: {missing}")
