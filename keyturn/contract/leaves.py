"""Leaves: sorted runs of 64-bit hashes that run out together, in memory as in the chunks of a snapshot."""

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from math import isfinite
from operator import lt
from typing import TypeAlias

from keyturn.contract.encoding import digest
from keyturn.contract.errors import MalformedInput

MOST_IN_A_LEAF = 16_384  # Hashes: 128 KiB of them, 256 KiB with the cutoffs' moments. What is larger is not read.
PARTED_BEYOND = 4096  # Hashes: an addition moves half of a leaf, so that large ones make each revocation dear.
NEAR = 64  # Places: hashes are random, and one of 4,096 stands within so many of where its value lets expect it.
HASH_BYTES = 8
MOMENT_BYTES = 8
_FINEST_CELLS = 14  # Bits of a hash: what 16,384 cells do not tell apart is found by a search.
SPAN = 2 * NEAR
COARSE = 34  # Bits of a hash that its expected place does without: the rest is a small, and so a quick, number.

Cell: TypeAlias = "tuple[Leaf, array[int], int, int]"
"""The leaf that a span of hashes belongs to, and its hashes; where it begins, and its length as exponent of 2, both but
for the `COARSE` bits. A plain tuple: nothing else is taken apart as quickly."""


class Leaf:
    """Hashes in ascending order, and for cutoffs the moment (`before`) of each.

    Packed: the hashes, 8 bytes each, then the moments, 8 bytes each (IEEE 754), all little-endian.
    """

    __slots__ = ("befores", "digested", "names")

    def __init__(self, names: "array[int]", befores: "array[float] | None", *, known_digest: str = "") -> None:
        self.names, self.befores = names, befores
        self.digested = known_digest

    def has(self, name: int, at: int) -> bool:
        """Say whether a hash stands at the place where it would have to."""
        return at < len(self.names) and self.names[at] == name

    def insert(self, at: int, name: int, before: float | None) -> None:
        """Add a hash that is not held at its place, and its moment if this is a leaf of cutoffs."""
        self.names.insert(at, name)
        if self.befores is not None and before is not None:
            self.befores.insert(at, before)
        self.digested = ""

    def move(self, at: int, before: float) -> None:
        """Give the cutoff at a place another moment."""
        if self.befores is not None:
            self.befores[at] = before
            self.digested = ""

    def remove(self, at: int) -> None:
        """Forget the hash at a place."""
        del self.names[at]
        if self.befores is not None:
            del self.befores[at]
        self.digested = ""

    def split(self, at: int) -> "Leaf":
        """Keep what stands before a place and return the rest."""
        rest = Leaf(self.names[at:], None if self.befores is None else self.befores[at:])
        self.names = self.names[:at]
        if self.befores is not None:
            self.befores = self.befores[:at]
        self.digested = ""
        return rest

    def packed(self) -> bytes:
        """Return the bytes that a snapshot's chunk carries."""
        raw = _little_endian(self.names)
        return raw if self.befores is None else raw + _little_endian(self.befores)

    @property
    def digest(self) -> str:
        """Return the digest of the packed bytes; it is worked out once for each content."""
        if not self.digested:
            self.digested = digest(self.packed())
        return self.digested


def unpack_leaf(raw: bytes, *, cutoffs: bool, known_digest: str = "") -> Leaf:
    """Read what `packed` wrote; raises MalformedInput for anything else, hashes out of order or twice included.

    `known_digest` is that of the bytes, where it has been worked out already.
    """
    width = HASH_BYTES + (MOMENT_BYTES if cutoffs else 0)
    count, rest = divmod(len(raw), width)
    if rest or not 0 < count <= MOST_IN_A_LEAF:
        raise MalformedInput(f"a leaf has 1 to {MOST_IN_A_LEAF} entries of {width} bytes")
    names: array[int] = array("Q", raw[: count * HASH_BYTES])
    befores: array[float] | None = array("d", raw[count * HASH_BYTES :]) if cutoffs else None
    if sys.byteorder == "big":
        names.byteswap()
        if befores is not None:
            befores.byteswap()
    if not all(map(lt, names, islice(names, 1, None))):
        raise MalformedInput("the hashes of a leaf ascend")
    if befores is not None and not all(map(isfinite, befores)):
        raise MalformedInput("a cutoff's moment is a number")  # Nothing is before NaN: it would revoke nobody.
    return Leaf(names, befores, known_digest=known_digest)


class Bucket:
    """The leaves of all hashes that run out in one span of time, in order; `bounds` says where each begins.

    Where leaves part depends on what is in them and not on how it came: two replicas that hold the same have the same
    leaves, as long as none has shrunk.
    """

    __slots__ = ("bounds", "guide", "leaves", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.bounds: list[int] = []
        self.leaves: list[Leaf] = []
        self.guide: tuple[list[Cell], int] | None = None  # What `guided` returned, until leaves come, part or go.

    def leaf(self, name: int) -> Leaf:
        """Return the leaf that a hash belongs to."""
        return self.leaves[bisect_right(self.bounds, name) - 1]

    def guided(self) -> tuple[list[Cell], int]:
        """Return cells that share all hashes evenly, and by how many bits to shift a hash to number its cell.

        A hash is expected at `((name >> COARSE) - begin) * len(names) >> length` of its cell's leaf, and nearly always
        stands within `NEAR` of that. Where it does not, and where a cell belongs to several leaves and so names none,
        all of `leaf(name)` has to be searched.
        """
        bits = min(len(self.leaves).bit_length() + 1, _FINEST_CELLS)
        shift = 64 - bits
        cells: list[Cell] = [_NO_CELL] * (1 << bits)
        for leaf, begin, end in zip(self.leaves, self.bounds, [*self.bounds[1:], 1 << 64], strict=True):
            first, behind = -(-begin >> shift), end >> shift
            if first < behind:
                length = max((end - begin).bit_length() - 1 - COARSE, 0)
                cells[first:behind] = [(leaf, leaf.names, begin >> COARSE, length)] * (behind - first)
        self.guide = cells, shift
        return self.guide

    def spot(self, name: int) -> tuple[Leaf, int]:
        """Return the leaf that a hash belongs to, and at which place it stands there or would have to."""
        cells, by = self.guide or self.guided()
        leaf, names, begin, length = cells[name >> by]
        lowest = (((name >> COARSE) - begin) * len(names) >> length) - NEAR
        if 0 <= lowest <= len(names) - SPAN:
            at = bisect_left(names, name, lowest, lowest + SPAN)
            if lowest < at < lowest + SPAN:
                return leaf, at
        leaf = self.leaf(name)
        return leaf, bisect_left(leaf.names, name)

    def insert(self, name: int, before: float | None, *, cutoffs: bool) -> None:
        """Add a hash that is not held; a leaf that grows too large is parted."""
        if not self.leaves:
            self._append(0, Leaf(array("Q"), array("d") if cutoffs else None))
        leaf, at = self.spot(name)
        leaf.insert(at, name, before)
        if len(leaf.names) > PARTED_BEYOND:
            self._part(name)

    def insert_all(self, names: Iterable[int]) -> list[int]:
        """Add those of these hashes, without moments, that are not held; return them."""
        if not self.leaves:
            self._append(0, Leaf(array("Q"), None))
        added, (cells, by) = [], self.guide or self.guided()
        for name in names:
            leaf, run, begin, length = cells[name >> by]
            count = len(run)
            lowest = (((name >> COARSE) - begin) * count >> length) - NEAR  # `spot`, spelled out: each entry pays.
            at = bisect_left(run, name, lowest, lowest + SPAN) if 0 <= lowest <= count - SPAN else lowest
            if not lowest < at < lowest + SPAN:
                leaf, at = self.spot(name)
                run, count = leaf.names, len(leaf.names)
            if at < count and run[at] == name:
                continue
            run.insert(at, name)
            leaf.digested = ""
            added.append(name)
            if count >= PARTED_BEYOND:
                self._part(name)
                cells, by = self.guided()
        return added

    def accepts(self, leaf: Leaf) -> bool:
        """Say whether a whole leaf can stand behind all that is here."""
        return not self.leaves or self.leaves[-1].names[-1] < leaf.names[0]

    def append(self, leaf: Leaf) -> None:
        """Add a whole leaf that `accepts` accepts."""
        self._append(_bound(self.leaves[-1].names[-1], leaf.names[0]) if self.leaves else 0, leaf)

    def remove(self, name: int) -> None:
        """Forget a hash that is held."""
        leaf, at = self.spot(name)
        leaf.remove(at)
        if not leaf.names:
            number, self.guide = bisect_right(self.bounds, name) - 1, None
            del self.leaves[number], self.bounds[number]
            if self.bounds:
                self.bounds[0] = 0

    def part_from(self, cursor: int, most: int) -> tuple["array[int]", int | None]:
        """Return up to so many hashes from `cursor` on, and where to go on (None at the end)."""
        number = bisect_right(self.bounds, cursor) - 1
        names = self.leaves[number].names
        at = bisect_left(names, cursor)
        part = names[at : at + most]
        if at + len(part) < len(names):
            return part, part[-1] + 1
        return part, self.bounds[number + 1] if number + 1 < len(self.bounds) else None

    def rows(self) -> Iterator[tuple[int, float | None]]:
        """Yield (hash, before) of all that is held."""
        for leaf in self.leaves:
            if leaf.befores is None:
                yield from ((name, None) for name in leaf.names)
            else:
                yield from zip(leaf.names, leaf.befores, strict=True)

    def _append(self, bound: int, leaf: Leaf) -> None:
        self.bounds.append(bound)
        self.leaves.append(leaf)
        self.guide = None

    def _part(self, name: int) -> None:
        """Part the leaf of a hash where its hashes first differ; again, if nearly all of them are on one side."""
        number, self.guide = bisect_right(self.bounds, name) - 1, None
        leaf = self.leaves[number]
        bound = _bound(leaf.names[0], leaf.names[-1])
        rest = leaf.split(bisect_left(leaf.names, bound))
        self.leaves.insert(number + 1, rest)
        self.bounds.insert(number + 1, bound)
        for part in (rest, leaf):
            if len(part.names) > PARTED_BEYOND:
                self._part(part.names[0])


_NO_LEAF = Leaf(array("Q"), None)
_NO_CELL: Cell = (_NO_LEAF, _NO_LEAF.names, 0, 0)


def _bound(below: int, above: int) -> int:
    """Return the roundest number above `below` and not above `above`: where a tree of prefixes parts them."""
    last = (below ^ above).bit_length() - 1
    return (above >> last) << last


def _little_endian(values: "array[int] | array[float]") -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()
