"""The feed as its users see it: an append-only chain for each lane, a doorbell, snapshots and presence."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from keyturn.contract.events import SignedEvent, SignedHead, SignedSnapshot
from keyturn.contract.positions import Lane, Position
from keyturn.contract.snapshots import NO_CHUNKS, Chunks

BATCH = 256  # Events in one read of a stream.
BEAT_LEASE_SECONDS = 2.5  # A replica of a publisher that was silent for so long has lost its turn to beat.
CHUNKS_AT_ONCE = 16  # Chunks of a snapshot in one read or write: at most 4 MiB.
MOST_SWEPT = 1024  # Chunks that nobody needs, forgotten in one step.
MOST_AHEAD_SECONDS = 5.0  # A stored head that is later by this than a new one was never honest, or its clock was not.


@dataclass(frozen=True, slots=True)
class Listening:
    """The subscription stands, anew or again: whatever was published before may have been missed."""


@dataclass(frozen=True, slots=True)
class Rung:
    """The doorbell rang: the event itself, or a head; nothing in it is verified."""

    lane: Lane
    statement: bytes


@dataclass(frozen=True, slots=True)
class Top:
    """The newest place of a lane as the store tells it, and the statement (event or head) that vouches for it."""

    position: str
    statement: bytes


@dataclass(frozen=True, slots=True)
class Beside:
    """What an append writes and erases in the same step: sealed private keys by kid."""

    sealed: Mapping[str, bytes]
    erased: Sequence[str] = ()


NOTHING_BESIDE = Beside(sealed={})


class SnapshotSource(Protocol):
    """Where snapshots and their chunks can be read: the store, or a mirror of it that may lag or fail."""

    async def snapshot(self, lane: Lane) -> bytes | None:
        """Return the newest snapshot that it has."""
        ...

    async def chunks(self, lane: Lane, digests: Sequence[str]) -> dict[str, bytes]:
        """Return those of up to 16 chunks that it has, by digest."""
        ...


class Doorbell(Protocol):
    """A standing subscription; one reader."""

    async def next(self, within_seconds: float) -> Listening | Rung | None:
        """Wait for the next word, None after that long. Raises FeedUnavailable when the subscription is lost."""
        ...


class Feed(Protocol):
    """What Redis and memory both do; each method raises FeedUnavailable when the store cannot say."""

    async def append(self, event: SignedEvent, *, after: Position, beside: Beside = NOTHING_BESIDE) -> None:
        """Add an event if the lane stands exactly at `after`, then ring the doorbell, all in one step.

        Raises PositionTaken if it stands elsewhere, StreamSpoiled if its stream holds what no publisher wrote.
        """
        ...

    async def beat(self, head: SignedHead, *, beater: str) -> bool:
        """Store and ring a head if the lane stands at its position and the stored statement is older.

        `beater` names a replica of the publisher. While another one beats, its turn comes only once the stored
        statement is 2.5 s older than its head.
        One that is dated 5 s later or more, or not at all, counts as older: it must not silence the publisher.
        """
        ...

    async def confirm(self, lane: Lane, position: Position) -> bool:
        """Make a write that only succeeds where the lane stands at that position; say whether it does."""
        ...

    async def open_epoch(self, snapshot: SignedSnapshot, *, after: str | None, chunks: Chunks = NO_CHUNKS) -> bool:
        """Begin an epoch if the stored position is `after`, byte for byte; say whether that was so.

        None: if nothing is there, or nothing that is a lane's. The epoch's stream begins empty, whatever was there.
        """
        ...

    async def keep_snapshot(self, snapshot: SignedSnapshot, chunks: Chunks = NO_CHUNKS) -> bool:
        """Store a snapshot of a place in the running epoch, if it is newer than the stored one.

        This and every other way of storing one stores those of its chunks first that are not there, and the snapshot
        only where all of them are; then it forgets chunks that neither this nor the previous snapshot names.
        """
        ...

    async def trim(self, lane: Lane, *, epoch: int, up_to: int) -> None:
        """Forget the events of an epoch up to a sequence; who still needs them loads a snapshot."""
        ...

    async def mend_snapshot(self, snapshot: SignedSnapshot, chunks: Chunks = NO_CHUNKS) -> bool:
        """Store a snapshot of exactly where the lane stands, and all of its chunks, whatever is stored.

        Say whether the lane stands there.
        """
        ...

    async def top(self, lane: Lane) -> Top | None:
        """Return the newest place, None for a lane that never began, or that was overwritten by something else."""
        ...

    async def all_tops(self) -> dict[Lane, Top | None]:
        """Return the newest place of every lane, in one step: what a fleet that comes back asks first."""
        ...

    async def events(self, lane: Lane, *, epoch: int, after: int) -> list[bytes]:
        """Return up to 256 events of an epoch after a sequence, in order."""
        ...

    async def snapshot(self, lane: Lane) -> bytes | None:
        """Return the newest stored snapshot."""
        ...

    async def chunks(self, lane: Lane, digests: Sequence[str]) -> dict[str, bytes]:
        """Return those of up to 16 chunks that are stored, by digest; nothing in them is verified."""
        ...

    async def trust(self) -> bytes | None:
        """Return the stored trust document."""
        ...

    async def keep_trust(self, compact: bytes, *, over: bytes | None = None) -> bool:
        """Store a trust document; with `over`, only in the place of that very one (empty: of none). Say whether."""
        ...

    async def sealed_keys(self) -> dict[str, bytes]:
        """Return the sealed private keys by kid."""
        ...

    async def replace_sealed(self, kid: str, *, held: bytes, by: bytes) -> bool:
        """Replace the sealed form of a private key if it is still `held`; say whether it was. Empty means none."""
        ...

    def listen(self) -> AbstractAsyncContextManager[Doorbell]:
        """Subscribe to both lanes."""
        ...


class PresenceBoard(Protocol):
    """Where verifiers leave their signed reports."""

    async def report(self, verifier: str, report: bytes, *, ttl_seconds: float) -> None:
        """Replace this verifier's report and tell those who watch."""
        ...

    async def reports(self, verifiers: Sequence[str]) -> dict[str, bytes]:
        """Return the reports of these verifiers that have not run out, by verifier."""
        ...

    async def server_run(self) -> str:
        """Name the store's present run; another name means that it restarted or failed over."""
        ...

    def watch(self) -> AbstractAsyncContextManager["PresenceBell"]:
        """Subscribe to reports as they are made."""
        ...


class PresenceBell(Protocol):
    """A standing subscription to reports; one reader."""

    async def next(self, within_seconds: float) -> tuple[str, bytes] | Listening | None:
        """Wait for the next (verifier, report), None after that long. Raises FeedUnavailable when lost."""
        ...
