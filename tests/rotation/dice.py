"""Choices that a seed alone decides, so that a history can be played again."""

from collections.abc import Sequence
from hashlib import sha256
from typing import TypeVar

_T = TypeVar("_T")
_FINE = 1 << 32


class Dice:
    """Throws that follow from a seed, the same on every machine and version."""

    def __init__(self, seed: int | str) -> None:
        """Begin at the first throw; a seed may be words, for one stream of throws among several."""
        self._seed, self._throws = seed, 0

    def below(self, count: int) -> int:
        """Return a number from 0 to `count` - 1."""
        self._throws += 1
        return int.from_bytes(sha256(f"{self._seed}:{self._throws}".encode()).digest()[:8], "big") % count

    def chance(self, one_in: int) -> bool:
        """Say yes once in so many times."""
        return self.below(one_in) == 0

    def between(self, low: float, high: float) -> float:
        """Return a number from `low` to `high`."""
        return low + (high - low) * self.below(_FINE) / _FINE

    def one_of(self, choices: Sequence[_T]) -> _T:
        """Choose one."""
        return choices[self.below(len(choices))]

    def weighted(self, choices: Sequence[tuple[_T, int]]) -> _T:
        """Choose one by weights that are whole numbers."""
        throw = self.below(sum(weight for _, weight in choices))
        for choice, weight in choices:
            throw -= weight
            if throw < 0:
                return choice
        raise AssertionError("the weights add up to what was thrown")
