"""The revocation index against a plain model of it: sets and dictionaries, and nothing clever."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from keyturn.contract import leaves, marks, revocations
from keyturn.contract.revocations import BUCKET_SECONDS, RevocationIndex, bucket_of
from keyturn.contract.selectors import Entry, Selector, SelectorKind, TokenNames
from keyturn.contract.snapshots import pack, unpack

KEY = b"the hash key of tests"
SPREAD = 0x9E3779B97F4A7C15  # Odd: multiples of it are spread over all 64-bit numbers.


def looks(index: RevocationIndex, name: int, *, granted_at: float | None = None, whole_seconds: bool = False) -> bool:
    """Say whether the index revokes a token of that name, or a grant of a party of that name."""
    if granted_at is None:
        return index.revokes(TokenNames((name,), (), 0.0, False))
    return index.revokes(TokenNames((), (name,), granted_at, whole_seconds))


@dataclass
class Model:
    """What an index holds, the plain way."""

    exact: dict[int, int] = field(default_factory=dict)  # Bucket by hash.
    cutoffs: dict[int, tuple[float, int]] = field(default_factory=dict)  # (before, bucket) by hash.

    def add(self, name: int, before: float | None, until: float) -> None:
        """Hold a revocation."""
        bucket = bucket_of(until)
        if before is None:
            self.exact[name] = max(bucket, self.exact.get(name, 0))
        else:
            held = self.cutoffs.get(name, (before, bucket))
            self.cutoffs[name] = (max(before, held[0]), max(bucket, held[1]))

    def prune(self, now: float) -> int:
        """Forget what has ended."""
        held = len(self.exact) + len(self.cutoffs)
        self.exact = {name: bucket for name, bucket in self.exact.items() if bucket * BUCKET_SECONDS >= now}
        self.cutoffs = {name: row for name, row in self.cutoffs.items() if row[1] * BUCKET_SECONDS >= now}
        return held - len(self.exact) - len(self.cutoffs)

    def rows(self) -> set[tuple[int, float | None, float]]:
        """Return all that is held."""
        exact = {(name, None, float(bucket * BUCKET_SECONDS)) for name, bucket in self.exact.items()}
        return exact | {(name, at, float(bucket * BUCKET_SECONDS)) for name, (at, bucket) in self.cutoffs.items()}


NAMES = st.integers(0, 63).map(lambda number: number * SPREAD % 2**64) | st.integers(0, 2**64 - 1)
UNTILS = st.floats(0, 5 * BUCKET_SECONDS)
BEFORES = st.none() | st.floats(-1e9, 1e10)


class IndexBesideModel(RuleBasedStateMachine):
    """Every way to change an index whose leaves and marks are small, so that both are outgrown all the time."""

    parted = renewed = 0

    @initialize()
    def begin(self) -> None:
        """Hold nothing."""
        self.index, self.model, self.now = RevocationIndex(KEY), Model(), 0.0

    @rule(rows=st.lists(st.tuples(NAMES, BEFORES, UNTILS), min_size=15, max_size=40))
    def add(self, rows: list[tuple[int, float | None, float]]) -> None:
        """Revoke."""
        for name, before, until in rows:
            self.index.add_hashed(name, before, until + self.now)
            self.model.add(name, before, until + self.now)

    @rule(rows=st.lists(st.tuples(NAMES, UNTILS), min_size=15, max_size=40))
    def add_together(self, rows: list[tuple[int, float]]) -> None:
        """Revoke tokens that arrive in one event."""
        names, untils = [name for name, _ in rows], [until + self.now for _, until in rows]
        self.index.add_tokens(names, untils)
        for name, until in zip(names, untils, strict=True):
            self.model.add(name, None, until)

    @rule(seconds=st.floats(0, 2 * BUCKET_SECONDS))
    def prune(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        assert self.index.prune(self.now) == self.model.prune(self.now)

    @rule(rows=st.lists(st.tuples(NAMES, BEFORES, UNTILS), max_size=30))
    def absorb(self, rows: list[tuple[int, float | None, float]]) -> None:
        """Take over another index."""
        other = RevocationIndex(KEY)
        for name, before, until in rows:
            other.add_hashed(name, before, until + self.now)
            self.model.add(name, before, until + self.now)
        self.index.absorb(other)

    @rule()
    def restart(self) -> None:
        """Go through a snapshot."""
        packed = pack([self.index])
        (self.index,) = unpack(packed.sections, packed.chunks)

    @invariant()
    def agrees(self) -> None:
        """Find what the model holds, all of it, and nothing else."""
        rows = list(self.index.rows())
        assert set(rows) == self.model.rows()
        assert len(rows) == len(self.index)
        for table in (self.index._exact, self.index._cutoffs):
            for bucket in table.buckets.values():
                names = [name for leaf in bucket.leaves for name in leaf.names]
                assert names == sorted(set(names))
                assert bucket.bounds[0] == 0
        for name in self.model.exact:
            assert looks(self.index, name)
        for name, (before, _) in self.model.cutoffs.items():
            assert looks(self.index, name, granted_at=before - abs(before) / 2 - 1)
            assert not looks(self.index, name, granted_at=before)
            assert looks(self.index, name, granted_at=before, whole_seconds=True)
            assert self.index.latest_cutoff(TokenNames((), (name,), 0.0, False)) == max(before, 0.0)
        for number in range(64):
            name = number * SPREAD % 2**64
            assert looks(self.index, name) == (name in self.model.exact)
            assert looks(self.index, name, granted_at=-1e12) == (name in self.model.cutoffs)
        type(self).parted += any(len(bucket.leaves) > 1 for bucket in self.index._exact.buckets.values())
        type(self).renewed += self.index._exact._renewal is not None


def test_the_index_does_what_the_plain_model_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A revocation that is not found is a token that lives on; one too many is an outage for somebody."""
    monkeypatch.setattr(leaves, "PARTED_BEYOND", 4)
    monkeypatch.setattr(marks, "FEWEST_SLOTS", 8)
    for module in (leaves, revocations):
        monkeypatch.setattr(module, "NEAR", 1)
        monkeypatch.setattr(module, "SPAN", 2)
    monkeypatch.setattr(revocations, "_RENEWED_BY_AN_ADDITION", 2)
    monkeypatch.setattr(revocations, "_RENEWED_BY_TIDYING", 3)
    monkeypatch.setattr(revocations, "_MERGED_AT_ONCE", 5)
    IndexBesideModel.parted = IndexBesideModel.renewed = 0
    IndexBesideModel.TestCase.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
    case = IndexBesideModel.TestCase()
    case.runTest()
    assert IndexBesideModel.parted >= 10, "leaves were hardly ever parted"
    assert IndexBesideModel.renewed >= 10, "marks were hardly ever being made anew"


@pytest.mark.parametrize("order", ["up", "down", "mixed"])
def test_nothing_is_overlooked_while_marks_are_made_anew(order: str) -> None:
    """Additions, moves to later buckets and parted leaves all come between its steps."""
    index = RevocationIndex(KEY)
    names = [number * SPREAD % 2**64 for number in range(20_000)]
    if order != "mixed":
        names.sort(reverse=order == "down")
    renewals = 0
    for number, name in enumerate(names):
        index.add_hashed(name, None, 1000.0 + number % 7 * BUCKET_SECONDS)
        if number % 3 == 0:
            index.add_hashed(names[number // 2], None, 9000.0)
        renewals += index._exact._renewal is not None
        if number % 499 == 0:
            assert all(looks(index, one) for one in names[: number + 1 : 61])
    assert renewals > 500
    assert all(looks(index, name) for name in names)
    assert len(index) == len(names)


def test_one_addition_touches_a_bounded_number_of_others() -> None:
    """However many are held: who verifies tokens in the same process must not be made to wait."""
    index = RevocationIndex(KEY)
    marked: list[int] = []
    add = marks.Marks.add

    def counted(self: marks.Marks, names: Sequence[int], number: int) -> None:
        marked[-1] += len(names)
        add(self, names, number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(marks.Marks, "add", counted)
        for number in range(40_000):
            marked.append(0)
            index.add_hashed(number * SPREAD % 2**64, None, 1000.0 + number % 5 * BUCKET_SECONDS)
    assert max(marked) <= revocations._RENEWED_BY_AN_ADDITION + 2
    assert sum(count > 2 for count in marked) > 1000


def test_marks_that_nothing_held_has_left_are_made_anew() -> None:
    """In a store of steady size every search would in time go through every bucket."""
    index, now = RevocationIndex(KEY), 0.0
    for number in range(30_000):
        now = float(number)
        index.add_hashed(number * SPREAD % 2**64, None, now + 3000)
        if number % 60 == 0:
            index.prune(now)
    table = index._exact
    held = {number * SPREAD % 2**64 for number in range(27_000, 30_000)}
    assert held <= {name for name, _, _ in index.rows()}
    assert table.marks.count <= 4 * len(index) + 2 * marks.FEWEST_SLOTS
    others = [number * SPREAD % 2**64 for number in range(100_000, 110_000)]
    told = sum(
        not table.marks.high[name >> table.marks.shift] & table.marks.low[name & table.marks.mask] for name in others
    )
    assert told > 6000
    assert not any(looks(index, name) for name in others)


def test_a_hash_is_found_whether_or_not_it_stands_where_it_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random hashes are nearly all looked for in the right place first; what is not random is found all the same."""
    names = [number * SPREAD % 2**64 for number in range(40_000)]
    crowded = [2**63 + number * number for number in range(20_000)]
    searched: list[int] = []
    leaf = leaves.Bucket.leaf

    def counted(self: leaves.Bucket, name: int) -> leaves.Leaf:
        searched.append(name)
        return leaf(self, name)

    index = RevocationIndex(KEY)
    index.add_tokens(names, [300.0] * len(names))
    monkeypatch.setattr(leaves.Bucket, "leaf", counted)
    assert all(looks(index, name) for name in names)
    assert len(searched) < len(names) / 10
    index.add_tokens(crowded, [300.0] * len(crowded))
    searched.clear()
    assert all(looks(index, name) for name in names + crowded)
    assert len(searched) > len(crowded) / 2
    assert not any(looks(index, name + 1) for name in crowded[2:])


def test_what_is_held_for_longer_is_not_added_again_where_the_marks_cannot_tell_the_buckets_apart() -> None:
    """Held twice it would be counted twice, and leave its bucket with one of the two still there."""
    index, apart = RevocationIndex(KEY), 16 * BUCKET_SECONDS
    names = [number * SPREAD % 2**64 for number in range(50)]
    index.add_tokens(names, [300.0 + apart] * 50)
    index.add_tokens(names, [300.0] * 50)
    assert len(index) == 50
    index.add_tokens(names[:9], [300.0 + 2 * apart] * 9)
    assert len(index) == 50
    assert index.prune(300.0 + apart + 1) == 41
    assert [looks(index, name) for name in names] == [True] * 9 + [False] * 41


def test_what_arrives_together_is_held_as_if_it_had_come_one_by_one() -> None:
    """Snapshots name leaves by their digests: who took the same events in another way must not load them anew."""
    selectors = [
        *(Selector(iss="https://a.example", kind=SelectorKind.JTI, value=f"\ud800{number}") for number in range(6000)),
        *(Selector(iss=f"https://{number % 3}.example", kind=SelectorKind.SESSION, value="s") for number in range(9)),
        *(Selector(iss="i", kind=SelectorKind.SUBJECT, value=f"{n % 5}", before=float(n)) for n in range(20)),
        Selector(iss="i", kind=SelectorKind.ALL, before=7.0),
    ]
    entries = [Entry(selector=one, until=float(number % 900)) for number, one in enumerate(selectors * 2)]
    together, alone = RevocationIndex(KEY), RevocationIndex(KEY)
    for entry in entries:
        alone.add(entry)
    for start in range(0, len(entries), 500):
        together.add_all(entries[start : start + 500])
    assert pack([together]) == pack([alone])
    assert len(together) == len(alone) == 6000 + 3 + 5 + 1


@pytest.mark.parametrize(
    ("until", "bucket"), [(0.0, 0), (-5.0, 0), (-301.0, 0), (0.5, 1), (300.0, 1), (300.1, 2), (1e300, 2**40)]
)
def test_a_bucket_ends_at_or_after_all_that_is_in_it(until: float, bucket: int) -> None:
    """Rounded the other way a token would live again before it ends."""
    assert bucket_of(until) == bucket


def test_what_runs_out_at_the_end_of_time_stays() -> None:
    """The last bucket has no end."""
    index = RevocationIndex(KEY)
    index.add_hashed(1, None, 1e300)
    assert index.prune(1e299) == 0
    assert looks(index, 1)


def test_a_bucket_whose_first_leaf_went_still_begins_at_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes below all that is left would else stand in the last leaf, and its chunk would be out of order."""
    monkeypatch.setattr(leaves, "PARTED_BEYOND", 4)
    index, step = RevocationIndex(KEY), 2**60
    for number in range(1, 9):
        index.add_hashed(number * step, None, 300.0)
    (bucket,) = index._exact.buckets.values()
    first = len(bucket.leaves[0].names)
    assert len(bucket.leaves) > 1
    for number in range(1, first + 1):
        index.add_hashed(number * step, None, 600.0)
    index.add_hashed(1, None, 300.0)
    assert [name for leaf in bucket.leaves for name in leaf.names] == [1, *(n * step for n in range(first + 1, 9))]
    assert all(looks(index, name) for name in (1, *(number * step for number in range(1, 9))))
