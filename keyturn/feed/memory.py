"""The feed in one process's memory: for unit tests and simulations, with the same promises as on Redis."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from keyturn.contract.errors import FeedUnavailable, PositionTaken
from keyturn.contract.events import SignedEvent, SignedHead, SignedSnapshot
from keyturn.contract.positions import Lane, Position
from keyturn.contract.snapshots import NO_CHUNKS, Chunks
from keyturn.feed.log import (
    BATCH,
    BEAT_LEASE_SECONDS,
    CHUNKS_AT_ONCE,
    MOST_AHEAD_SECONDS,
    NOTHING_BESIDE,
    Beside,
    Listening,
    Rung,
    Top,
)

_QUEUE = 1024  # Unread words of one subscriber; one more and it is cut off, as a real server does.
_T = TypeVar("_T")


@dataclass(slots=True)
class _Chain:
    position: str
    statement: bytes
    at: float
    snapshot: SignedSnapshot
    events: dict[int, list[bytes]] = field(default_factory=dict)
    beater: str = ""
    trimmed: dict[int, int] = field(default_factory=dict)  # How many events of an epoch were forgotten.
    chunks: dict[str, bytes] = field(default_factory=dict)

    def replace(self, snapshot: SignedSnapshot, chunks: Chunks) -> None:
        """Store another snapshot and its chunks; forget those that neither it nor the one before names."""
        needed = {*self.snapshot.digests, *snapshot.digests}
        self.chunks = {name: raw for name, raw in {**self.chunks, **chunks}.items() if name in needed}
        self.snapshot = snapshot


class _Subscription(Generic[_T]):
    """A bounded queue that a subscriber reads."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[_T | Listening | None] = asyncio.Queue(_QUEUE)
        self._queue.put_nowait(Listening())
        self._lost = False

    def put(self, word: _T) -> None:
        try:
            self._queue.put_nowait(word)
        except asyncio.QueueFull:
            self.lose()

    def lose(self) -> None:
        self._lost = True
        if self._queue.empty():
            self._queue.put_nowait(None)  # Wakes the reader.

    async def next(self, within_seconds: float) -> _T | Listening | None:
        if self._lost:
            raise FeedUnavailable("the subscription was cut off")
        try:
            async with asyncio.timeout(within_seconds):  # `wait_for` of Python 3.11 can lose a cancellation.
                word = await self._queue.get()
        except TimeoutError:
            return None
        return word if word is not None else await self.next(within_seconds)


class MemoryFeed:
    """Both lanes and the presence board in dictionaries; `reachable = False` makes every call fail."""

    def __init__(self) -> None:
        self.reachable = True
        self.run = "run-1"
        self._chains: dict[Lane, _Chain] = {}
        self._trust: bytes | None = None
        self._sealed: dict[str, bytes] = {}
        self._reports: dict[str, bytes] = {}
        self._bells: set[_Subscription[Rung]] = set()
        self._watchers: set[_Subscription[tuple[str, bytes]]] = set()

    async def append(self, event: SignedEvent, *, after: Position, beside: Beside = NOTHING_BESIDE) -> None:
        """Add an event if the lane stands exactly at `after`."""
        self._reach()
        lane = event.event.lane
        chain = self._chains.get(lane)
        if chain is None or chain.position != str(after):
            raise PositionTaken(f"lane {lane} does not stand at {after.epoch}:{after.sequence}")
        chain.events.setdefault(event.event.epoch, []).append(event.compact)
        chain.position, chain.statement, chain.at = str(event.position), event.compact, event.event.at
        self._sealed.update(beside.sealed)
        for kid in beside.erased:
            self._sealed.pop(kid, None)
        self._ring(Rung(lane, event.compact))

    async def beat(self, head: SignedHead, *, beater: str) -> bool:
        """Store and ring a head if the lane stands at its position and it is our turn."""
        self._reach()
        chain = self._chains.get(head.head.lane)
        if chain is None or chain.position != str(head.position):
            return False
        lease = BEAT_LEASE_SECONDS if chain.beater not in ("", beater) else 0.0
        if head.head.at - lease <= chain.at < head.head.at + MOST_AHEAD_SECONDS:
            return False
        chain.statement, chain.at, chain.beater = head.compact, head.head.at, beater
        self._ring(Rung(head.head.lane, head.compact))
        return True

    async def confirm(self, lane: Lane, position: Position) -> bool:
        """Say whether the lane stands at that position."""
        self._reach()
        chain = self._chains.get(lane)
        return chain is not None and chain.position == str(position)

    async def open_epoch(self, snapshot: SignedSnapshot, *, after: str | None, chunks: Chunks = NO_CHUNKS) -> bool:
        """Begin an epoch if the stored position is `after`."""
        self._reach()
        lane = snapshot.snapshot.lane
        chain = self._chains.get(lane)
        if (None if chain is None else chain.position) != after:
            return False
        events = {} if chain is None else chain.events
        events.pop(snapshot.position.epoch, None)
        at = snapshot.snapshot.at
        begun = self._chains[lane] = _Chain(str(snapshot.position), snapshot.compact, at, snapshot, events)
        if chain is not None:
            begun.trimmed, begun.chunks, begun.snapshot = chain.trimmed, chain.chunks, chain.snapshot
        begun.replace(snapshot, chunks)
        self._ring(Rung(lane, snapshot.compact))
        return True

    async def keep_snapshot(self, snapshot: SignedSnapshot, chunks: Chunks = NO_CHUNKS) -> bool:
        """Store a snapshot of a place in the running epoch, if it is newer than the stored one."""
        self._reach()
        chain = self._chains.get(snapshot.snapshot.lane)
        if chain is None or chain.snapshot.position.place >= snapshot.position.place:
            return False
        if chain.snapshot.position.epoch != snapshot.position.epoch:
            return False
        chain.replace(snapshot, chunks)
        return True

    async def mend_snapshot(self, snapshot: SignedSnapshot, chunks: Chunks = NO_CHUNKS) -> bool:
        """Store a snapshot of exactly where the lane stands, whatever is stored."""
        self._reach()
        chain = self._chains.get(snapshot.snapshot.lane)
        if chain is None or chain.position != str(snapshot.position):
            return False
        chain.replace(snapshot, chunks)
        return True

    async def trim(self, lane: Lane, *, epoch: int, up_to: int) -> None:
        """Forget the events of an epoch up to a sequence."""
        self._reach()
        chain = self._chains.get(lane)
        if chain is not None:
            count = min(up_to - chain.trimmed.get(epoch, 0), len(chain.events.get(epoch, [])))
            if count > 0:
                del chain.events[epoch][:count]
                chain.trimmed[epoch] = chain.trimmed.get(epoch, 0) + count

    async def top(self, lane: Lane) -> Top | None:
        """Return the newest place."""
        self._reach()
        chain = self._chains.get(lane)
        return None if chain is None else Top(chain.position, chain.statement)

    async def all_tops(self) -> dict[Lane, Top | None]:
        """Return the newest place of every lane."""
        return {lane: await self.top(lane) for lane in Lane}

    async def events(self, lane: Lane, *, epoch: int, after: int) -> list[bytes]:
        """Return up to 256 events of an epoch after a sequence."""
        self._reach()
        chain = self._chains.get(lane)
        if chain is None:
            return []
        start = max(0, after - chain.trimmed.get(epoch, 0))
        return chain.events.get(epoch, [])[start : start + BATCH]

    async def snapshot(self, lane: Lane) -> bytes | None:
        """Return the newest stored snapshot."""
        self._reach()
        chain = self._chains.get(lane)
        return None if chain is None else chain.snapshot.compact

    async def chunks(self, lane: Lane, digests: Sequence[str]) -> dict[str, bytes]:
        """Return those of up to 16 chunks that are stored, by digest."""
        self._reach()
        chain = self._chains.get(lane)
        held = {} if chain is None else chain.chunks
        return {digest: held[digest] for digest in digests[:CHUNKS_AT_ONCE] if digest in held}

    async def trust(self) -> bytes | None:
        """Return the stored trust document."""
        self._reach()
        return self._trust

    async def keep_trust(self, compact: bytes, *, over: bytes | None = None) -> bool:
        """Store a trust document; with `over`, only in the place of that very one (empty: of none). Say whether."""
        self._reach()
        if over is not None and over != (self._trust or b""):
            return False
        self._trust = compact
        return True

    async def sealed_keys(self) -> dict[str, bytes]:
        """Return the sealed private keys by kid."""
        self._reach()
        return dict(self._sealed)

    async def replace_sealed(self, kid: str, *, held: bytes, by: bytes) -> bool:
        """Replace the sealed form of a private key if it is still `held`."""
        self._reach()
        if self._sealed.get(kid, b"") != held:
            return False
        self._sealed[kid] = by
        if not by:
            del self._sealed[kid]
        return True

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[_Subscription[Rung]]:
        """Subscribe to both lanes."""
        self._reach()
        bell: _Subscription[Rung] = _Subscription()
        self._bells.add(bell)
        try:
            yield bell
        finally:
            self._bells.discard(bell)

    async def report(self, verifier: str, report: bytes, *, ttl_seconds: float) -> None:  # noqa: ARG002
        """Replace this verifier's report; memory keeps it for good, so the time to live is not looked at."""
        self._reach()
        self._reports[verifier] = report
        for watcher in self._watchers:
            watcher.put((verifier, report))

    async def reports(self, verifiers: Sequence[str]) -> dict[str, bytes]:
        """Return the reports of these verifiers."""
        self._reach()
        return {name: self._reports[name] for name in verifiers if name in self._reports}

    async def server_run(self) -> str:
        """Name the store's present run."""
        self._reach()
        return self.run

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[_Subscription[tuple[str, bytes]]]:
        """Subscribe to reports as they are made."""
        self._reach()
        watcher: _Subscription[tuple[str, bytes]] = _Subscription()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def cut(self) -> None:
        """Lose every subscription, as a restarted server does."""
        for bell in self._bells:
            bell.lose()
        for watcher in self._watchers:
            watcher.lose()

    def _ring(self, word: Rung) -> None:
        for bell in self._bells:
            bell.put(word)

    def _reach(self) -> None:
        if not self.reachable:
            raise FeedUnavailable("the store cannot be reached")
