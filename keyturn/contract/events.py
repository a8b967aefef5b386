"""The signed statements of the feed: events, heads and snapshots of both lanes."""

from typing import Annotated, TypeAlias, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from keyturn.contract.encoding import digest, encode_json
from keyturn.contract.envelope import StatementKey, StatementType, open_statement, statement_type
from keyturn.contract.errors import ForgedSignature, UnknownKind
from keyturn.contract.keys import KeyChange, KeyRecord, RotationRequest
from keyturn.contract.positions import Lane, Position
from keyturn.contract.selectors import Entry
from keyturn.contract.snapshots import Sections, digests_of, repeats_a_key

FORMATS: tuple[int, ...] = (1,)
"""Formats of the feed that this version reads and writes, the newest last; the root's document says which to write."""
FORMAT = FORMATS[-1]
Count: TypeAlias = Annotated[int, Meta(ge=0)]


class _Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="lane"):
    """What each statement of a lane says: where it stands, when it was signed, and under which trust."""

    format: int = FORMAT
    epoch: Annotated[int, Meta(ge=1)]
    sequence: Count
    at: float  # Unix seconds when it was signed.
    trust: Count  # Version of the trust document that the publisher held.

    @property
    def lane(self) -> Lane:
        """Return the lane that this statement belongs to."""
        return Lane(str(self.__struct_config__.tag))


class _Event(_Statement, frozen=True, kw_only=True):
    """The next link of a chain; `previous` is the hash of the link before."""

    previous: str
    id: str
    report: bool = False  # A receipt waits: verifiers report their adoption at once.


class KeysEvent(_Event, frozen=True, kw_only=True, tag="keys"):
    """One or several changes to the key set that happen together or not at all."""

    changes: tuple[KeyChange, ...]


class RevocationsEvent(_Event, frozen=True, kw_only=True, tag="revocations"):
    """Revocations that arrived together."""

    entries: tuple[Entry, ...]


class _Head(_Statement, frozen=True, kw_only=True):
    """The newest position of a lane, signed again with the time: the heartbeat."""

    hash: str


class KeysHead(_Head, frozen=True, kw_only=True, tag="keys"):
    """The head of the keys lane."""


class RevocationsHead(_Head, frozen=True, kw_only=True, tag="revocations"):
    """The head of the revocations lane."""


class _Snapshot(_Statement, frozen=True, kw_only=True):
    """All that a lane's events up to a position add up to. One that opens an epoch has no hash: it is the link."""

    hash: str = ""


class KeysSnapshot(_Snapshot, frozen=True, kw_only=True, tag="keys"):
    """The key set at a position."""

    keys: tuple[KeyRecord, ...] = ()
    requests: tuple[RotationRequest, ...] = ()


class RevocationsSnapshot(_Snapshot, frozen=True, kw_only=True, tag="revocations"):
    """The revocations that still matter at a position: a manifest of chunks, which are stored beside it.

    New revocations are hashed under the first section's key.
    """

    sections: Sections


Event: TypeAlias = KeysEvent | RevocationsEvent
Head: TypeAlias = KeysHead | RevocationsHead
Snapshot: TypeAlias = KeysSnapshot | RevocationsSnapshot

HEADS: dict[Lane, type[KeysHead] | type[RevocationsHead]] = {
    Lane.KEYS: KeysHead,
    Lane.REVOCATIONS: RevocationsHead,
}


class Signed(msgspec.Struct, frozen=True):
    """A statement together with the very bytes that were signed."""

    compact: bytes
    hash: str


class SignedEvent(Signed, frozen=True):
    """An event whose signature was made or checked here."""

    event: Event

    @property
    def position(self) -> Position:
        """Return the place that this event creates."""
        return Position(self.event.epoch, self.event.sequence, self.hash)


class SignedHead(Signed, frozen=True):
    """A head whose signature was made or checked here."""

    head: Head

    @property
    def position(self) -> Position:
        """Return the place that this head vouches for."""
        return Position(self.head.epoch, self.head.sequence, self.head.hash)


class SignedSnapshot(Signed, frozen=True):
    """A snapshot whose signature was made or checked here."""

    snapshot: Snapshot

    @property
    def position(self) -> Position:
        """Return the place that this snapshot sums up; an opening one is itself the first link."""
        return Position(self.snapshot.epoch, self.snapshot.sequence, self.snapshot.hash or self.hash)

    @property
    def digests(self) -> list[str]:
        """Name the chunks that belong to it."""
        return digests_of(self.snapshot.sections) if isinstance(self.snapshot, RevocationsSnapshot) else []


def sign_event(key: StatementKey, event: Event) -> SignedEvent:
    """Sign an event by a lane's role key."""
    compact = key.sign(StatementType.EVENT, encode_json(event))
    return SignedEvent(compact, digest(compact), event)


def sign_head(key: StatementKey, head: Head) -> SignedHead:
    """Sign a head by a lane's role key."""
    compact = key.sign(StatementType.HEAD, encode_json(head))
    return SignedHead(compact, digest(compact), head)


def sign_snapshot(key: StatementKey, snapshot: Snapshot) -> SignedSnapshot:
    """Sign a snapshot by a lane's role key."""
    compact = key.sign(StatementType.SNAPSHOT, encode_json(snapshot))
    return SignedSnapshot(compact, digest(compact), snapshot)


Signers: TypeAlias = dict[str, Ed25519PublicKey]

# Made once: a decoder works out anew what a union of types looks like each time that it is made.
_EVENTS: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
_HEADS: msgspec.json.Decoder[Head] = msgspec.json.Decoder(Head)
_SNAPSHOTS: msgspec.json.Decoder[Snapshot] = msgspec.json.Decoder(Snapshot)
_Read = TypeVar("_Read", bound=_Statement)


def open_event(compact: bytes, lane: Lane, signers: Signers) -> SignedEvent:
    """Return an event signed by the lane's role; raises ForgedSignature, or UnknownKind if it cannot be read."""
    event = _decode(open_statement(compact, StatementType.EVENT, signers), lane, _EVENTS)
    return SignedEvent(compact, digest(compact), event)


def open_head(compact: bytes, lane: Lane, signers: Signers) -> SignedHead:
    """Return a head signed by the lane's role; raises ForgedSignature or UnknownKind."""
    return SignedHead(
        compact, digest(compact), _decode(open_statement(compact, StatementType.HEAD, signers), lane, _HEADS)
    )


def open_snapshot(compact: bytes, lane: Lane, signers: Signers) -> SignedSnapshot:
    """Return a snapshot signed by the lane's role; raises ForgedSignature or UnknownKind."""
    snapshot = _decode(open_statement(compact, StatementType.SNAPSHOT, signers), lane, _SNAPSHOTS)
    if isinstance(snapshot, RevocationsSnapshot) and repeats_a_key(snapshot.sections):
        raise UnknownKind("a snapshot with two sections under one hash key")
    return SignedSnapshot(compact, digest(compact), snapshot)


def signed_at(compact: bytes, lane: Lane, signers: Signers) -> float:
    """Return when a lane's role signed this event, head or snapshot (Unix seconds).

    Raises ForgedSignature if it did not, UnknownKind if it did and this version cannot read it.
    """
    match statement_type(compact):
        case StatementType.EVENT:
            return open_event(compact, lane, signers).event.at
        case StatementType.HEAD:
            return open_head(compact, lane, signers).head.at
        case StatementType.SNAPSHOT:
            return open_snapshot(compact, lane, signers).snapshot.at
    raise ForgedSignature("a statement that has no place in a lane")


def _decode(payload: bytes, lane: Lane, decoder: "msgspec.json.Decoder[_Read]") -> _Read:
    try:
        statement = decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        _require_known(_format_of(payload))
        raise UnknownKind("a signed statement that this version cannot read; upgrade the reader") from error
    _require_known(statement.format)
    if statement.lane is not lane:
        raise UnknownKind(f"a statement of lane {statement.lane} stands in lane {lane}")
    return statement


class _Format(msgspec.Struct, frozen=True):
    """What a statement of any format has."""

    format: int = FORMAT


def _format_of(payload: bytes) -> int:
    try:
        return msgspec.json.decode(payload, type=_Format).format
    except (msgspec.DecodeError, RecursionError):
        return FORMAT  # It is not the format that is in the way.


def _require_known(number: int) -> None:
    if number not in FORMATS:
        known = ", ".join(map(str, FORMATS))
        raise UnknownKind(f"feed format {number}; this version reads {known}; upgrade the reader")
