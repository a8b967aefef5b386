"""What is true in a run, told from what the server took and what clients were answered; no process is asked."""

from dataclasses import dataclass, field

from keyturn.contract.events import (
    KeysEvent,
    KeysSnapshot,
    RevocationsEvent,
    RevocationsSnapshot,
    SignedEvent,
    SignedSnapshot,
)
from keyturn.contract.keys import KeyRecord, KeySet, Phase, Revoked
from keyturn.contract.positions import Lane, Position
from keyturn.contract.selectors import Selector, SelectorKind, hashed
from keyturn.contract.snapshots import Chunks, unpack
from tests.rotation.facts import Token


@dataclass(eq=False)
class Minted(Token):
    """A token that was handed out, with what a revocation can call it by."""

    jti: str
    grant_id: str
    granted_at: float
    sub: str

    def named_by(self, selector: Selector) -> bool:
        """Say whether a revocation names this token: in the plainest way, on purpose not that of production."""
        match selector.kind:
            case SelectorKind.JTI:
                return selector.value == self.jti
            case SelectorKind.GRANT:
                return selector.value == self.grant_id
            case SelectorKind.SUBJECT:
                return selector.value == self.sub and self.granted_at < (selector.before or 0.0)
        raise AssertionError(f"no client revokes by {selector.kind}")


@dataclass(eq=False)
class Revocation:
    """One revocation that a client asked for; moments are virtual seconds."""

    selector: Selector
    tokens: list[Minted]  # What it named when it was asked for.
    until: float
    asked: float
    landed: float | None = None  # When it landed in the store that there is now.
    ever_landed: bool = False  # Also in a store that has lost it since.
    place: tuple[int, int] = (0, 0)
    acknowledged: float | None = None
    receipt: float | None = None  # When its receipt said that all have adopted it,
    adopters: frozenset[str] = frozenset()  # and who that was.


@dataclass
class Truth:
    """Keys and revocations as the server has them."""

    keys: KeySet = field(default_factory=KeySet)
    tokens: list[Minted] = field(default_factory=list)
    revocations: list[Revocation] = field(default_factory=list)
    keys_revoked: dict[str, float] = field(default_factory=dict)  # kid → when its tombstone landed.
    keys_in_doubt: set[str] = field(default_factory=set)  # Somebody asked for their tombstone.
    keys_ended: dict[str, float] = field(default_factory=dict)  # kid → when it stopped being the active one.
    losses: list[float] = field(default_factory=list)  # When the server lost writes.
    orphans: set[str] = field(default_factory=set)  # Positions that the server had, lost, and never had again.
    _places: dict[tuple[Lane, tuple[int, int]], Position] = field(default_factory=dict)  # As the server has them now.
    _signed_by: dict[str, KeyRecord] = field(default_factory=dict)  # The record of each key as it became active.
    _at: dict[str, KeySet] = field(default_factory=dict)  # The keys at every position that ever was.

    def landed(self, signed: SignedEvent, moment: float) -> None:
        """Take an event that the server has taken."""
        event = signed.event
        self._places[event.lane, signed.position.place] = signed.position
        self.orphans.discard(str(signed.position))
        if isinstance(event, RevocationsEvent):
            names = {entry.selector for entry in event.entries}
            for one in self.revocations:
                if one.landed is None and one.selector in names:
                    one.landed, one.place, one.ever_landed = moment, signed.position.place, True
        elif isinstance(event, KeysEvent):
            after = self.keys.after(event.changes, at=event.at, place=signed.position.place)
            self._become(after, signed.position, moment)
            for change in event.changes:
                if isinstance(change, Revoked):
                    self.keys_revoked.setdefault(change.kid, moment)

    def began(self, signed: SignedSnapshot, chunks: Chunks, moment: float) -> None:
        """Take the snapshot that opened an epoch."""
        snapshot = signed.snapshot
        if isinstance(snapshot, KeysSnapshot):
            self._become(KeySet(snapshot.keys, snapshot.requests), signed.position, moment)
        elif isinstance(snapshot, RevocationsSnapshot):
            indexes = unpack(snapshot.sections, chunks)
            held = {(index.key, name) for index in indexes for name, _, _ in index.rows()}
            for one in self.revocations:
                kind, iss, value = one.selector.kind, one.selector.iss, one.selector.value
                known = any((index.key, hashed(index.key, kind, iss, value)) in held for index in indexes)
                if one.landed is None and known:
                    one.landed, one.place = moment, signed.position.place

    def lost(self, keys: Position, revocations: Position, moment: float) -> None:
        """Go back to where the server stands now."""
        self.losses.append(moment)
        for lane, stands in ((Lane.KEYS, keys), (Lane.REVOCATIONS, revocations)):
            gone = [key for key in self._places if key[0] is lane and key[1] > stands.place]
            self.orphans.update(str(self._places.pop(key)) for key in gone)
        self._become(self._at[str(keys)], keys, moment)
        for one in self.revocations:
            if one.landed is not None and one.place > revocations.place:
                one.landed = None
        for kid in [kid for kid in self.keys_revoked if self.key(kid).phase is not Phase.REVOKED]:
            del self.keys_revoked[kid]

    def begin(self, keys: Position) -> None:
        """Note where the lane of keys begins, empty."""
        self._at[str(keys)] = self.keys

    def _become(self, keys: KeySet, position: Position, moment: float) -> None:
        before, self.keys = self.keys, keys
        self._at[str(position)] = keys
        active = {key.kid: key for key in keys if key.phase is Phase.ACTIVE}
        for key in before:
            if key.phase is Phase.ACTIVE and key.kid not in active:
                self.keys_ended.setdefault(key.kid, moment)
        for kid, key in active.items():
            self.keys_ended.pop(kid, None)
            self._signed_by[kid] = key

    def key(self, kid: str) -> KeyRecord:
        """Return a key's record in the store that there is now, else as it was when it became active."""
        record = self.keys.get(kid) or self._signed_by.get(kid)
        assert record is not None, "a key that the server never heard of"
        return record

    def signing(self, kid: str) -> KeyRecord:
        """Return a key's record as it became active; if it never did, as it is."""
        return self._signed_by.get(kid) or self.key(kid)

    def revoked(self, token: Minted) -> list[Revocation]:
        """Return the revocations that name a token and have landed."""
        return [one for one in self.revocations if one.landed is not None and token.named_by(one.selector)]

    def in_doubt(self, token: Minted) -> bool:
        """Say whether anybody has asked for its end, or its key's: then it may be rejected, landed or not."""
        return token.kid in self.keys_in_doubt or any(token.named_by(one.selector) for one in self.revocations)
