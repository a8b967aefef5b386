"""All revocations that still matter, in memory: about thirteen bytes for a token, and some microseconds to find it."""

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from math import ceil

from keyturn.contract.leaves import COARSE, NEAR, SPAN, Bucket, Leaf
from keyturn.contract.marks import FEWEST_SLOTS, LAST_CLASS, Marks
from keyturn.contract.selectors import Entry, TokenNames, hashed, hashed_all

BUCKET_SECONDS = 300
LAST_BUCKET = 2**40  # Some ten million years; what runs out later is kept until then.
_RENEWED_BY_AN_ADDITION = 8  # Hashes that are marked anew with each addition, so that no addition marks them all.
_RENEWED_BY_TIDYING = 8192
_MERGED_AT_ONCE = 1024


def bucket_of(until: float) -> int:
    """Return the expiry bucket of a moment: the first that ends at or after it, so that nothing goes early."""
    return min(max(ceil(until / BUCKET_SECONDS), 0), LAST_BUCKET)


def has_ended(bucket: int, now: float) -> bool:
    """Say whether nothing in an expiry bucket can still matter."""
    return bucket * BUCKET_SECONDS < now and bucket < LAST_BUCKET


class _Renewal:
    """Marks that are being made anew beside the old ones, a few at a time."""

    __slots__ = ("cursor", "marks", "number", "pending")

    def __init__(self, marks: Marks, pending: list[int]) -> None:
        self.marks = marks
        self.pending = pending  # Buckets that are still to be marked. Later ones are marked as they come.
        self.number, self.cursor = -1, 0


class _Table:
    """Hashes by expiry bucket, each in one bucket."""

    __slots__ = ("_renewal", "buckets", "count", "cutoffs", "having", "marks")

    def __init__(self, *, cutoffs: bool) -> None:
        self.cutoffs, self.count = cutoffs, 0
        self.buckets: dict[int, Bucket] = {}
        self.marks = Marks(0)
        self._renewal: _Renewal | None = None
        self.having: dict[int, tuple[Bucket, ...]] = {}  # By marks; made anew when the buckets change.

    def bits(self, name: int) -> int:
        """Return the classes of buckets in which a hash can stand; 0 if it is not held for certain."""
        marks = self.marks
        return marks.high[name >> marks.shift] & marks.low[name & marks.mask]

    def candidates(self, bits: int) -> tuple[Bucket, ...]:
        """Return the buckets of these classes."""
        having = self.having.get(bits)
        if having is None:
            having = tuple(bucket for bucket in self.buckets.values() if bits >> (bucket.number & LAST_CLASS) & 1)
            self.having[bits] = having
        return having

    def before(self, name: int, bits: int) -> float:
        """Return the latest moment of a cutoff, minus infinity if it is not held; `bits` are its own."""
        latest = float("-inf")
        for bucket in self.candidates(bits):
            leaf, at = bucket.spot(name)
            if leaf.befores is not None and leaf.has(name, at):
                latest = max(latest, leaf.befores[at])
        return latest

    def add(self, name: int, before: float | None, number: int) -> bool:
        """Hold a hash; of two additions the later bucket and the later moment win.

        Say whether one of them was known to be later than this.
        """
        later = False
        for held in self.candidates(self.bits(name)):
            leaf, at = held.spot(name)
            if not leaf.has(name, at):
                continue
            if before is not None and leaf.befores is not None:
                later = leaf.befores[at] > before
                before = max(before, leaf.befores[at])
            if held.number >= number:
                if before is not None and leaf.befores is not None and leaf.befores[at] != before:
                    leaf.move(at, before)
                return later or held.number > number
            held.remove(name)
            self.count -= 1
            if not held.leaves:
                self._forget(held.number)
            break
        self._bucket(number).insert(name, before, cutoffs=self.cutoffs)
        self.count += 1
        self._mark((name,), number)
        self._grow(_RENEWED_BY_AN_ADDITION)
        return later

    def add_all(self, names: Sequence[int], number: int) -> None:
        """Hold hashes without moments, as `add` would each of them."""
        mine = 1 << (number & LAST_CLASS)
        # Where a hash can only stand in the bucket that it is added to, adding tells whether it does.
        others_of_class = self.candidates(mine)
        alone = not others_of_class or (len(others_of_class) == 1 and number in self.buckets)
        high, low, shift, mask = self.marks.view
        fresh: list[int] = []
        others: list[int] = []
        for name in names:
            bits = high[name >> shift] & low[name & mask]
            (others if bits and not (alone and bits == mine) else fresh).append(name)
        if fresh:
            added = self._bucket(number).insert_all(fresh)
            self.count += len(added)
            self._mark(added, number)
            self._grow(_RENEWED_BY_AN_ADDITION * len(added))
        for name in others:
            self.add(name, None, number)

    def merge(self, leaf: Leaf, number: int, *, whole: bool) -> Iterator[bool]:
        """Add all of a leaf in bounded steps; `whole` promises that no other bucket here holds any of it.

        Yields after each step whether anything in it was known to be later.
        """
        bucket = self.buckets.get(number)
        if whole and (bucket is None or bucket.accepts(leaf)):
            self._bucket(number).append(leaf)
            self.count += len(leaf.names)
            self._mark(leaf.names, number)
            self._grow(len(leaf.names))
            yield False
            return
        befores: Iterator[float | None] = iter(leaf.befores or [None] * len(leaf.names))
        rows = zip(leaf.names, befores, strict=True)
        while some := list(islice(rows, _MERGED_AT_ONCE)):
            later = [self.add(name, before, number) for name, before in some]
            yield any(later)

    def expect(self, count: int) -> None:
        """Make room for so many hashes in an empty table."""
        if self.count == 0:
            self.marks, self._renewal = Marks(count), None

    def prune(self, now: float) -> int:
        """Forget the buckets that end before `now`; return how many hashes went."""
        gone = [number for number in self.buckets if has_ended(number, now)]
        count = sum(len(leaf.names) for number in gone for leaf in self.buckets[number].leaves)
        for number in gone:
            self._forget(number)
        self.count -= count
        if self.count == 0:
            self.marks, self._renewal = Marks(0), None
        elif self._renewal is None and self.marks.count > 2 * self.count + FEWEST_SLOTS:
            self._renewal = _Renewal(Marks(self.count), list(self.buckets))
        if self._renewal is not None:
            self._renew(_RENEWED_BY_TIDYING)
        return count

    def _bucket(self, number: int) -> Bucket:
        bucket = self.buckets.get(number)
        if bucket is None:
            bucket = self.buckets[number] = Bucket(number)
            self.having = {}
        return bucket

    def _forget(self, number: int) -> None:
        del self.buckets[number]
        self.having = {}

    def _mark(self, names: "Sequence[int] | array[int]", number: int) -> None:
        self.marks.add(names, number)
        if self._renewal is not None:
            self._renewal.marks.add(names, number)

    def _grow(self, most: int) -> None:
        """Take more marks where there are too few for what is held, a step at a time."""
        if self._renewal is not None:
            self._renew(most)
        elif self.count > len(self.marks.high):
            self._renewal = _Renewal(Marks(self.count), list(self.buckets))

    def _renew(self, most: int) -> None:
        """Go on marking anew. The place is kept as a hash, so that additions and removals cannot make it skip one."""
        renewal = self._renewal
        while renewal is not None and most > 0:
            if renewal.number not in self.buckets:
                if not renewal.pending:
                    self.marks, self._renewal = renewal.marks, None
                    return
                renewal.number, renewal.cursor = renewal.pending.pop(), 0
                most -= 1
                continue
            part, cursor = self.buckets[renewal.number].part_from(renewal.cursor, most)
            renewal.marks.add(part, renewal.number)
            most -= len(part) + 1
            if cursor is None:
                renewal.number = -1
            else:
                renewal.cursor = cursor


class RevocationIndex:
    """All revocations under one hash key, found by hash and forgotten by expiry bucket; no call takes long."""

    __slots__ = ("_cutoffs", "_exact", "key")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._exact, self._cutoffs = _Table(cutoffs=False), _Table(cutoffs=True)

    def __len__(self) -> int:
        """Count the selectors held."""
        return self._exact.count + self._cutoffs.count

    def add(self, entry: Entry) -> None:
        """Hold a revocation; of two for the same name the later moments win."""
        selector = entry.selector
        self.add_hashed(hashed(self.key, selector.kind, selector.iss, selector.value), selector.before, entry.until)

    def add_all(self, entries: Sequence[Entry]) -> None:
        """Hold revocations that arrived together, as `add` would each of them, at less than half the cost."""
        names = hashed_all(self.key, [entry.selector for entry in entries])
        tokens, untils = [], []
        for name, entry in zip(names, entries, strict=True):
            if entry.selector.before is None:
                tokens.append(name)
                untils.append(entry.until)
            else:
                self._cutoffs.add(name, entry.selector.before, bucket_of(entry.until))
        self.add_tokens(tokens, untils)

    def add_tokens(self, names: Sequence[int], untils: Sequence[float]) -> None:
        """Hold revocations of tokens, grants and sessions by their hashes, each with its `until`."""
        together: dict[int, list[int]] = {}
        spans, some = None, list[int]()
        for name, until in zip(names, untils, strict=True):
            if (ends := ceil(until / BUCKET_SECONDS)) != spans:
                spans, some = ends, together.setdefault(bucket_of(until), [])
            some.append(name)
        for number, few in together.items():
            self._exact.add_all(few, number)

    def add_hashed(self, name: int, before: float | None, until: float) -> None:
        """Hold a revocation by its hash."""
        (self._exact if before is None else self._cutoffs).add(name, before, bucket_of(until))

    def revokes(self, names: TokenNames) -> bool:
        """Say whether any held selector names this token."""
        exact, cutoffs = self._exact, self._cutoffs
        high, low, shift, mask = exact.marks.view
        for name in names.exact:
            bits = high[name >> shift] & low[name & mask]  # `_Table.bits`, spelled out: this is the hot path.
            if bits:
                for bucket in exact.having.get(bits) or exact.candidates(bits):
                    cells, by = bucket.guide or bucket.guided()
                    _, held, begin, length = cells[name >> by]  # `Bucket.spot`, spelled out as well.
                    lowest = (((name >> COARSE) - begin) * len(held) >> length) - NEAR
                    try:
                        at = bisect_left(held, name, lowest, lowest + SPAN)
                        if held[at] == name:
                            return True
                        if lowest < at < lowest + SPAN:
                            continue  # It would stand here.
                    except (ValueError, IndexError):  # Near an end of the leaf.
                        pass
                    leaf, at = bucket.spot(name)
                    if leaf.has(name, at):
                        return True
        if not cutoffs.count:
            return False
        high, low, shift, mask = cutoffs.marks.view
        for name in names.cutoffs:
            bits = high[name >> shift] & low[name & mask]
            if bits:
                before, moment = cutoffs.before(name, bits), names.granted_at
                if moment < before or (names.whole_seconds and moment <= before):
                    return True
        return False

    def latest_cutoff(self, names: TokenNames) -> float:
        """Return the latest cutoff that touches these names, 0 if none: a new grant must be stamped after it."""
        cutoffs = self._cutoffs
        return max(0.0, *(cutoffs.before(name, cutoffs.bits(name)) for name in names.cutoffs))

    def prune(self, now: float) -> int:
        """Forget whole buckets in which nothing can still matter; return how many selectors went."""
        return self._exact.prune(now) + self._cutoffs.prune(now)

    def rows(self) -> Iterator[tuple[int, float | None, float]]:
        """Yield (hash, before, until) of all that is held; `until` is the end of the bucket."""
        for table in (self._exact, self._cutoffs):
            for bucket in table.buckets.values():
                yield from ((name, before, float(bucket.number * BUCKET_SECONDS)) for name, before in bucket.rows())

    def leaves(self, *, cutoffs: bool) -> Iterator[tuple[int, Leaf]]:
        """Yield (bucket, leaf) of all tokens, grants and sessions, or of all cutoffs, in order."""
        buckets = (self._cutoffs if cutoffs else self._exact).buckets
        for number in sorted(buckets):
            yield from ((number, leaf) for leaf in buckets[number].leaves)

    def expect(self, *, exact: int, cutoffs: int) -> None:
        """Make room for so many selectors, where there are none yet."""
        self._exact.expect(exact)
        self._cutoffs.expect(cutoffs)

    def absorb(self, other: "RevocationIndex") -> None:
        """Hold all that an index under the same key holds."""
        for _ in self.absorbing(other):
            pass

    def absorbing(self, other: "RevocationIndex") -> Iterator[None]:
        """Do what `absorb` does in bounded steps."""
        for cutoffs in (False, True):
            held = {(number, leaf.digest) for number, leaf in self.leaves(cutoffs=cutoffs)}
            for number, leaf in other.leaves(cutoffs=cutoffs):
                if (number, leaf.digest) not in held:
                    for _ in self.merge(number, leaf, cutoffs=cutoffs):
                        yield

    def merge(self, number: int, leaf: Leaf, *, cutoffs: bool, whole: bool = False) -> Iterator[bool]:
        """Hold all of a leaf in bounded steps; yields after each whether anything in it was known to be later.

        With `whole` the caller promises that no leaf of another bucket has any of its hashes, and gives the leaf away.
        """
        yield from (self._cutoffs if cutoffs else self._exact).merge(leaf, number, whole=whole)
