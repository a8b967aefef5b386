"""What was signed is kept within bounds: of number and of bytes, whoever asks and whatever stands in the tokens."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from introspection.signed import Kept
from keyturn.contract.keys import KeySet
from tests.clocks import ManualClock
from tests.reaching import reach
from tests.world import World

MOST, MOST_BYTES = 4, 200
REPLICA = World().member().replica
KEEPINGS = st.lists(st.tuples(st.integers(0, 7), st.one_of(st.integers(0, 20), st.integers(0, 230))), max_size=30)


@given(keepings=KEEPINGS)
def check(keepings: list[tuple[int, int]]) -> None:
    """Keep them one after the other, and compare with a list that says it plainly."""
    kept = Kept(REPLICA, ManualClock(), most=MOST, most_bytes=MOST_BYTES)
    model: dict[tuple[str, bytes], bytes] = {}
    assert kept.get(("", b"")) is None
    for number, size in keepings:
        key, signed = ("caller", bytes([number])), bytes(size)
        kept.keep(key, signed, keys=REPLICA.keys, seconds=1)
        model.pop(key, None)
        if size + 7 > MOST_BYTES:
            reached["too large by itself"] += 1
            continue
        while len(model) >= MOST or sum(len(one) + 7 for one in model.values()) + size + 7 > MOST_BYTES:
            reached["too many" if len(model) >= MOST else "too large together"] += 1
            del model[next(iter(model))]
        model[key] = signed
        assert {one: kept.get(one) for one in model} == model
        assert (len(kept), kept.size_bytes) == (len(model), sum(len(one) + 7 for one in model.values()))


reached: Counter[str] = Counter()


def test_the_oldest_make_way_for_what_is_one_too_many_or_too_large() -> None:
    """Every endpoint: a limit on all that grows. A thousand answers of 20 KiB each were within the number alone."""
    reached.clear()
    reach(check, reached, dict.fromkeys(("too many", "too large together", "too large by itself"), 11))


def test_a_changed_key_set_leaves_nothing_to_be_counted() -> None:
    """What was cleared takes no place: a count that stays would keep everything out after some rotations."""
    changing = World().member().replica
    kept = Kept(changing, ManualClock(), most=MOST, most_bytes=MOST_BYTES)
    for _ in range(5):
        assert kept.get(("caller", b"x")) is None
        kept.keep(("caller", b"x"), bytes(60), keys=changing.keys, seconds=1)
        assert (len(kept), kept.size_bytes) == (1, 67)
        changing.keys = KeySet()
