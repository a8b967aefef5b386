"""Reads a lane again from its signed bytes: who signed each, whether it extends the one before, what is missing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from keyturn.contract.envelope import StatementType, statement_signer, statement_type
from keyturn.contract.errors import BrokenChain, ForgedSignature, MalformedInput
from keyturn.contract.events import (
    KeysEvent,
    KeysSnapshot,
    SignedEvent,
    SignedHead,
    SignedSnapshot,
    open_event,
    open_head,
    open_snapshot,
)
from keyturn.contract.keys import KeySet
from keyturn.contract.positions import Lane, Position
from keyturn.contract.trust import Trust
from keyturn.feed.lines import Line, claims_of

LINKS_KEPT = 65_536  # Hashes by which a line that comes twice is compared with the first.

Signed: TypeAlias = SignedEvent | SignedSnapshot | SignedHead


@dataclass(frozen=True, slots=True)
class Taken:
    """A line that holds: the statement, who signed it, and whether it led further."""

    signed: Signed
    signer: str
    extends: bool


@dataclass(slots=True)
class Stretch:
    """A part of one epoch that holds without a gap."""

    epoch: int
    first: int
    last: int
    begins_with: str
    """`genesis` or `snapshot`; `event` where the link before the first one is not in the dump, and vouched for only by
    the hash in it."""
    events: int = 0
    signers: Counter[str] = field(default_factory=Counter)
    newest_at: float = 0.0


class LaneAudit:
    """One lane of a dump, as far as it has been read."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self.position: Position | None = None
        self._links: dict[int, str] = {}
        self._keys: KeySet | None = None  # Known where the dump begins with a snapshot.
        self._promised: Position | None = None  # The newest place that a head vouches for.

    def take(self, signed: Signed, signer: str) -> bool:
        """Take the next statement, whose signature holds; say whether it led further.

        Raises BrokenChain for what does not extend what was taken before.
        """
        position, held = signed.position, self.position
        if isinstance(signed, SignedHead):
            self._note_head(position)
            return False
        if held is not None and position.epoch < held.epoch:
            raise BrokenChain(f"epoch {position.epoch} comes after epoch {held.epoch}")
        if held is None or position.epoch > held.epoch:
            self._begin(signed, signer)
            return True
        if position.sequence <= held.sequence:
            self._compare(position)
            return False
        if position.sequence > held.sequence + 1:
            missing = f"{held.sequence + 1} to {position.sequence - 1}"
            raise BrokenChain(f"{missing} of epoch {held.epoch} are missing")
        if not isinstance(signed, SignedEvent):
            raise BrokenChain(f"{position.epoch}:{position.sequence} is missing, and only a snapshot of it is there")
        if signed.event.previous != held.hash:
            raise BrokenChain(f"event {position.epoch}:{position.sequence} follows another history")
        self._extend(signed, signer)
        return True

    def stand_anew(self) -> None:
        """Take the next statement as a beginning: what came before it did not hold."""
        self.position, self._keys, self._promised = None, None, None
        self._links.clear()

    def require_all(self) -> None:
        """Raise BrokenChain if a head vouches for a later place than the dump has."""
        promised, held = self._promised, self.position
        if promised is not None and (held is None or promised.place > held.place):
            ends = "before it" if held is None else f"at {held.epoch}:{held.sequence}"
            raise BrokenChain(f"a head vouches for {promised.epoch}:{promised.sequence}, and the events end {ends}")

    def _begin(self, signed: SignedEvent | SignedSnapshot, signer: str) -> None:
        position = signed.position
        if isinstance(signed, SignedSnapshot):
            begins_with, at = ("snapshot" if signed.snapshot.hash else "genesis"), signed.snapshot.at
            snapshot = signed.snapshot
            self._keys = KeySet(snapshot.keys, snapshot.requests) if isinstance(snapshot, KeysSnapshot) else None
        else:
            begins_with, at, self._keys = "event", signed.event.at, None
        stretch = Stretch(position.epoch, position.sequence, position.sequence, begins_with, newest_at=at)
        stretch.signers[signer] += 1
        stretch.events += isinstance(signed, SignedEvent)
        self.stretches.append(stretch)
        self.position = position
        self._links = {position.sequence: position.hash}

    def _extend(self, signed: SignedEvent, signer: str) -> None:
        event, position = signed.event, signed.position
        if isinstance(event, KeysEvent) and self._keys is not None:
            self._keys = self._keys.after(event.changes, at=event.at, place=position.place)
        stretch = self.stretches[-1]
        stretch.last, stretch.newest_at = position.sequence, event.at
        stretch.events += 1
        stretch.signers[signer] += 1
        self.position = position
        self._links[position.sequence] = position.hash
        self._links.pop(position.sequence - LINKS_KEPT, None)

    def _compare(self, position: Position) -> None:
        known = self._links.get(position.sequence)
        if known is None:
            raise BrokenChain(f"{position.epoch}:{position.sequence} comes too late to be compared: sort the lines")
        if known != position.hash:
            raise BrokenChain(f"two histories claim place {position.epoch}:{position.sequence}")

    def _note_head(self, position: Position) -> None:
        held = self.position
        if held is not None and position.epoch == held.epoch and position.sequence in self._links:
            self._compare(position)
        elif self._promised is None or position.place > self._promised.place:
            self._promised = position


class Audit:
    """Both lanes of a dump, against what the root vouches for.

    An event names the version of the trust document that its signer held. Its signer must have the role in the newest
    document of all, or have had it in the newest that is not younger than the one named. That one counts no more
    where the root has dropped epochs of the lane since: in the epochs after that, a key of before has no say.
    """

    def __init__(self, trusts: Sequence[Trust]) -> None:
        self.trusts = sorted(trusts, key=lambda one: one.version)
        self.lanes = {lane: LaneAudit() for lane in Lane}

    @property
    def newest(self) -> Trust:
        """Return the newest document."""
        return self.trusts[-1]

    def learn(self, trust: Trust) -> None:
        """Judge by a newer document as well."""
        if trust.version > self.newest.version:
            self.trusts.append(trust)

    def take(self, line: Line) -> Taken:
        """Take the next line of its lane.

        Raises ForgedSignature for what no role of the lane signed, BrokenChain for what does not extend the lines
        before it, UnknownKind for what is signed but cannot be read.
        """
        signed = self._open(line)
        position = signed.position
        if position.place != (line.epoch, line.sequence):
            raise BrokenChain(
                f"the line says {line.epoch}:{line.sequence}, the signed statement {position.epoch}:{position.sequence}"
            )
        signer = statement_signer(line.compact)
        return Taken(signed, signer, self.lanes[line.lane].take(signed, signer))

    def retired(self, lane: Lane, signers: Sequence[str]) -> list[str]:
        """Return those of these signers that the newest document does not trust with the lane any more."""
        return [kid for kid in signers if kid not in self.newest.role(lane)]

    def dropped(self, lane: Lane, epoch: int) -> bool:
        """Say whether the root has dropped an epoch: whatever stands in it counts no more."""
        return epoch < self.newest.lowest_epoch(lane)

    def _open(self, line: Line) -> Signed:
        compact, lane = line.compact, line.lane
        signers = self._signers(lane, compact)
        match statement_type(compact):
            case StatementType.EVENT:
                return open_event(compact, lane, signers)
            case StatementType.SNAPSHOT:
                return open_snapshot(compact, lane, signers)
            case StatementType.HEAD:
                return open_head(compact, lane, signers)
        raise ForgedSignature("a statement that has no place in a lane")

    def _signers(self, lane: Lane, compact: bytes) -> dict[str, Ed25519PublicKey]:
        try:
            claimed = claims_of(compact)
        except MalformedInput:
            return self.newest.role(lane)
        lowest = self.newest.lowest_epoch(lane)
        then = [one for one in self.trusts if one.version <= claimed.trust][-1:]
        counts = [one for one in then if claimed.epoch < lowest or one.lowest_epoch(lane) == lowest]
        return {kid: key for one in (*counts, self.newest) for kid, key in one.role(lane).items()}
