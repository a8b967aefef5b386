"""Reads a list of selectors into the lane, part by part, and knows at each moment up to which line all is settled."""

import asyncio
from collections import deque
from enum import StrEnum
from typing import Any, NamedTuple

from aiohttp import ClientPayloadError, StreamReader, web

from keyturn.contract.encoding import encode_json
from keyturn.contract.errors import InvalidSelector, MalformedInput
from keyturn.contract.selectors import Entry
from revocation.description import MOST_LINES
from revocation.lists import LARGEST_LINE_BYTES, Line, Lines
from revocation.reading import OrderReader
from revocation.writer import LARGEST_EVENT_BYTES, RevocationWriter, Written, size_of
from serving.parts import Parts

MOST_SKIPPED = 1_000  # Bad lines, each of which is told; a list with more of them is likely to be something else.
LONGEST_LIST_SECONDS = 900.0
LONGEST_PAUSE_SECONDS = 10.0  # In which a client sends nothing.
MOST_IN_A_PART = 500  # Lines, in one event: fewer cost the fleet more in all, and more keep its answers waiting.
PARTS_UNDER_WAY = 2
PROGRESS_SECONDS = 0.5
_FLUSH_SECONDS = 0.2  # What has arrived is not kept back for longer, however slowly the rest comes.
_QUERY = frozenset({"from_line", "on_bad", "before", "wait", "timeout"})


class OnBad(StrEnum):
    """What to do about a line that is no selector."""

    STOP = "stop"
    SKIP = "skip"


class Terms(NamedTuple):
    """How a list is to be read: the number of its first line, bad lines, and the moment of cutoffs that name none."""

    from_line: int
    on_bad: OnBad
    before: float


class BadLine(Exception):
    """A line that is no selector, where that ends the list."""


class CutOff(Exception):
    """The list broke off, or took too long."""


def read_terms(request: web.Request, *, now: float, skew_seconds: float) -> Terms:
    """Read `?from_line=N&on_bad=stop|skip&before=MOMENT`; raises MalformedInput for anything else in the query."""
    for name in request.query:
        if name not in _QUERY or len(request.query.getall(name)) > 1:
            raise MalformedInput("the query has from_line, on_bad, before, wait and timeout, each at most once")
    try:
        from_line, before = int(request.query.get("from_line", "1")), float(request.query.get("before", now))
        on_bad = OnBad(request.query.get("on_bad", OnBad.STOP))
    except ValueError:
        raise MalformedInput("from_line is a number, before a moment in Unix seconds, on_bad stop or skip") from None
    if not 1 <= from_line <= MOST_LINES:
        raise MalformedInput(f"from_line is a line's number, from 1 to {MOST_LINES}")
    if not 0 < before <= now + skew_seconds:
        raise MalformedInput("before is a moment in Unix seconds that has passed")
    return Terms(from_line, on_bad, before)


class Progress:
    """What is settled of a list: every line up to `line` is durable, or was skipped and told."""

    def __init__(self, terms: Terms) -> None:
        self.line, self.accepted, self.skipped = terms.from_line - 1, 0, 0
        self.place: tuple[int, int] | None = None

    def told(self, status: str, **more: Any) -> bytes:
        """Return a line of the answer."""
        epoch, sequence = self.place or (None, None)
        facts = {
            "status": status, "line": self.line, "accepted": self.accepted, "skipped": self.skipped, "epoch": epoch,
            "sequence": sequence,
        }  # fmt: skip
        return encode_json(facts | more) + b"\n"


class _UnderWay(NamedTuple):
    written: asyncio.Task[Written]
    entries: int
    last_line: int


class ListReading:
    """One list on its way into the lane: a few parts are being written while the next one is read."""

    def __init__(
        self, parts: Parts, reader: OrderReader, writer: RevocationWriter, terms: Terms, response: web.StreamResponse
    ) -> None:
        self._clock, self._reader, self._writer = parts.clock, reader, writer
        self._terms, self._response = terms, response
        self.progress = Progress(terms)
        self._part: list[Entry] = []
        self._size, self._line = 0, terms.from_line - 1
        self._under_way: deque[_UnderWay] = deque()
        self._report = False
        self._until_boottime = parts.clock.boottime() + LONGEST_LIST_SECONDS
        self._told_boottime = parts.clock.boottime()

    async def read(self, content: StreamReader, *, report: bool) -> None:
        """Read to the end; `report` asks verifiers to answer the last part at once.

        Raises BadLine and CutOff, once all that was read before is settled, and what the writer raises.
        """
        lines = Lines(first=self._terms.from_line)
        try:
            while (piece := await self._piece(content)) is not None:
                for line in lines.feed(piece):
                    await self._take(line)
            for line in lines.end():
                await self._take(line)
            self._report = report
            await self._settle()
        except (BadLine, CutOff):
            await self._settle()
            raise
        finally:
            for one in self._under_way:  # Where nobody listens any more, or our writer is stopped.
                one.written.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _piece(self, content: StreamReader) -> bytes | None:
        """Return what has arrived, None at the end; what waits to be written goes while the client pauses."""
        if self._clock.boottime() > self._until_boottime:
            raise CutOff(f"a list may take {LONGEST_LIST_SECONDS:.0f} s")
        for seconds in (_FLUSH_SECONDS, LONGEST_PAUSE_SECONDS - _FLUSH_SECONDS):
            try:
                async with asyncio.timeout(seconds):
                    return (await content.readany()) or None
            except TimeoutError:
                await self._settle()
            except (ClientPayloadError, web.RequestPayloadError, ConnectionError) as error:
                raise CutOff("the list broke off") from error
        raise CutOff(f"nothing came for {LONGEST_PAUSE_SECONDS:.0f} s")

    async def _take(self, line: Line) -> None:
        if line.is_blank:
            self._line = line.number
            return
        try:
            entry = self._entry(line)
        except (MalformedInput, InvalidSelector) as error:
            await self._take_bad(line, str(error))
            return
        size = size_of(entry)
        if len(self._part) == MOST_IN_A_PART or self._size + size > LARGEST_EVENT_BYTES:
            await self._send()
        self._part.append(entry)
        self._size, self._line = self._size + size, line.number

    def _entry(self, line: Line) -> Entry:
        if line.number > MOST_LINES:
            raise MalformedInput(f"a list has at most {MOST_LINES} lines")
        if line.raw is None:
            raise MalformedInput(f"longer than {LARGEST_LINE_BYTES} bytes")
        return self._reader.line(line.raw, before=self._terms.before)

    async def _take_bad(self, line: Line, reason: str) -> None:
        told = {"line": line.number, "reason": reason}
        if self._terms.on_bad is OnBad.STOP or self.progress.skipped == MOST_SKIPPED:
            raise BadLine(told)
        await self._settle()
        self._line, self.progress.line = line.number, line.number
        self.progress.skipped += 1
        await self._response.write(self.progress.told("skipped", bad=told))

    async def _send(self) -> None:
        """Hand a part to the writer, and wait until there is room for the next one."""
        if not self._part:
            return
        written = asyncio.ensure_future(self._writer.write_list(self._part, report=self._report))
        self._under_way.append(_UnderWay(written, len(self._part), self._line))
        self._part, self._size = [], 0
        while len(self._under_way) > PARTS_UNDER_WAY:
            await self._land()
        await self._clock.sleep(0)  # Others' requests go on meanwhile.

    async def _settle(self) -> None:
        """Return once all that was read is durable."""
        await self._send()
        while self._under_way:
            await self._land()
        self.progress.line = self._line

    async def _land(self) -> None:
        written, entries, last_line = self._under_way.popleft()
        try:
            self.progress.place = (await written).place
        except Exception:
            await self._abandon()
            raise
        self.progress.accepted += entries
        self.progress.line = last_line
        if self._clock.boottime() - self._told_boottime >= PROGRESS_SECONDS:
            self._told_boottime = self._clock.boottime()
            await self._response.write(self.progress.told("progress"))

    async def _abandon(self) -> None:
        """Hear out the parts behind one that failed: they may be durable, and are repeated all the same."""
        rest = [one.written for one in self._under_way]
        self._under_way.clear()
        await asyncio.gather(*rest, return_exceptions=True)
