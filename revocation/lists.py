"""Lists of selectors, one JSON object a line: split as they arrive, each line with its number."""

from collections.abc import Iterator
from typing import NamedTuple

LARGEST_LINE_BYTES = 16 * 1024  # A selector of the longest names, every character of them escaped.


class Line(NamedTuple):
    """A line of a list without its end; one that is too long has no content."""

    number: int
    raw: bytes | None

    @property
    def is_blank(self) -> bool:
        """Say whether there is nothing on it."""
        return self.raw is not None and not self.raw.strip()


class Lines:
    """Splits what arrives in pieces of any size; holds at most one line that has not ended."""

    def __init__(self, *, first: int) -> None:
        self._next = first
        self._held = b""
        self._overlong = False  # The line that has not ended is too long: its rest is passed over.

    def feed(self, piece: bytes) -> Iterator[Line]:
        """Yield the lines that a piece ends."""
        *whole, self._held = (self._held + piece).split(b"\n")
        for raw in whole:
            yield self._line(raw)
        if len(self._held) > LARGEST_LINE_BYTES:
            self._held, self._overlong = b"", True

    def end(self) -> Iterator[Line]:
        """Yield the last line, if it has no end."""
        if self._held or self._overlong:
            raw, self._held = self._held, b""
            yield self._line(raw)

    def _line(self, raw: bytes) -> Line:
        overlong, self._overlong = self._overlong or len(raw) > LARGEST_LINE_BYTES, False
        number, self._next = self._next, self._next + 1
        return Line(number, None if overlong else raw)
