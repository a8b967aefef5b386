"""Keeps a lane's events in files before the store forgets them: segments that chain, written once and never changed."""

import asyncio
import os
import re
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from keyturn.contract.encoding import digest
from keyturn.contract.errors import ArchiveFailed, ConfigurationError, MalformedInput
from keyturn.contract.positions import Lane, Position
from keyturn.feed.lines import claims_of, parse_line, render_line
from keyturn.feed.log import Feed

ARCHIVED: Final = "feed_archived"
GAP: Final = "feed_archive_gap"
FAILED: Final = "feed_archive_failed"
MODE = 0o640
_NAME = re.compile(r"(keys|revocations)-([0-9]{1,19})-([0-9]{1,19})-([0-9]{1,19})\.ndjson")


class Segment(NamedTuple):
    """A file of an archive, and the place of its first and its last event."""

    path: Path
    lane: Lane
    epoch: int
    first: int
    last: int

    def end(self) -> Position:
        """Return the position of its last event, by the hash of its bytes; raises ArchiveFailed."""
        try:
            with self.path.open("rb") as file:
                newest = deque(file, maxlen=1)
            line = parse_line(newest[0] if newest else b"")
        except (OSError, MalformedInput) as error:
            raise ArchiveFailed(f"{self.path} is damaged: {_reason(error)}") from error
        if (line.lane, line.epoch, line.sequence) != (self.lane, self.epoch, self.last):
            raise ArchiveFailed(f"{self.path} is damaged: it ends with {line.lane} {line.epoch}:{line.sequence}")
        return Position(line.epoch, line.sequence, digest(line.compact))


def segments(directory: Path, lane: Lane | None = None) -> list[Segment]:
    """Return the segments in a directory (of one lane, if it is named) in the order of their events."""
    found = []
    for path in directory.iterdir():
        match = _NAME.fullmatch(path.name)
        if match is not None and lane in (None, Lane(match[1])):
            found.append(Segment(path, Lane(match[1]), int(match[2]), int(match[3]), int(match[4])))
    return sorted(found, key=lambda one: (one.lane, one.epoch, one.last, one.first))


class Archive:
    """A directory of segments, `LANE-EPOCH-FIRST-LAST.ndjson`; several publishers may share it.

    `note(event, **facts)` hears what an operator should know.
    """

    def __init__(self, directory: Path, *, note: Callable[..., None]) -> None:
        self.directory, self._note = directory, note

    def require_writable(self) -> None:
        """Raise ConfigurationError if nothing can be written there: no event would ever be forgotten."""
        try:
            with tempfile.TemporaryFile(dir=self.directory):
                pass
        except OSError as error:
            raise ConfigurationError(
                f"nothing can be written to {self.directory}: {_reason(error)}",
                setting="feed.archive", mend="make the directory, and let this process write there",
            ) from error  # fmt: skip

    async def keep(self, feed: Feed, lane: Lane, up_to: Position) -> bool:
        """See to it that all events up to a position of ours are in the archive; say whether they may be forgotten.

        They may not where they could not be written, or are not the chain that leads to that position. Raises
        FeedUnavailable.
        """
        try:
            await self._keep(feed, lane, up_to)
        except (ArchiveFailed, OSError) as error:
            self._note(FAILED, lane=lane.value, up_to=f"{up_to.epoch}:{up_to.sequence}", reason=_reason(error))
            return False
        return True

    async def _keep(self, feed: Feed, lane: Lane, up_to: Position) -> None:
        held = await asyncio.to_thread(self._newest, lane, up_to.epoch)
        if held is not None and held.sequence >= up_to.sequence:
            if held.sequence == up_to.sequence and held != up_to:
                raise ArchiveFailed(f"the archive holds another history at {up_to.epoch}:{up_to.sequence}")
            return
        chain = _Chain(up_to, held)
        with self._part() as part:
            after = 0 if held is None else held.sequence
            while not chain.complete:
                batch = await feed.events(lane, epoch=up_to.epoch, after=after)
                lines = [
                    render_line(lane, epoch=up_to.epoch, sequence=chain.take(event), event=event)
                    for event in chain.due(batch)
                ]
                if not lines:
                    break
                await asyncio.to_thread(part.write, b"".join(lines))
                after = chain.last
            self._tell_gap(lane, up_to, held, chain.first)
            if chain.first is None:
                return  # Another publisher has trimmed them, or the store has lost them: nothing is left to keep.
            chain.require_end()
            name = f"{lane}-{up_to.epoch}-{chain.first}-{chain.last}.ndjson"
            await asyncio.to_thread(self._publish, part, name)
        self._note(ARCHIVED, lane=lane.value, segment=name, events=chain.last - chain.first + 1)

    def _newest(self, lane: Lane, epoch: int) -> Position | None:
        ours = [one for one in segments(self.directory, lane) if one.epoch == epoch]
        return ours[-1].end() if ours else None

    def _tell_gap(self, lane: Lane, up_to: Position, held: Position | None, first: int | None) -> None:
        if held is not None and first != held.sequence + 1:
            last = up_to.sequence if first is None else first - 1
            self._note(GAP, lane=lane.value, epoch=up_to.epoch, first=held.sequence + 1, last=last)

    @contextmanager
    def _part(self) -> Iterator["_Part"]:
        """Give a file that is not in the archive yet, and goes unless it was published."""
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=self.directory)
        part = _Part(handle, Path(name))
        try:
            yield part
        finally:
            part.close()

    def _publish(self, part: "_Part", name: str) -> None:
        """Give a part its name in one step, once it is on the disk; a file of that name is never written over."""
        os.fchmod(part.handle, MODE)
        os.fsync(part.handle)
        target = self.directory / name
        try:
            target.hardlink_to(part.path)
        except FileExistsError:
            if target.read_bytes() != part.path.read_bytes():
                raise ArchiveFailed(f"{target} is there, with other contents") from None
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


class _Part:
    """An open file that a segment grows in."""

    def __init__(self, handle: int, path: Path) -> None:
        self.handle, self.path = handle, path
        self._file = os.fdopen(handle, "wb", buffering=0)

    def write(self, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


class _Chain:
    """Follows events of a stream by their hashes, from what is held to a position that this publisher vouches for."""

    def __init__(self, up_to: Position, held: Position | None) -> None:
        self.first: int | None = None
        self.last = 0
        self._up_to, self._link = up_to, held

    @property
    def complete(self) -> bool:
        """Say whether the position has been reached."""
        return self.last >= self._up_to.sequence

    def due(self, batch: list[bytes]) -> Iterator[bytes]:
        """Yield the events of a read that are not beyond the position; whoever takes each before the next."""
        for event in batch:
            if self.complete or _claimed(event) > self._up_to.sequence:
                return
            yield event

    def take(self, event: bytes) -> int:
        """Return the sequence of the next event; raises ArchiveFailed if it does not extend the chain."""
        claimed = claims_of(event)
        place = f"{claimed.epoch}:{claimed.sequence}"
        link = self._link
        follows = self.first is not None or (link is not None and claimed.sequence == link.sequence + 1)
        if claimed.epoch != self._up_to.epoch or claimed.sequence <= (0 if link is None else link.sequence):
            raise ArchiveFailed(f"{place} in the store's stream has no place there")
        if follows and link is not None and (claimed.sequence, claimed.previous) != (link.sequence + 1, link.hash):
            raise ArchiveFailed(f"{place} in the store's stream does not follow {link.epoch}:{link.sequence}")
        self._link = Position(claimed.epoch, claimed.sequence, digest(event))
        self.first, self.last = self.first or claimed.sequence, claimed.sequence
        return claimed.sequence

    def require_end(self) -> None:
        """Raise ArchiveFailed if the chain does not lead to the position."""
        if self._link != self._up_to:
            raise ArchiveFailed(
                f"the store's stream leads to another {self._up_to.epoch}:{self.last} than this publisher knows"
            )


def _claimed(event: bytes) -> int:
    try:
        return claims_of(event).sequence
    except MalformedInput as error:
        raise ArchiveFailed("the store's stream holds what is no event") from error


def _reason(error: Exception) -> str:
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
