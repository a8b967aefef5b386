"""A verifier's trusted copy of both lanes: what is signed and extends it is applied, nothing else."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto
from typing import Any

from jwt.algorithms import Algorithm

from keyturn.contract.envelope import StatementType, statement_type
from keyturn.contract.errors import BrokenChain, MalformedInput, TrustError, UnknownKind
from keyturn.contract.events import (
    Event,
    Head,
    KeysEvent,
    KeysSnapshot,
    RevocationsEvent,
    SignedEvent,
    open_event,
    open_head,
    open_snapshot,
    signed_at,
)
from keyturn.contract.jwk import ALGORITHMS, load_public
from keyturn.contract.keys import KeyRecord, KeySet, Phase
from keyturn.contract.positions import Lane, Position
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import TokenNames, names_of
from keyturn.contract.snapshots import NO_CHUNKS, Chunks
from keyturn.contract.trust import Trust, trust_nobody
from keyturn.contract.union import lacks, united
from keyturn.feed.tail import Tail
from keyturn.verifier.freshness import Freshness, Heard, State
from keyturn.verifier.loading import Loading

_NO_HASH_KEY = bytes(16)
_EVENTS_KNOWN = 1024


class Admission(Enum):
    """What became of a statement."""

    APPLIED = auto()  # It moved the replica, or confirmed its position.
    HELD = auto()  # Known before.
    BEHIND = auto()  # It lies beyond what we hold: read the stream.
    NEEDS_TRUST = auto()  # It names a newer trust document: fetch that first.


class VerificationKey:
    """A key that tokens are checked with; a new object whenever its record changes."""

    __slots__ = ("algorithm", "key", "record")

    def __init__(self, record: KeyRecord) -> None:
        self.record = record
        self.key: Any = load_public(record.jwk, record.alg)
        self.algorithm: Algorithm = ALGORITHMS[record.alg]


class Replica:
    """Both lanes as far as they are trusted; pure: time comes in with each call.

    `generation` grows whenever anything in it changes, so that a cached verdict knows when to look again.
    """

    def __init__(self, *, issuer: str, freshness: Freshness) -> None:
        self.issuer, self.freshness = issuer, freshness
        self.trust = trust_nobody(issuer)
        self.generation = 0
        self.keys = KeySet()
        self.verification: Mapping[str, VerificationKey] = {}
        self.indexes: tuple[RevocationIndex, ...] = (RevocationIndex(_NO_HASH_KEY),)
        self.report_asked = False  # An event wants verifiers to report at once; the reporter takes it back.
        self.tails = {lane: Tail() for lane in Lane}
        self.heads: dict[Lane, bytes] = {}  # The newest heads that were taken, as they were signed.
        # Lanes whose newest snapshot lacked what we held, so that its publisher has to open another epoch; of the keys
        # lane also what both know together.
        self.lost: dict[Lane, KeySet | None] = {}
        self._vouched: SignedEvent | None = None
        self._positions: dict[Lane, Position] = {}
        self._recent: dict[Lane, OrderedDict[str, None]] = {lane: OrderedDict() for lane in Lane}
        self._heard = {lane: Heard() for lane in Lane}
        self.unreadable: dict[Lane, str] = {}  # Lanes that say what this version cannot read, and why.
        # Before both of these moments the state is fresh: what the hot path compares, kept by `_limit_freshness`.
        self.fresh_until = self.fresh_until_boottime = float("-inf")
        # It is not earlier than this, whatever our clock says: the newest word of a publisher, less S.
        self.time_floor = float("-inf")
        self._held_back_until = float("-inf")  # By the boot-time clock; infinity in the past once it is over.

    @property
    def heard_at(self) -> float:
        """Return the moment of the newest word of any publisher (Unix seconds)."""
        return max(heard.at for heard in self._heard.values())

    def position(self, lane: Lane) -> Position | None:
        """Return where a lane's replica stands, None before its first snapshot."""
        return self._positions.get(lane)

    def place(self, lane: Lane) -> tuple[int, int]:
        """Return epoch and sequence of a lane's replica, (0, 0) before its first snapshot."""
        position = self._positions.get(lane)
        return (0, 0) if position is None else position.place

    def hash_at(self, lane: Lane, place: tuple[int, int]) -> str | None:
        """Return the hash of what stands at a place of our chain, None where that is not known (yet, or any more)."""
        position = self._positions.get(lane)
        if position is None or place[0] != position.epoch:
            return None
        return position.hash if place == position.place else self.tails[lane].hash_at(place[1])

    def knows(self, lane: Lane, event_id: str) -> bool:
        """Say whether an event of that id is among the last 1,024 that were applied here."""
        return event_id in self._recent[lane]

    def age(self, now: float, boottime: float) -> float:
        """Return the age of the older lane in seconds; infinite where there is none or it cannot be read."""
        if self.unreadable or len(self._positions) < len(self._heard):
            return float("inf")
        return max(heard.age(now, boottime) for heard in self._heard.values())

    def silence(self, lane: Lane, boottime: float) -> float:
        """Return for how many seconds nothing new was heard of a lane's publisher."""
        return boottime - self._heard[lane].boottime

    def hold_back(self, until: float) -> None:
        """Count as expired until `caught_up`, or until that moment of the boot-time clock.

        What a snapshot or a file holds is of the past: while the store can be asked, no answer rests on it alone.
        """
        self._held_back_until = until
        self._limit_freshness()

    def caught_up(self) -> None:
        """Answer from now on: all has been read that the store held when it was asked."""
        if self._held_back_until > float("-inf"):
            self.hold_back(float("-inf"))

    def is_held_back(self, boottime: float) -> bool:
        """Say whether the store is still being read for the first time."""
        return boottime < self._held_back_until

    def no_earlier(self, now: float) -> float:
        """Return the time by which what runs out is judged: a clock that was set back brings nothing back to life."""
        return max(now, self.time_floor)

    def no_later(self, now: float, boottime: float) -> float:
        """Return the time by which what begins is dated: a clock that runs ahead dates nothing past a cutoff to come.

        It is not later than the publishers' newest word, the boot-time clock since that came, and S.
        """
        latest = max(heard.at + boottime - heard.boottime for heard in self._heard.values())
        return min(now, latest + self.freshness.skew_seconds)

    def state(self, now: float, boottime: float) -> State:
        """Return what the replica may be used for now."""
        if self.no_earlier(now) >= self.trust.document.expires_at or boottime < self._held_back_until:
            return State.EXPIRED
        return self.freshness.state(self.age(now, boottime))

    def adopt_trust(self, trust: Trust) -> bool:
        """Replace the trust document by a newer one; say whether it was newer.

        Raises TrustError for a document of another issuer, or of a root that the held one has left.
        """
        if trust.document.issuer != self.issuer:
            raise TrustError(f"the trust document is for issuer {trust.document.issuer}, not {self.issuer}")
        if not trust.follows(self.trust):
            raise TrustError("the trust document is signed by a root that was left for another")
        if trust.version <= self.trust.version:
            return False
        before, self.trust, self._vouched = self.trust, trust, None
        for lane in Lane:
            # Where it was raised everything goes, whatever epoch it claims: a thief may have opened the millionth.
            lowest = trust.lowest_epoch(lane)
            if lowest > before.lowest_epoch(lane) or self.place(lane)[0] < lowest:
                self._drop(lane)
        self.generation += 1
        self._limit_freshness()
        return True

    def _drop(self, lane: Lane) -> None:
        """Forget all of an epoch that the root has dropped: a thief of its role key may have said it."""
        self._positions.pop(lane, None)  # Start again from a snapshot.
        self._heard[lane] = Heard()
        self.tails[lane].clear()
        self.lost.pop(lane, None)
        self._recent[lane].clear()  # An order that is repeated now has to be carried out again.
        self.unreadable.pop(lane, None)
        if lane is Lane.KEYS:
            self._use(KeySet())
        else:
            self.indexes = (RevocationIndex(_NO_HASH_KEY),)

    def admit(self, lane: Lane, statement: bytes, *, now: float, boottime: float) -> Admission:
        """Take a statement from the doorbell, the stream or the head key.

        Raises ForgedSignature for what the lane's role did not sign, BrokenChain for what contradicts our chain,
        TrustError for a head from the future, UnknownKind (and expires for good) for what cannot be read.
        """
        with self._reading(lane):
            match statement_type(statement):
                case StatementType.EVENT:
                    signed = self._vouched
                    if signed is None or signed.compact != statement or signed.event.lane is not lane:
                        signed = open_event(statement, lane, self.trust.role(lane))
                    return self.apply(signed, now=now, boottime=boottime)
                case StatementType.HEAD:
                    head = open_head(statement, lane, self.trust.role(lane))
                    admission = self._confirm(head.head, head.position, now, boottime)
                    if admission is Admission.APPLIED:
                        self.heads[lane] = statement
                    return admission
                case StatementType.SNAPSHOT:  # Without its chunks: BEHIND, unless they are held already.
                    return self.admit_snapshot(lane, statement, now=now, boottime=boottime)
        raise BrokenChain("a statement that has no place in a lane")

    def vouch(self, signed: SignedEvent) -> None:
        """Know an event that was signed here, by a key of the role: when these very bytes come, they hold.

        Until the next one is, or another trust document comes, which may take the role away.
        """
        self._vouched = signed

    def apply(self, signed: SignedEvent, *, now: float, boottime: float) -> Admission:
        """Apply an event whose signature was made or checked here, if it extends what we hold."""
        event, lane = signed.event, signed.event.lane
        held = self._positions.get(lane)
        if held is None or event.epoch != held.epoch or event.sequence > held.sequence + 1:
            return Admission.HELD if held is not None and event.epoch < held.epoch else Admission.BEHIND
        if event.sequence <= held.sequence:
            if event.sequence == held.sequence and signed.hash != held.hash:
                raise BrokenChain(f"two events claim place {event.epoch}:{event.sequence} of lane {lane}")
            return Admission.HELD
        if event.previous != held.hash:
            raise BrokenChain(f"event {event.epoch}:{event.sequence} of lane {lane} follows another history")
        self._take(event, signed.position.place)
        self._positions[lane] = signed.position
        self._remember(lane, event.id)
        self.tails[lane].add(signed)
        self.report_asked |= event.report
        self.generation += 1
        return self._note(lane, event, boottime, now)

    def admit_snapshot(
        self, lane: Lane, compact: bytes, *, now: float, boottime: float, chunks: Chunks = NO_CHUNKS
    ) -> Admission:
        """Start or jump forward from a signed snapshot; never back, and never to another hash of the same place.

        BEHIND if a chunk is needed that is neither held nor among `chunks`. Raises ForgedSignature, BrokenChain,
        TrustError and UnknownKind as `admit` does.
        """
        loading = self.begin_snapshot(lane, compact)
        if loading is None:
            return Admission.HELD
        for digest in loading.missing:
            if digest not in chunks:
                return Admission.BEHIND
            self.take_chunk(loading, digest, chunks[digest])
        for _ in loading.steps():
            pass
        return self.adopt_snapshot(loading, now=now, boottime=boottime)

    def begin_snapshot(self, lane: Lane, compact: bytes) -> Loading | None:
        """Look at a signed snapshot and say what is missing of it; None if it leads nowhere from here.

        Raises ForgedSignature, TrustError and UnknownKind.
        """
        with self._reading(lane):
            signed = open_snapshot(compact, lane, self.trust.role(lane))
        place = signed.position.place
        if place[0] < self.trust.lowest_epoch(lane):
            raise TrustError(f"a snapshot of epoch {place[0]}, which the root has dropped")
        return Loading(signed, self.trust, self.indexes) if place > self.place(lane) else None

    def take_chunk(self, loading: Loading, digest: str, raw: bytes) -> None:
        """Check a chunk of a snapshot that was begun.

        Raises ForgedSignature if it is not the one that is named, UnknownKind (and expires for good) if it is and
        cannot be read.
        """
        with self._reading(loading.lane):
            loading.take(digest, raw)

    def adopt_snapshot(self, loading: Loading, *, now: float, boottime: float) -> Admission:
        """Stand where a snapshot stands whose every step was taken; HELD if we came further meanwhile.

        BEHIND if there is another trust document since it was begun: that may have dropped what we held then.
        """
        if loading.trust is not self.trust:
            return Admission.BEHIND
        lane, signed = loading.lane, loading.signed
        if signed.position.place <= self.place(lane):
            return Admission.HELD
        with self._reading(lane):
            self._load(loading, now, first=lane not in self._positions)
        self._positions[lane] = signed.position
        self.tails[lane].clear()
        self.generation += 1
        return self._note(lane, signed.snapshot, boottime, now)

    def forget_expired(self, now: float) -> int:
        """Drop revocations that nothing valid can match; return how many.

        The publisher's word on the time counts where ours runs ahead: a clock that is put right again must not find
        its revocations gone.
        """
        moment = min(now, self._heard[Lane.REVOCATIONS].at)
        return sum(index.prune(moment) for index in self.indexes)

    def names(self, claims: Mapping[str, Any]) -> tuple[TokenNames, ...]:
        """Return what revocations could call a token by, for each index held."""
        return tuple(names_of(claims, key=index.key) for index in self.indexes)

    def revokes(self, names: tuple[TokenNames, ...]) -> bool:
        """Say whether a revocation that we hold names the token; `names` must come from the present indexes."""
        if len(self.indexes) == 1 == len(names):  # As long as no epoch was lost: this is the hot path.
            return self.indexes[0].revokes(names[0])
        return any(index.revokes(one) for index, one in zip(self.indexes, names, strict=True))

    def latest_cutoff(self, claims: Mapping[str, Any]) -> float:
        """Return the latest cutoff that touches these claims (Unix seconds), 0 if none."""
        return max(index.latest_cutoff(names_of(claims, key=index.key)) for index in self.indexes)

    def _confirm(self, head: Head, position: Position, now: float, boottime: float) -> Admission:
        self._not_from_the_future(head.at, now)
        held = self._positions.get(head.lane)
        if held is None or position.place > held.place:
            return Admission.BEHIND
        if position.place < held.place:
            return Admission.HELD  # Rolled back: never counts as word of the publisher.
        if position != held:
            raise BrokenChain(f"head and replica of lane {head.lane} differ at {held.epoch}:{held.sequence}")
        return self._note(head.lane, head, boottime, now)

    def _note(self, lane: Lane, statement: Any, boottime: float, now: float) -> Admission:
        if statement.trust > self.trust.version:
            return Admission.NEEDS_TRUST  # Not fresh before we know what the publisher knows.
        if statement.at > now + self.freshness.skew_seconds:
            return Admission.APPLIED  # What it says holds, or its chain would end here; it is no word on the time.
        self._heard[lane].note(statement.at, boottime)
        self._limit_freshness()
        return Admission.APPLIED

    def _limit_freshness(self) -> None:
        """Work out until when `state` is fresh, by each clock; called whenever anything that it looks at changes."""
        self.time_floor = self.heard_at - self.freshness.skew_seconds
        held_back = self._held_back_until > float("-inf")
        if self.unreadable or held_back or len(self._positions) < len(self._heard):
            self.fresh_until = self.fresh_until_boottime = float("-inf")
            return
        stale_after = self.freshness.stale_after_seconds
        oldest = min(heard.at for heard in self._heard.values())
        self.fresh_until = min(oldest + stale_after, self.trust.document.expires_at)
        self.fresh_until_boottime = min(heard.boottime for heard in self._heard.values()) + stale_after

    def _remember(self, lane: Lane, event_id: str) -> None:
        recent = self._recent[lane]
        recent[event_id] = None
        if len(recent) > _EVENTS_KNOWN:
            recent.popitem(last=False)

    def _not_from_the_future(self, at: float, now: float) -> None:
        if at > now + self.freshness.skew_seconds:
            raise TrustError(f"a statement signed {at - now:.1f} s ahead of this clock; compare the clocks")

    def _take(self, event: Event, place: tuple[int, int]) -> None:
        if isinstance(event, KeysEvent):
            self._use(self.keys.after(event.changes, at=event.at, place=place))
        elif isinstance(event, RevocationsEvent):
            self.indexes[0].add_all(event.entries)

    def cross(self, lane: Lane, other: "Replica", *, now: float, boottime: float) -> bool:
        """Leave a branch that a failover has lost, for the one that the publisher vouches for now; say whether.

        `other` has read the store alone. It must stand on another branch of our epoch, shown by two signed events at
        one place, under a head that was signed later than anything that we have heard: who merely offers an old state
        has no such head. Tombstones of ours stay, as our revocations do; `other`'s have to be absorbed before.
        """
        theirs, heard = other.position(lane), other.heard(lane)
        if theirs is None or not self.is_left_by(lane, other):
            return False
        if lane is Lane.KEYS:
            tombstones = {key.kid: key for key in self.keys if key.phase is Phase.REVOKED}
            self._use(KeySet(({key.kid: key for key in other.keys} | tombstones).values(), other.keys.requests))
        self._positions[lane], self.tails[lane] = theirs, other.tails[lane]
        self.lost.pop(lane, None)
        self.generation += 1
        if heard.at <= now + self.freshness.skew_seconds:
            self._heard[lane].note(heard.at, boottime)
        self._limit_freshness()
        return True

    def is_news(self, lane: Lane, statement: bytes) -> bool:
        """Say whether the lane's role signed this statement, and later than all that we have heard of it."""
        try:
            return signed_at(statement, lane, self.trust.role(lane)) > self._heard[lane].at
        except TrustError:
            return False

    def is_left_by(self, lane: Lane, other: "Replica") -> bool:
        """Say whether the publisher vouches for another branch of our epoch now, as `other` has read it."""
        mine, theirs = self._positions.get(lane), other.position(lane)
        is_newer = other.heard(lane).at > self._heard[lane].at
        if mine is None or theirs is None or other.trust is not self.trust or not is_newer:
            return False
        place = min(mine.place, theirs.place)
        known = self.hash_at(lane, place), other.hash_at(lane, place)
        return mine.epoch == theirs.epoch and None not in known and known[0] != known[1]

    def heard(self, lane: Lane) -> Heard:
        """Return when a lane's publisher was last heard."""
        return self._heard[lane]

    def absorb(self, indexes: tuple[RevocationIndex, ...]) -> Iterator[None]:
        """Hold all revocations that these hold, in bounded steps: what was signed as revoked stays so, on any branch.

        A million on each side take seconds; verdicts have to go on meanwhile.
        """
        for index in indexes:
            mine = next((one for one in self.indexes if one.key == index.key), None)
            if mine is not None:
                yield from mine.absorbing(index)
            elif len(index):
                self.indexes = (*self.indexes, index)
            self.generation += 1

    @contextmanager
    def _reading(self, lane: Lane) -> Iterator[None]:
        """Expire for good if something signed cannot be read: it could be a revocation."""
        try:
            yield
        except UnknownKind as error:
            self.unreadable[lane] = str(error)
            self.generation += 1
            self._limit_freshness()
            raise

    def _load(self, loading: Loading, now: float, *, first: bool) -> None:
        snapshot, lane = loading.signed.snapshot, loading.lane
        held = self.lost.pop(lane, None)
        if isinstance(snapshot, KeysSnapshot):
            mine, theirs = held or self.keys, KeySet(snapshot.keys, snapshot.requests)
            if not first and lacks(theirs, mine, at=snapshot.at):
                self.lost[lane] = united(mine, theirs, at=now, place=loading.signed.position.place)
            tombstones = [key for key in self.keys if key.phase is Phase.REVOKED]
            known = {key.kid: key for key in snapshot.keys}
            # A higher epoch must not bring back what we know to be revoked.
            records = {**known, **{key.kid: key for key in tombstones}}
            self._use(KeySet(records.values(), snapshot.requests))
            return
        # What we hold stays until it runs out, whatever the snapshot lacks: a tail may have been lost.
        moment = min(now, snapshot.at)
        if loading.lacks(moment):
            self.lost[lane] = None
        others = [index for index in self.indexes if index not in loading.indexes]
        self.indexes = (*loading.indexes, *(index for index in others if index.prune(moment) >= 0 and len(index)))

    def _use(self, keys: KeySet) -> None:
        verification: dict[str, VerificationKey] = {}
        for record in keys:
            held = self.verification.get(record.kid)
            if held is not None and held.record == record:
                verification[record.kid] = held
                continue
            try:
                verification[record.kid] = VerificationKey(record)
            except MalformedInput as error:
                raise UnknownKind(f"key {record.kid} cannot be used by this version") from error
        self.keys, self.verification = keys, verification
