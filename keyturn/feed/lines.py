"""The feed as text, one JSON object a line: what the feed's route sends, archives hold and auditors read."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from keyturn.contract.encoding import decode_object, encode_json, unb64url
from keyturn.contract.envelope import LARGEST_STATEMENT_BYTES
from keyturn.contract.errors import MalformedInput
from keyturn.contract.positions import Lane

LONGEST_LINE_BYTES = LARGEST_STATEMENT_BYTES + 1024
HIGHEST_SEQUENCE = 2**63 - 1  # As far as a stream's ids may be asked for.
_STATEMENTS = ("event", "snapshot", "head")


class Claimed(msgspec.Struct, frozen=True):
    """What a statement says of its own place; nothing in it is verified."""

    lane: Lane
    epoch: int
    sequence: int
    trust: int = 0
    previous: str = ""


class Line(NamedTuple):
    """A statement of a dump, and the place that the line gives it; nothing in it is verified."""

    lane: Lane
    epoch: int
    sequence: int
    compact: bytes


class _Place(msgspec.Struct, frozen=True):
    lane: Lane
    epoch: int
    sequence: int


def claims_of(compact: bytes) -> Claimed:
    """Return what an unverified statement says of its place; raises MalformedInput."""
    parts = compact.split(b".")
    if len(parts) != 3:  # noqa: PLR2004 - a compact JWS
        raise MalformedInput("not a compact JWS")
    try:
        return msgspec.json.decode(unb64url(parts[1]), type=Claimed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput("not a statement of a lane") from error


def render_line(lane: Lane, *, epoch: int, sequence: int, event: bytes) -> bytes:
    """Return the line of an event; bytes that are no text are shown as such, since somebody may have put them there."""
    shown = event.decode("utf-8", "backslashreplace")
    return encode_json({"lane": lane, "epoch": epoch, "sequence": sequence, "event": shown}) + b"\n"


def parse_line(raw: bytes) -> Line:
    """Read a line of a dump: a JSON object, or a compact statement as it is in `genesis/LANE.jws`.

    Members other than lane, epoch, sequence and the statement are for people, and not looked at. Raises
    MalformedInput.
    """
    raw = raw.strip()
    if len(raw) > LONGEST_LINE_BYTES:
        raise MalformedInput(f"a line longer than {LONGEST_LINE_BYTES} bytes")
    if not raw.startswith(b"{"):
        claimed = claims_of(raw)
        return Line(claimed.lane, claimed.epoch, claimed.sequence, raw)
    members = decode_object(raw)
    statements = [members[name] for name in _STATEMENTS if name in members]
    if len(statements) != 1 or not isinstance(statements[0], str):
        raise MalformedInput("a line has one of event, snapshot and head")
    try:
        place = msgspec.convert(members, type=_Place)
    except msgspec.ValidationError as error:
        raise MalformedInput("a line names its lane, epoch and sequence") from error
    return Line(place.lane, place.epoch, place.sequence, statements[0].encode("utf-8", "backslashreplace"))


def numbered(batch: Iterable[bytes], *, after: int) -> Iterator[tuple[int, bytes]]:
    """Yield the events of one read of a stream with their sequences, as they say them themselves.

    One that says none, or one that goes back, gets the next number: whoever reads on from it must get further.
    """
    for compact in batch:
        after += 1
        try:
            claimed = claims_of(compact).sequence
        except MalformedInput:
            claimed = 0
        if after < claimed <= HIGHEST_SEQUENCE:
            after = claimed
        yield after, compact
