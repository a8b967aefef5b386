"""Drives a replica: subscribe first, then read what was missed, then take each word as it comes."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.errors import (
    FeedUnavailable,
    MalformedInput,
    TrustError,
    UnknownKind,
)
from keyturn.contract.positions import Lane, parse_position
from keyturn.contract.trust import open_trust
from keyturn.feed.log import CHUNKS_AT_ONCE, Doorbell, Feed, Listening, Rung, SnapshotSource, Top
from keyturn.verifier.replica import Admission, Replica
from keyturn.verifier.sparing import Sparing

SILENCE_SECONDS = 2.0  # Two heartbeats: after that the head is read.
CATCH_UP_EVERY_SECONDS = 0.1
TRUST_EVERY_SECONDS = 1.0
ASTRAY_SECONDS = 3.0  # A branch is left to its publishers for so long; they unite both.
TIDY_EVERY_SECONDS = 60.0
_SNAPSHOTS_TRIED = 3  # A snapshot's chunks may go while they are read, if it is replaced twice meanwhile.
_MOST_READS = 4096  # Reads of one catch-up; what lies beyond waits for the next.
_BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)


def unnoted(event: str, **facts: object) -> None:
    """Note nothing: what a library does unless it is told where to."""


class Follower:
    """Keeps one replica current; `run` goes on until it is cancelled.

    `note(event, **facts)` hears what an operator should know. `on_change` callbacks run after each step forward.
    """

    def __init__(
        self,
        feed: Feed,
        replica: Replica,
        clock: Clock,
        *,
        root: Mapping[str, Any],
        allow_dev: bool = False,
        note: Callable[..., None] = unnoted,
    ) -> None:
        self.replica = replica
        self.mirrors: list[SnapshotSource] = []  # Asked for snapshots before the store is.
        self.on_change: list[Callable[[], None]] = []
        self.refused = 0  # Statements that nobody with the right role made.
        self._feed, self._clock, self._root, self._allow_dev = feed, clock, root, allow_dev
        self._note = Sparing(note, clock)
        self._ready = {lane: asyncio.Event() for lane in Lane}
        self._next_flight: asyncio.Task[None] | None = None
        self._flying, self._loading = asyncio.Lock(), asyncio.Lock()
        self._chunks: dict[str, bytes] = {}  # Of the snapshot that is being loaded, each checked.
        self._last_flight = self._last_catch_up = self._last_trust = self._last_tidying = float("-inf")
        self.publishes: set[Lane] = set()  # Lanes that are mended from here: their branches are united, not left.
        self._reads_anew = False
        self._astray_since: dict[Lane, float] = {}
        self._looked_at = dict.fromkeys(Lane, float("-inf"))
        self._reached: set[Lane] = set()  # Lanes that have stood where the store did.
        replica.hold_back(clock.boottime() + replica.freshness.stale_after_seconds)

    async def run(self) -> None:
        """Follow until cancelled, through every loss of the store."""
        attempt = 0
        while True:
            try:
                async with self._feed.listen() as bell:
                    await self._follow(bell)
            except FeedUnavailable as error:
                # A connection that told us something starts the backoff anew.
                attempt = 0 if self._clock.boottime() - self._last_catch_up < SILENCE_SECONDS else attempt + 1
                self._note("feed_lost", reason=str(error), attempt=attempt)
                longest = _BACKOFF_SECONDS[min(attempt, len(_BACKOFF_SECONDS) - 1)]
                await self._clock.sleep(entropy.jitter(longest / 2, longest))

    async def ready(self, *lanes: Lane) -> None:
        """Wait until these lanes (both, if none is named) have been loaded and the subscription stands."""
        for lane in lanes or Lane:
            await self._ready[lane].wait()

    async def catch_up(self) -> None:
        """Read what was missed, now: one flight for all who ask, at most one each 100 ms.

        A flight that has begun may have passed the place already, so who asks meanwhile waits for the next.
        Raises FeedUnavailable if the store cannot say.
        """
        if self._next_flight is None:
            self._next_flight = asyncio.ensure_future(self._paced_catch_up())
        await asyncio.shield(self._next_flight)

    async def read_anew(self) -> Replica:
        """Return a replica that has read what the store holds now and nothing else, under the trust that we hold.

        Raises FeedUnavailable if the store cannot say.
        """
        replica = Replica(issuer=self.replica.issuer, freshness=self.replica.freshness)
        replica.adopt_trust(self.replica.trust)
        reader = Follower(self._feed, replica, self._clock, root=self._root, allow_dev=self._allow_dev)
        reader._reads_anew = True
        await reader._read_all()
        return replica

    async def _paced_catch_up(self) -> None:
        async with self._flying:
            pause = self._last_flight + CATCH_UP_EVERY_SECONDS - self._clock.boottime()
            if pause > 0:
                await self._clock.sleep(pause)
            self._next_flight, self._last_flight = None, self._clock.boottime()
            await self._read_all()

    async def _follow(self, bell: Doorbell) -> None:
        while True:
            _end_if_cancelled()
            word = await bell.next(SILENCE_SECONDS)
            match word:
                case Rung(lane, statement):
                    await self._take(lane, statement)
                case Listening():
                    await self._read_all()
                case None:
                    before = self.replica.heard_at
                    await self._read_all()
                    if self.replica.heard_at > before > 0:
                        raise FeedUnavailable("the doorbell is deaf: the head moved and nothing rang")
            await self._read_silent_lanes()
            self._tidy()

    async def _read_silent_lanes(self) -> None:
        """Look at a lane that was not heard for long while the other rang: its words may be lost on the way."""
        boottime = self._clock.boottime()
        for lane in Lane:
            looked = boottime - self._looked_at[lane]
            if min(self.replica.silence(lane, boottime), looked) > SILENCE_SECONDS:
                await self._read_lane(lane)
                self._tell()

    def _tidy(self) -> None:
        boottime = self._clock.boottime()
        if boottime - self._last_tidying >= TIDY_EVERY_SECONDS:
            self._last_tidying = boottime
            self.replica.forget_expired(self._clock.now())

    async def _take(self, lane: Lane, statement: bytes) -> None:
        if self.replica.trust.version == 0:
            await self._read_trust()
        refused, admission = self.refused, self._admit(lane, statement)
        # Anybody can ring with what nobody signed: it may make us look now and then, not each time.
        looked = self._clock.boottime() - self._looked_at[lane]
        suspicious = self.refused > refused and looked >= CATCH_UP_EVERY_SECONDS
        first = admission is Admission.APPLIED and lane not in self._reached
        if admission in (Admission.BEHIND, Admission.NEEDS_TRUST) or suspicious or first:
            await self._read_lane(lane)
        self._tell()

    async def _read_all(self) -> None:
        if self.replica.trust.version == 0:
            await self._read_trust()
        began = self._clock.boottime()
        for lane, top in (await self._feed.all_tops()).items():
            self._looked_at[lane] = began
            await self._read_to(lane, top)
        self._last_catch_up = self._clock.boottime()
        self._tell()

    async def _read_lane(self, lane: Lane) -> None:
        """Bring a lane to the store's newest place."""
        self._looked_at[lane] = self._clock.boottime()
        await self._read_to(lane, await self._feed.top(lane))

    async def _read_to(self, lane: Lane, top: Top | None) -> None:
        """Bring a lane to a place that the store told: by events where they extend ours, else by the snapshot."""
        if top is None:
            return
        try:
            target = parse_position(top.position.split("\n")[0])
        except MalformedInput:
            self._refuse(lane, "the head's position is not one")
            return
        for _ in range(_MOST_READS):
            held = self.replica.position(lane)
            if held is not None and held.place >= target.place:
                break
            if held is not None and held.epoch == target.epoch and await self._read_events(lane, held.sequence):
                continue
            if not await self._read_snapshot(lane):
                self._note("cannot_catch_up", lane=lane, target=f"{target.epoch}:{target.sequence}")
                break
        await self._hear(lane, top)
        await self._leave_lost_branch(lane, str(target), top.statement)
        if self.replica.place(lane) >= target.place:
            self._reached.add(lane)
        if len(self._reached) == len(Lane):
            self.replica.caught_up()

    async def _leave_lost_branch(self, lane: Lane, target: str, statement: bytes) -> None:
        """Go where the publisher stands, if that is on another branch and nobody has united it with ours meanwhile."""
        boottime = self._clock.boottime()
        if str(self.replica.position(lane)) == target or lane in self.publishes or self.replica.position(lane) is None:
            self._astray_since.pop(lane, None)
            return
        if boottime - self._astray_since.setdefault(lane, boottime) < ASTRAY_SECONDS or self._reads_anew:
            return
        if not self.replica.is_news(lane, statement):
            return  # Anybody can write a position: only a signed word makes us read the whole store again.
        other = await self.read_anew()
        if lane is Lane.REVOCATIONS and self.replica.is_left_by(lane, other):
            for _ in self.replica.absorb(other.indexes):
                await self._clock.sleep(0)  # Verification goes on meanwhile.
                if self.replica.trust is not other.trust:
                    break  # The root may have dropped what was read.
        crossed = self.replica.cross(lane, other, now=self._clock.now(), boottime=boottime)
        self._astray_since.pop(lane, None)  # If it was no branch, the next look begins to count anew.
        if crossed:
            self._note("branch_left", lane=lane, target=target.rpartition(":")[0])

    async def _read_events(self, lane: Lane, after: int) -> bool:
        """Apply the next events of the running epoch; say whether the replica moved."""
        before = self.replica.place(lane)
        for event in await self._feed.events(lane, epoch=before[0], after=after):
            if self._admit(lane, event) is not Admission.APPLIED:
                break
        return self.replica.place(lane) > before

    async def _read_snapshot(self, lane: Lane) -> bool:
        """Load the newest snapshot; say whether the replica moved. One that gives way meanwhile is read anew."""
        before = self.replica.place(lane)
        async with self._loading:
            for source in (*self.mirrors, *([self._feed] * _SNAPSHOTS_TRIED)):
                compact, is_store = await source.snapshot(lane), source is self._feed
                if self.replica.place(lane) > before or (compact is None and is_store):
                    break
                try:
                    ended = compact is not None and await self._load(lane, compact, source)
                except TrustError as error:
                    self._object(lane, error)
                    ended = True
                # What a mirror lacks, or has kept for too long, the store may have.
                if self.replica.place(lane) > before or (ended and is_store):
                    break
        return self.replica.place(lane) > before

    async def _load(self, lane: Lane, compact: bytes, source: SnapshotSource) -> bool:
        """Load a snapshot; say whether that came to an end, and not to a chunk that is missing or to newer trust.

        Good chunks are kept from one try to the next: while one is bad, the others are read once. Raises what the
        replica objects to.
        """
        loading = self.replica.begin_snapshot(lane, compact)
        if loading is None:
            return True
        missing = loading.missing
        kept = self._chunks = {digest: self._chunks[digest] for digest in missing if digest in self._chunks}
        for start in range(0, len(missing), CHUNKS_AT_ONCE):
            wanted = missing[start : start + CHUNKS_AT_ONCE]
            read = await source.chunks(lane, [digest for digest in wanted if digest not in kept])
            for digest in wanted:
                raw = kept.get(digest, read.get(digest))
                if raw is None:
                    self._note("chunk_missing", lane=lane, digest=digest)
                    return False
                self.replica.take_chunk(loading, digest, raw)
                kept[digest] = raw
        for _ in loading.steps():
            await self._clock.sleep(0)  # Verification goes on meanwhile.
        now, boottime = self._clock.now(), self._clock.boottime()
        if self.replica.adopt_snapshot(loading, now=now, boottime=boottime) is Admission.BEHIND:
            return False
        self._chunks = {}
        return True

    async def _hear(self, lane: Lane, top: Top) -> None:
        """Take the newest statement; one that we cannot believe may be by a role that a newer document names."""
        refused = self.refused
        admission = self._admit(lane, top.statement)
        due = self._clock.boottime() - self._last_trust >= TRUST_EVERY_SECONDS
        if (admission is Admission.NEEDS_TRUST or self.refused > refused) and due and await self._read_trust():
            self._admit(lane, top.statement)

    async def look_for_trust(self) -> None:
        """Read the trust document though no head names a newer one: it may be ours to name it first.

        Raises FeedUnavailable.
        """
        if self.replica.trust.version:
            await self._read_trust()

    async def _read_trust(self) -> bool:
        self._last_trust = self._clock.boottime()
        compact = await self._feed.trust()
        if compact is None or compact == self.replica.trust.compact:
            return False
        try:
            held = self.replica.trust
            # A root that we were led to stands from then on: the bundle need not lead there from the pinned one again.
            root = held.root if held.version else self._root
            trust = open_trust(compact, root=root, allow_dev=self._allow_dev)
            trust.check_time(self._clock.now())
            adopted = self.replica.adopt_trust(trust)
        except TrustError as error:
            self._note("trust_refused", code=error.code, reason=str(error))
            return False
        if adopted:
            self._note("trust_adopted", version=trust.version)
        return adopted

    def _admit(self, lane: Lane, statement: bytes) -> Admission:
        try:
            return self.replica.admit(lane, statement, now=self._clock.now(), boottime=self._clock.boottime())
        except TrustError as error:
            self._object(lane, error)
        return Admission.HELD

    def _object(self, lane: Lane, error: TrustError) -> None:
        if isinstance(error, UnknownKind):
            self._note("statement_unreadable", lane=lane, reason=str(error))
        else:
            self._refuse(lane, str(error), code=error.code)

    def _refuse(self, lane: Lane, reason: str, code: str = "malformed") -> None:
        self.refused += 1
        self._note("statement_refused", lane=lane, code=code, reason=reason)

    def _tell(self) -> None:
        for lane, ready in self._ready.items():
            if self.replica.position(lane) is not None:
                ready.set()
        for callback in self.on_change:
            callback()


def _end_if_cancelled() -> None:
    """Keep a cancellation that something below us has swallowed: asyncio.wait_for of Python 3.11 can."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
