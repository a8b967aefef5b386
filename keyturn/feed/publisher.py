"""Signs and appends events to one lane, beats its heart, and keeps its snapshot."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, Protocol

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.encoding import digest
from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import FeedUnavailable, PositionTaken, StreamSpoiled, TrustError
from keyturn.contract.events import (
    FORMATS,
    HEADS,
    KeysEvent,
    KeysSnapshot,
    RevocationsEvent,
    RevocationsSnapshot,
    SignedEvent,
    Snapshot,
    open_snapshot,
    sign_event,
    sign_head,
    sign_snapshot,
)
from keyturn.contract.keys import KeyChange, KeySet
from keyturn.contract.positions import Lane, Position
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import Entry
from keyturn.contract.snapshots import NO_CHUNKS, Chunks, pack
from keyturn.contract.trust import Trust
from keyturn.feed.archive import Archive
from keyturn.feed.log import BATCH, CHUNKS_AT_ONCE, NOTHING_BESIDE, Beside, Feed
from keyturn.feed.tail import Tail

HEARTBEAT_SECONDS = 1.0
SNAPSHOT_EVERY_EVENTS = 512
SNAPSHOT_EVERY_SECONDS = 300.0  # Where fewer events have come, but at least one.
LOOK_AT_SNAPSHOT_SECONDS = 60.0
TRIM_AFTER_SECONDS = 600.0
EPOCHS_KEPT = 3  # The running one and two before it, for whoever looks into what happened.
_LAST_SEQUENCE = 2**53
MOST_KEPT = 4096  # Snapshots of the last ten minutes that are remembered; more often than that, none is needed.


class _Kept(NamedTuple):
    """The place of a snapshot that was stored, and when (boot-time seconds)."""

    position: Position
    boottime: float


class PublishedState(Protocol):
    """What a publisher needs of its own verified replica."""

    trust: Trust
    keys: KeySet
    indexes: tuple[RevocationIndex, ...]
    tails: dict[Lane, Tail]
    lost: dict[Lane, KeySet | None]

    def position(self, lane: Lane) -> Position | None:
        """Return where a lane stands."""
        ...

    def vouch(self, signed: SignedEvent) -> None:
        """Expect an event that was signed here: its signature need not be checked, whichever way it comes."""
        ...

    def apply(self, signed: SignedEvent, *, now: float, boottime: float) -> Any:
        """Apply an event that was signed here."""
        ...

    def admit_snapshot(
        self, lane: Lane, compact: bytes, *, now: float, boottime: float, chunks: Chunks = NO_CHUNKS
    ) -> Any:
        """Jump to a snapshot that was signed here."""
        ...


class Publisher:
    """One lane's voice. It signs only for positions of its own verified replica."""

    def __init__(
        self,
        lane: Lane,
        key: StatementKey,
        feed: Feed,
        replica: PublishedState,
        clock: Clock,
        *,
        archive: Archive | None = None,
        keep: Callable[[Lane], Awaitable[None]] | None = None,
        needed: Callable[[Position, float], Awaitable[bool]] | None = None,
    ) -> None:
        """Know them; `keep` puts on the disk what our replica holds of a lane, before it is called accepted.

        `needed` says whether somebody has still to read events up to a snapshot's position, which has stood for so
        many seconds.
        """
        self.lane, self._archive, self._keep, self._needed = lane, archive, keep, needed
        self._key, self._feed, self._replica, self._clock = key, feed, replica, clock
        self._name = entropy.uuid7(clock.now())  # Among the replicas of this publisher.
        self._snapshot_at, self._snapshot_boottime = (0, 0), clock.boottime()
        self._good_snapshot, self._looked_boottime = "", float("-inf")
        self._good_chunks: list[str] = []
        self._kept: list[_Kept] = []
        self.spoiled = False  # Somebody else has written to our stream: only a new epoch helps.
        self.confirmed_boottime = float("-inf")  # When the primary last accepted a write of ours at our position.

    def is_trusted(self) -> bool:
        """Say whether the newest trust document gives this key its lane's role."""
        return self._key.kid in self._replica.trust.role(self.lane)

    def use(self, key: StatementKey) -> bool:
        """Sign by another key from now on, if the root has given it the role; say whether it is another."""
        if key.kid == self._key.kid or key.kid not in self._replica.trust.role(self.lane):
            return False
        # The stored snapshot is signed anew at once, before the root may take the role from the old key.
        self._key, self._good_snapshot, self._looked_boottime = key, "", float("-inf")
        return True

    async def append(
        self,
        content: Sequence[KeyChange] | Sequence[Entry],
        *,
        report: bool = False,
        beside: Beside = NOTHING_BESIDE,
        event_id: str | None = None,
    ) -> SignedEvent:
        """Sign what happened as the next event and append it; it is durable, and in our replica, on return.

        `event_id` is the caller's, where a repeated order must be recognised; else it is a new one.

        Raises PositionTaken if another publisher was first (catch up and decide again) and FeedUnavailable if
        the outcome is unknown, or if the root has taken the role from this key, or has publishers write a format
        that this version does not know: nobody would believe or read the event.
        """
        after = self._replica.position(self.lane)
        if after is None:
            raise FeedUnavailable(f"lane {self.lane} has not been read yet")
        if not self.is_trusted():
            raise FeedUnavailable(f"the trust document does not give this key the role {self.lane}")
        now = self._clock.now()
        place = {
            "epoch": after.epoch, "sequence": after.sequence + 1, "previous": after.hash, "at": now,
            "trust": self._replica.trust.version, "format": self._format(),
            "id": event_id or entropy.uuid7(now), "report": report,
        }  # fmt: skip
        event: Any
        if self.lane is Lane.KEYS:
            event = KeysEvent(changes=tuple(content), **place)  # type: ignore[arg-type]
            self._replica.keys.after(event.changes, at=now, place=(after.epoch, after.sequence + 1))
        else:
            event = RevocationsEvent(entries=tuple(content), **place)  # type: ignore[arg-type]
        signed = sign_event(self._key, event)
        self._replica.vouch(signed)  # The doorbell may bring it before the store has answered.
        asked = self._clock.boottime()
        try:
            await self._feed.append(signed, after=after, beside=beside)
        except StreamSpoiled:
            self.spoiled = True
            raise
        self.confirmed_boottime = asked
        self._replica.apply(signed, now=self._clock.now(), boottime=self._clock.boottime())
        if self._keep is not None:
            await self._keep(self.lane)
        return signed

    async def beat(self) -> bool:
        """Sign the newest position again with the time; False if the store stands elsewhere."""
        position = self._replica.position(self.lane)
        if position is None or not self.is_trusted():
            return False
        head = HEADS[self.lane](
            epoch=position.epoch, sequence=position.sequence, hash=position.hash,
            at=self._clock.now(), trust=self._replica.trust.version, format=self._format(),
        )  # fmt: skip
        asked = self._clock.boottime()
        rang = await self._feed.beat(sign_head(self._key, head), beater=self._name)
        # Another replica of this publisher may have beaten later; the position must hold all the same.
        if rang or await self._feed.confirm(self.lane, position):
            self.confirmed_boottime = asked
            return True
        return False

    async def open_epoch(self, epoch: int, *, after: str | None, keys: KeySet | None = None) -> bool:
        """Begin an epoch with all that we know, if the stored position is `after`; say whether that was so.

        `keys` is the key set to begin with, where that is more than our replica's. Without the role nothing is begun.
        """
        if not self.is_trusted():
            return False
        snapshot, chunks = self._state(Position(epoch, 0, ""), keys)
        signed, asked = sign_snapshot(self._key, snapshot), self._clock.boottime()
        if not await self._feed.open_epoch(signed, after=after, chunks=chunks):
            return False
        self.confirmed_boottime, self.spoiled = asked, False
        now, boottime = self._clock.now(), self._clock.boottime()
        self._replica.admit_snapshot(self.lane, signed.compact, now=now, boottime=boottime, chunks=chunks)
        if self._archive is None and epoch > EPOCHS_KEPT:  # Who archives wants all of them, and forgets by himself.
            await self._feed.trim(self.lane, epoch=epoch - EPOCHS_KEPT, up_to=_LAST_SEQUENCE)
        return True

    async def keep_snapshot(self) -> bool:
        """Store a snapshot if enough events have come since the last, or any and it is old."""
        position, boottime = self._replica.position(self.lane), self._clock.boottime()
        if position is None or not self.is_trusted():
            return False
        epoch, sequence = self._snapshot_at
        events = position.sequence - (sequence if epoch == position.epoch else 0)
        is_old = boottime - self._snapshot_boottime >= SNAPSHOT_EVERY_SECONDS
        if events < SNAPSHOT_EVERY_EVENTS and not (events > 0 and is_old):
            return False
        state, chunks = self._state(position)
        kept = await self._feed.keep_snapshot(sign_snapshot(self._key, state), chunks)
        self._snapshot_at, self._snapshot_boottime, self._good_snapshot = position.place, boottime, ""
        if kept:
            await self._trim(position)
        return kept

    async def mend_snapshot(self) -> bool:
        """Look at the stored snapshot once a minute; replace one from which no new follower could get here.

        Say whether that was needed. Nobody who follows already would ever notice.
        """
        position, boottime = self._replica.position(self.lane), self._clock.boottime()
        if position is None or not self.is_trusted() or boottime - self._looked_boottime < LOOK_AT_SNAPSHOT_SECONDS:
            return False
        compact = await self._feed.snapshot(self.lane)
        good = self._is_good(compact, position) and await self._are_good(self._good_chunks)
        if good and await self._leads_on(position):
            self._looked_boottime = boottime
            return False
        state, chunks = self._state(position)
        mended = await self._feed.mend_snapshot(sign_snapshot(self._key, state), chunks)
        if mended:
            self._looked_boottime = self._snapshot_boottime = boottime
            self._snapshot_at, self._good_snapshot = position.place, ""
        return mended

    def _is_good(self, compact: bytes | None, position: Position) -> bool:
        """Say whether a snapshot is by our own key, of our chain's past, and not older than the one that we know of.

        One by another key of the role would end to be readable the moment that the root drops that key.
        """
        if compact is None:
            return False
        if digest(compact) == self._good_snapshot:
            return True
        try:
            own = {kid: key for kid, key in self._replica.trust.role(self.lane).items() if kid == self._key.kid}
            signed = open_snapshot(compact, self.lane, own)
        except TrustError:
            return False
        place = signed.position.place
        if place[0] > position.epoch:
            self._good_chunks = []
            return True  # Another publisher has opened it; the follower goes there.
        if place[0] < position.epoch or place < self._snapshot_at:
            return False
        self._good_snapshot, self._good_chunks, self._snapshot_at = signed.hash, signed.digests, place
        return True

    async def _leads_on(self, position: Position) -> bool:
        """Say whether the events behind the good snapshot are stored; the first batch tells whether any was deleted."""
        epoch, sequence = self._snapshot_at
        if epoch != position.epoch or sequence >= position.sequence:
            return True
        stored = await self._feed.events(self.lane, epoch=epoch, after=sequence)
        ours = self._replica.tails[self.lane].after(sequence)
        return bool(stored) if ours is None else stored[: len(ours)] == ours[:BATCH]

    async def _are_good(self, digests: Sequence[str]) -> bool:
        """Say whether all of these chunks are stored, and are what their digests say."""
        for start in range(0, len(digests), CHUNKS_AT_ONCE):
            some = digests[start : start + CHUNKS_AT_ONCE]
            stored = await self._feed.chunks(self.lane, some)
            if any(digest(stored.get(name, b"")) != name for name in some):
                return False
        return True

    async def _trim(self, newest: Position) -> None:
        """Forget events behind a snapshot that is ten minutes old and was followed by another.

        Whoever is behind by less still finds its events; everybody else loads the newest snapshot.
        """
        now = self._clock.boottime()
        kept = [one for one in self._kept if one.position.epoch == newest.epoch]
        old: list[Position] = []
        for one in kept:
            if not await self._may_go(one.position, now - one.boottime):
                break  # Nor may what came later.
            old.append(one.position)
        self._kept = [*kept, _Kept(newest, now)][-MOST_KEPT:]
        if old and await self._archived(old):
            await self._feed.trim(self.lane, epoch=newest.epoch, up_to=old[-1].sequence)
            self._kept = [one for one in self._kept if one.position.place >= old[-1].place]

    async def _may_go(self, position: Position, seconds: float) -> bool:
        """Say whether the events up to a position have stood for long enough, and nobody has still to read them."""
        if seconds < TRIM_AFTER_SECONDS:
            return False
        return self._needed is None or not await self._needed(position, seconds)

    async def _archived(self, positions: Sequence[Position]) -> bool:
        """Say whether all events up to these positions may be forgotten: at once where no archive is kept."""
        if self._archive is None:
            return True
        for position in positions:
            if not await self._archive.keep(self._feed, self.lane, position):
                return False
        return True

    async def run(
        self, catch_up: Callable[[], Awaitable[None]], mend: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Beat until cancelled; where the store stands elsewhere, catch up, and `mend` what catching up cannot."""
        while True:
            try:
                if not await self.beat():
                    await catch_up()
                    if mend is not None:
                        await mend()
                elif mend is not None and (self.spoiled or self.lane in self._replica.lost):
                    await mend()
                await self.keep_snapshot()
                await self.mend_snapshot()
            except (FeedUnavailable, PositionTaken, TrustError):
                pass  # The follower notes the loss, or what the root has dropped; verifiers see the silence.
            await self._clock.sleep(HEARTBEAT_SECONDS)

    def _format(self) -> int:
        """Return the format that the root has publishers write; raises FeedUnavailable for one that we do not know."""
        wanted = self._replica.trust.document.feed_format
        if wanted not in FORMATS:
            known = ", ".join(map(str, FORMATS))
            raise FeedUnavailable(
                f"the root has publishers write feed format {wanted}, and this version knows {known}; upgrade it"
            )
        return wanted

    def _state(self, position: Position, keys: KeySet | None = None) -> tuple[Snapshot, Chunks]:
        """Return all that our replica holds: of the revocations, every index that still matters."""
        place: dict[str, Any] = {
            "epoch": position.epoch, "sequence": position.sequence, "hash": position.hash,
            "at": self._clock.now(), "trust": self._replica.trust.version, "format": self._format(),
        }  # fmt: skip
        if self.lane is Lane.KEYS:
            keys = self._replica.keys if keys is None else keys
            return KeysSnapshot(keys=tuple(keys), requests=keys.requests, **place), NO_CHUNKS
        packed = pack(self._replica.indexes)
        return RevocationsSnapshot(sections=packed.sections, **place), packed.chunks


async def bootstrap(feed: Feed, genesis: bytes, trust: Trust, lane: Lane) -> bool:
    """Begin a lane with its signed genesis if it never began; say whether it did."""
    return await feed.open_epoch(open_snapshot(genesis, lane, trust.role(lane)), after=None)
