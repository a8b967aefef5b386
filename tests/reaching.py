"""A property that never came to a corner has shown nothing of it: so it is tried until it has been in each."""

from collections import Counter
from collections.abc import Callable, Mapping

MOST_ROUNDS = 20


def reach(check: Callable[[], None], reached: Counter[str], fewest: Mapping[str, int]) -> None:
    """Check until `reached` counts at least the `fewest` of each corner.

    Chance decides how soon that is, so a fixed number of examples would fail now and then, and with the next version of
    the library that makes them up. `check` draws other examples each time.

    Raises:
        AssertionError: After `MOST_ROUNDS` some corner was still not reached as often as it should.

    """
    for _ in range(MOST_ROUNDS):
        check()
        if all(reached[corner] >= count for corner, count in fewest.items()):
            return
    missing = {corner: reached[corner] for corner, count in fewest.items() if reached[corner] < count}
    raise AssertionError(f"not reached in {MOST_ROUNDS} rounds: {missing}")
