"""Keeps what a replica believes in files, and begins with it after a restart, never fresher than it is."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from keyturn.clock import Clock
from keyturn.contract.encoding import digest as digest_of
from keyturn.contract.errors import FeedUnavailable, ForgedSignature, TrustError
from keyturn.contract.events import RevocationsSnapshot, SignedSnapshot, open_snapshot
from keyturn.contract.positions import Lane, Position
from keyturn.contract.snapshots import digests_of
from keyturn.contract.trust import open_trust
from keyturn.feed.log import Feed
from keyturn.verifier.replica import Admission, Replica
from keyturn.verifier.statefiles import LARGEST_EVENTS_BYTES, StateDirectory, StoredLane

STATE_RESTORED: Final = "state_restored"
STATE_REFUSED: Final = "state_refused"
STATE_NOT_KEPT: Final = "state_not_kept"
KEEP_EVERY_SECONDS = 1.0
CHUNKS_AT_ONCE = 16  # At most 4 MiB in one answer.
MOST_EVENTS = 2048  # Behind one snapshot in the files; then they begin anew from a newer one,
MOST_BYTES = 16 * 1024 * 1024  # as they do beyond that size.


class Keeper:
    """Writes what a replica newly believes: in the background, and at once where a publisher's word depends on it."""

    def __init__(
        self, files: StateDirectory, replica: Replica, feed: Feed, clock: Clock, *, note: Callable[..., None]
    ) -> None:
        self.files, self._replica, self._feed, self._clock, self._note = files, replica, feed, clock, note
        self._kept: dict[Lane, Position | None] = dict.fromkeys(Lane)
        self._count, self._size = dict.fromkeys(Lane, 0), dict.fromkeys(Lane, 0)
        self._writing = {lane: asyncio.Lock() for lane in Lane}
        self._trust_version, self._heads = 0, dict[Lane, bytes]()
        self._troubles: dict[str, str] = {}

    @property
    def trouble(self) -> str | None:
        """Return why the files are behind, None while they are not."""
        return next(iter(self._troubles.values()), None)

    def restore(self, *, root: Mapping[str, Any], allow_dev: bool) -> None:
        """Let the replica believe what the files hold, as far as it is signed; at best it is `stale` then."""
        compact = self.files.trust()
        try:
            if compact is None or not self._replica.adopt_trust(open_trust(compact, root=root, allow_dev=allow_dev)):
                return
        except TrustError as error:
            self._note(STATE_REFUSED, what="trust", code=error.code, reason=str(error))
            return
        self._trust_version = self._replica.trust.version
        for lane in Lane:
            stored = self.files.lanes[lane].read()
            taken = 0
            try:
                for _ in self._admit(lane, stored):
                    taken += 1
            except TrustError as error:
                self._note(STATE_REFUSED, what=lane.value, code=error.code, reason=str(error))
            self._resume(lane, stored, taken)
        places = {lane.value: ":".join(map(str, self._replica.place(lane))) for lane in Lane}
        self._note(STATE_RESTORED, trust=self._trust_version, **places)

    async def run(self) -> None:
        """Keep what is new each second until cancelled."""
        while True:
            for lane in Lane:
                await self.keep(lane)
            await self._keep_word()
            await self._clock.sleep(KEEP_EVERY_SECONDS)

    async def keep(self, lane: Lane) -> None:
        """Return once all that the replica holds of a lane is on the disk, or it is noted why it is not."""
        async with self._writing[lane]:
            try:
                await self._keep(lane)
                self._troubles.pop(lane, None)
            except (OSError, FeedUnavailable) as error:
                if lane not in self._troubles:
                    self._note(STATE_NOT_KEPT, lane=lane, reason=str(error))
                self._troubles[lane] = f"the state directory is behind: {error}"
                if isinstance(error, FileNotFoundError):
                    self._kept[lane] = None  # Somebody has removed the files: they begin anew.

    def _admit(self, lane: Lane, stored: StoredLane) -> Iterator[bytes]:
        """Let the replica believe a lane's files, and yield each event that it took."""
        now, boottime = self._clock.now(), self._clock.boottime()
        known_since = boottime - self._replica.freshness.stale_after_seconds
        if stored.snapshot is None:
            return
        signed = open_snapshot(stored.snapshot, lane, self._replica.trust.role(lane))
        chunks = self.files.chunks(_digests(signed))
        admission = self._replica.admit_snapshot(lane, stored.snapshot, now=now, boottime=known_since, chunks=chunks)
        if admission is Admission.BEHIND:
            raise ForgedSignature("a chunk of the snapshot is not in the state directory")
        for event in stored.events:
            if self._replica.admit(lane, event, now=now, boottime=known_since) is Admission.BEHIND:
                return  # The files have a gap; what follows it cannot be told from a forgery of the past.
            yield event
        if stored.head:
            self._replica.admit(lane, stored.head, now=now, boottime=known_since)

    def _resume(self, lane: Lane, stored: StoredLane, taken: int) -> None:
        """Go on behind the events that were taken; what nobody could get past at the next start goes now."""
        position, events = self._replica.position(lane), stored.events[:taken]
        if stored.snapshot is None or position is None:
            return
        try:
            if taken < len(stored.events) or not stored.whole:
                self.files.lanes[lane].begin(stored.snapshot, events)
        except OSError:
            return  # All is written anew as soon as it can be.
        self._kept[lane], self._count[lane], self._size[lane] = position, taken, _size(events)

    async def _keep(self, lane: Lane) -> None:
        position, kept = self._replica.position(lane), self._kept[lane]
        if position is None or position == kept:
            return
        events = None if kept is None else self._events_after(lane, kept)
        count, size = self._count[lane] + len(events or ()), self._size[lane] + _size(events or ())
        if events is None or count > MOST_EVENTS or size > MOST_BYTES:
            try:
                await self._begin_anew(lane, position)
            except FeedUnavailable:
                if events is None or size > LARGEST_EVENTS_BYTES:
                    raise
            else:
                return
        await asyncio.to_thread(self.files.lanes[lane].append, events)
        self._kept[lane], self._count[lane], self._size[lane] = position, count, size

    async def _begin_anew(self, lane: Lane, position: Position) -> None:
        """Begin the files anew from the store's snapshot, where it is of our past; else they wait for one that is."""
        compact = await self._feed.snapshot(lane)
        try:
            signed = None if compact is None else open_snapshot(compact, lane, self._replica.trust.role(lane))
        except TrustError:
            signed = None
        events = None if signed is None else self._events_after(lane, signed.position)
        if compact is None or signed is None or events is None:
            raise FeedUnavailable("the store has no snapshot that leads to where we stand")
        position = self._replica.position(lane) or position  # What has come since we asked is among the events.
        await self._keep_chunks(lane, signed)
        await asyncio.to_thread(self.files.lanes[lane].begin, compact, events)
        if lane is Lane.REVOCATIONS:
            await asyncio.to_thread(partial(self.files.forget_chunks, except_for=_digests(signed)))
        self._kept[lane], self._count[lane], self._size[lane] = position, len(events), _size(events)

    async def _keep_chunks(self, lane: Lane, signed: SignedSnapshot) -> None:
        """Read the snapshot's chunks that are not on the disk yet, a few at a time."""
        wanted = _digests(signed)
        held = await asyncio.to_thread(self.files.chunks, wanted)
        missing = [digest for digest in wanted if digest not in held]
        for start in range(0, len(missing), CHUNKS_AT_ONCE):
            some = missing[start : start + CHUNKS_AT_ONCE]
            read = await self._feed.chunks(lane, some)
            if any(digest_of(read.get(digest, b"")) != digest for digest in some):
                raise FeedUnavailable("the store lacks a chunk of its snapshot")
            await asyncio.to_thread(self.files.keep_chunks, {digest: read[digest] for digest in some})

    def _events_after(self, lane: Lane, position: Position) -> list[bytes] | None:
        """Return the events from a place of our own chain on, None where it is not known to be one."""
        if self._replica.hash_at(lane, position.place) != position.hash:
            return None
        return self._replica.tails[lane].after(position.sequence) if position != self._replica.position(lane) else []

    async def _keep_word(self) -> None:
        """Keep the newest heads and the trust document."""
        try:
            trust = self._replica.trust
            if trust.version > self._trust_version:
                await asyncio.to_thread(self.files.keep_trust, trust.compact)
                self._trust_version = trust.version
            for lane, head in list(self._replica.heads.items()):  # More may come while one is written.
                if self._heads.get(lane) is not head:
                    await asyncio.to_thread(self.files.lanes[lane].keep_head, head)
                    self._heads[lane] = head
            self._troubles.pop("word", None)
        except OSError as error:
            self._troubles["word"] = f"the state directory cannot be written: {error.strerror}"


def _size(events: Sequence[bytes]) -> int:
    return sum(len(event) + 1 for event in events)


def _digests(signed: SignedSnapshot) -> list[str]:
    snapshot = signed.snapshot
    return digests_of(snapshot.sections) if isinstance(snapshot, RevocationsSnapshot) else []
