"""What happened in a run, in order: its hash tells whether two runs were the same, its lines tell a reader why."""

import asyncio
from hashlib import sha256
from typing import NamedTuple


class Line(NamedTuple):
    """One happening: when (virtual seconds), to whom, what."""

    moment: float
    who: str
    what: str
    routine: bool  # Too common for a reader: calls, heads, reports.

    def __str__(self) -> str:
        """Return it as a reader sees it."""
        return f"{self.moment:8.3f}  {self.who:<13} {self.what}"


class History:
    """Grows as the run goes on; a run is bounded, so this is."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin empty."""
        self._loop = loop
        self.lines: list[Line] = []

    def note(self, who: str, what: str, *, routine: bool = False) -> None:
        """Add a line at the present moment."""
        self.lines.append(Line(self._loop.time(), who, what, routine))

    def digest(self) -> str:
        """Return the hash of everything, routine included."""
        return sha256("\n".join(f"{line.moment!r} {line}" for line in self.lines).encode()).hexdigest()

    def told(self, *, last: int = 120) -> str:
        """Return the last lines that are not routine."""
        telling = [str(line) for line in self.lines if not line.routine]
        left_out = [f"          … {len(telling) - last} lines before"] if len(telling) > last else []
        return "\n".join([*left_out, *telling[-last:]])
