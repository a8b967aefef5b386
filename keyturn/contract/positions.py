"""Lanes, and places in them: epoch, sequence and the hash of the event that stands there."""

import re
from enum import StrEnum
from typing import NamedTuple

from keyturn.contract.errors import MalformedInput

_NUMBER = re.compile(r"[0-9]{1,19}")  # As many digits as a stream's id can have.


class Lane(StrEnum):
    """The two chains of signed events, each with its own publisher role."""

    KEYS = "keys"
    REVOCATIONS = "revocations"


class Position(NamedTuple):
    """A place in a lane; equal only with an equal hash, so that a fork never looks like progress."""

    epoch: int
    sequence: int
    hash: str

    def __str__(self) -> str:
        """Return `EPOCH:SEQUENCE:HASH`, the spelling that stores compare byte by byte."""
        return f"{self.epoch}:{self.sequence}:{self.hash}"

    @property
    def place(self) -> tuple[int, int]:
        """Return epoch and sequence, which order positions of one chain."""
        return self.epoch, self.sequence


def parse_position(text: str) -> Position:
    """Read `EPOCH:SEQUENCE:HASH`; raises MalformedInput."""
    epoch, _, rest = text.partition(":")
    sequence, _, hash_ = rest.partition(":")
    numbers = _NUMBER.fullmatch(epoch) and _NUMBER.fullmatch(sequence)
    if not numbers or not hash_:
        raise MalformedInput("not a position: EPOCH:SEQUENCE:HASH")
    return Position(int(epoch), int(sequence), hash_)
