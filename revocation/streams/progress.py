"""How far a stream is: the last event that was told whole, and what was told of the events behind it."""

from collections.abc import Collection, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from keyturn.contract.encoding import encode_json
from keyturn.contract.errors import MalformedInput
from keyturn.contract.positions import Position
from revocation.streams.telling import Page, Telling

MOST_OPEN = 1024  # Revocations that may wait for a receiver's word at a time; behind them it reads no further.


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A place in the lane; all before it is done, and of what lies behind it only what `done` names.

    An empty hash is the beginning of an epoch, of which only the number is known.
    """

    epoch: Annotated[int, Meta(ge=1)]
    sequence: Annotated[int, Meta(ge=0)]
    hash: str
    done: tuple[tuple[int, int], ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """Return epoch and sequence."""
        return self.epoch, self.sequence


def at(position: Position) -> Progress:
    """Return the progress of a stream that has told all up to a position."""
    return Progress(position.epoch, position.sequence, position.hash)


def parse_progress(raw: bytes) -> Progress:
    """Read what `encode_progress` wrote; raises MalformedInput."""
    try:
        return msgspec.json.decode(raw, type=Progress)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput("not a stream's progress") from error


def encode_progress(progress: Progress) -> bytes:
    """Return the one spelling of a progress."""
    return encode_json(progress)


def open_tellings(progress: Progress, pages: Sequence[Page]) -> list[Telling]:
    """Return what is to be told next, in order: at most 1,024 behind the place, without those that are done."""
    done, found = frozenset(progress.done), list[Telling]()
    for page in pages:
        found += page.tellings
        if len(found) >= MOST_OPEN:
            break
    return [one for one in found[:MOST_OPEN] if (one.sequence, one.nth) not in done]


def after(progress: Progress, pages: Sequence[Page], told: Collection[str]) -> Progress:
    """Return the progress once these, by `jti`, are done too; what is not open there changes nothing.

    `pages` are the events right behind the progress, in order and without a gap.
    """
    done = set(progress.done)
    done |= {(one.sequence, one.nth) for one in open_tellings(progress, pages) if one.jti in told}
    place = progress
    for page in pages:
        named = {(one.sequence, one.nth) for one in page.tellings}
        if not named <= done:
            break
        done -= named
        place = at(page.position)
    return Progress(place.epoch, place.sequence, place.hash, tuple(sorted(done)))
