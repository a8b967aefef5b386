"""The files in which a process keeps what it believes, each written so that a crash leaves the old or the new."""

import fcntl
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

from keyturn.contract.encoding import b64url, decode_object, encode_json, unb64url
from keyturn.contract.errors import ConfigurationError, MalformedInput
from keyturn.contract.positions import Lane

LARGEST_EVENTS_BYTES = 256 * 1024 * 1024  # Of one lane; what is longer was not written by us.
LARGEST_FILE_BYTES = 16 * 1024 * 1024  # Of any other file.
_DIGEST_BYTES = 32


class StoredLane(NamedTuple):
    """What a lane's files hold: statements as they were signed, none of them verified."""

    snapshot: bytes | None
    events: list[bytes]
    head: bytes | None
    whole: bool  # The last line has its end: nothing of the events was cut off.


class LaneFiles:
    """One lane: its last snapshot, the events after it one a line, and the newest head."""

    def __init__(self, directory: Path, lane: Lane) -> None:
        self._snapshot, self._events = directory / f"{lane}.snapshot", directory / f"{lane}.events"
        self._head = directory / f"{lane}.head"

    def read(self) -> StoredLane:
        """Return what is there; a last line that a crash has cut short is left out."""
        lines = _read(self._events, most=LARGEST_EVENTS_BYTES).split(b"\n")
        whole = not lines.pop()  # What follows the last line's end: nothing, or half an event.
        return StoredLane(_read(self._snapshot) or None, lines, _read(self._head) or None, whole)

    def begin(self, snapshot: bytes, events: Sequence[bytes]) -> None:
        """Replace all by a snapshot and the events after it."""
        _replace(self._snapshot, snapshot)
        _replace(self._events, b"".join(event + b"\n" for event in events))

    def append(self, events: Sequence[bytes]) -> None:
        """Add events; they are on the disk on return."""
        with self._events.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end and not _ends_a_line(file.fileno(), end):
                file.truncate(_read(self._events, most=end).rfind(b"\n") + 1)  # Half an event, from before a crash.
                file.seek(0, os.SEEK_END)
            file.write(b"".join(event + b"\n" for event in events))
            file.flush()
            os.fsync(file.fileno())

    def keep_head(self, head: bytes) -> None:
        """Replace the newest head; a lost one only costs freshness, so the disk is not waited for."""
        _replace(self._head, head, sync=False)


class StateDirectory:
    """The directory of one process, locked for as long as it is open; what is in it is signed, or sealed."""

    def __init__(self, path: Path) -> None:
        """Open it, and make it if it is not there; raises ConfigurationError where it cannot be had."""
        self.path = path
        mend = "name a directory of this process's own, on a disk that outlives it"
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._chunks = path / "chunks"
            self._chunks.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"{path} cannot be written: {error.strerror}", setting="state.directory", mend=mend
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigurationError(
                f"{path} belongs to a process that runs", setting="state.directory", mend=mend
            ) from None
        self.lanes = {lane: LaneFiles(path, lane) for lane in Lane}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def trust(self) -> bytes | None:
        """Return the newest trust document that was kept."""
        return _read(self.path / "trust.jws") or None

    def keep_trust(self, compact: bytes) -> None:
        """Replace the trust document."""
        _replace(self.path / "trust.jws", compact)

    def sealed(self) -> dict[str, bytes]:
        """Return the sealed private keys that were kept, by kid; a file that is not ours holds none."""
        try:
            kept = decode_object(_read(self.path / "sealed.json") or b"{}")
            return {kid: unb64url(box) for kid, box in kept.items()}
        except (MalformedInput, AttributeError, TypeError):
            return {}

    def keep_sealed(self, boxes: Mapping[str, bytes]) -> None:
        """Replace the sealed private keys."""
        _replace(self.path / "sealed.json", encode_json({kid: b64url(box) for kid, box in boxes.items()}))

    def chunks(self, digests: Iterable[str]) -> dict[str, bytes]:
        """Return the snapshots' chunks of these digests that are there; whether they fit is the reader's question."""
        found = {digest: _read(self._chunks / digest) for digest in digests if _is_digest(digest)}
        return {digest: raw for digest, raw in found.items() if raw}

    def keep_chunks(self, chunks: Mapping[str, bytes]) -> None:
        """Add chunks of a snapshot that is about to be kept."""
        for digest, raw in chunks.items():
            _replace(self._chunks / digest, raw)

    def forget_chunks(self, *, except_for: Iterable[str]) -> None:
        """Forget the chunks of snapshots that were replaced."""
        needed = set(except_for)
        for path in self._chunks.iterdir():
            if path.name not in needed:
                path.unlink()


def _read(path: Path, *, most: int = LARGEST_FILE_BYTES) -> bytes:
    """Return what a file begins with; what is cut off so is refused like any other edit."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        return b""


def _replace(path: Path, content: bytes, *, sync: bool = True) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    fresh.replace(path)
    if sync:
        directory = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _ends_a_line(descriptor: int, end: int) -> bool:
    return os.pread(descriptor, 1, end - 1) == b"\n"


def _is_digest(text: str) -> bool:
    with suppress(MalformedInput):
        return len(unb64url(text)) == _DIGEST_BYTES
    return False
