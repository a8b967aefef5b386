"""Reads dumps and archived segments of the feed through an audit, and keeps where each lane first broke."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyturn.cli.answers import WrongUsage
from keyturn.contract.errors import KeyturnError, MalformedInput, TrustError, UnknownKind
from keyturn.contract.positions import Lane
from keyturn.feed.audit import Audit
from keyturn.feed.lines import LONGEST_LINE_BYTES, Line, parse_line


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a dump does not hold, and why."""

    file: Path
    number: int | None  # Of the line; None for what is missing at the end.
    line: Line | None
    code: str
    reason: str

    @property
    def readable(self) -> bool:
        """Say whether it is false, and not only beyond this version."""
        return self.code != UnknownKind.code

    def __str__(self) -> str:
        """Return it in one line."""
        where = f"{self.file}" if self.number is None else f"{self.file}, line {self.number}"
        place = "" if self.line is None else f" ({self.line.lane} {self.line.epoch}:{self.line.sequence})"
        return f"{where}{place}: {self.code}: {self.reason}"

    def facts(self) -> dict[str, Any]:
        """Return it for programs."""
        place = None if self.line is None else {
            "lane": self.line.lane, "epoch": self.line.epoch, "sequence": self.line.sequence,
        }  # fmt: skip
        return {
            "file": str(self.file), "line": self.number, "place": place, "code": self.code, "reason": self.reason
        }  # fmt: skip


class Dump:
    """Files that were read through an audit; a lane is not followed beyond its first break."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self.findings: list[Finding] = []
        self._broken: set[Lane] = set()
        self._last_file: dict[Lane, Path] = {}

    @property
    def first(self) -> Finding | None:
        """Return the first break; one that is false before one that cannot be read."""
        return next((one for one in self.findings if one.readable), self.findings[0] if self.findings else None)

    @property
    def holds(self) -> bool:
        """Say whether there was something, and all of it holds."""
        return not self.findings and any(lane.stretches for lane in self.audit.lanes.values())

    def read(self, files: Sequence[Path]) -> None:
        """Read the files, each lane by itself: in the order of its events, since a shell sorts names by letters.

        A file is read up to the first line that is no line, and several times: a pipe would show less each time.
        Raises WrongUsage for one, and for a file that cannot be read.
        """
        for file in files:
            if file.exists() and not file.is_file():
                raise WrongUsage(f"{file} is no plain file: save it first")
        for lane in Lane:
            for file in sorted(files, key=lambda one: self._first_place(one, lane)):
                self._read(file, lane)

    def _first_place(self, file: Path, lane: Lane) -> tuple[int, int]:
        """Return where a file's first line of a lane says that it stands."""
        for _, raw in _lines(file):
            try:
                line = parse_line(raw)
            except MalformedInput:
                break
            if line.lane is lane:
                return line.epoch, line.sequence
        return 0, 0

    def _read(self, file: Path, lane: Lane) -> None:
        for number, raw in _lines(file):
            try:
                line = parse_line(raw)
            except MalformedInput as error:
                self._find(file, number, None, error)
                return
            if line.lane is not lane or lane in self._broken:
                continue
            self._last_file[lane] = file
            try:
                self.audit.take(line)
            except TrustError as error:
                self._find(file, number, line, error)

    def finish(self) -> None:
        """Look at what is missing at the end."""
        for lane, audit in self.audit.lanes.items():
            if lane in self._broken or lane not in self._last_file:
                continue
            try:
                audit.require_all()
            except TrustError as error:
                self._find(self._last_file[lane], None, None, error)

    def _find(self, file: Path, number: int | None, line: Line | None, error: KeyturnError) -> None:
        found = Finding(file, number, line, error.code, str(error))
        if found not in self.findings:  # Each lane is read by itself: a line of no lane is met by both.
            self.findings.append(found)
        if line is not None:
            self._broken.add(line.lane)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with file.open("rb") as opened:
            number = 0
            while raw := opened.readline(LONGEST_LINE_BYTES + 2):
                number += 1
                if raw.strip():
                    yield number, raw
    except OSError as error:
        raise WrongUsage(f"{file} cannot be read: {error.strerror}") from error
