"""Marks: in which expiry buckets a hash can stand at all, told by two look-ups."""

from array import array
from collections.abc import Sequence

FEWEST_SLOTS = 1024
LAST_CLASS = 15  # Of buckets, by the last bits of their numbers: an hour of tokens has one bucket in nearly each.


class Marks:
    """In which buckets to look for a hash at all: 16 bits for each span of its high bits, and as many of its low bits.

    Bit b is set if a hash of that span stands in a bucket whose number ends in b (of 16). A hash that is not held is
    mostly told by two marks that have no bit in common; one that is held, by one search.
    """

    __slots__ = ("count", "high", "low", "mask", "shift", "view")

    def __init__(self, count: int) -> None:
        slots = max(FEWEST_SLOTS, 1 << count.bit_length())  # 1 to 2 for each hash.
        self.high, self.low = array("H", (0,)) * slots, array("H", (0,)) * slots
        self.shift, self.mask = 64 - (slots.bit_length() - 1), slots - 1
        self.view = self.high, self.low, self.shift, self.mask
        self.count = 0  # How many were marked: those that are no longer held leave their marks behind.

    def add(self, names: "Sequence[int] | array[int]", number: int) -> None:
        """Mark hashes of a bucket."""
        high, low, shift, mask, bit = self.high, self.low, self.shift, self.mask, 1 << (number & LAST_CLASS)
        for name in names:
            high[name >> shift] |= bit
            low[name & mask] |= bit
        self.count += len(names)
