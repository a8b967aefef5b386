"""Prints answers: JSON where it is asked for, else plain tables that fit their columns."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

NOTHING = "-"


class Printer:
    """Where a command says its answer; `as_json` chooses the form for programs."""

    def __init__(self, *, as_json: bool, stream: TextIO | None = None) -> None:
        self.as_json = as_json
        self._stream = sys.stdout if stream is None else stream

    def aside(self, line: str) -> None:
        """Say something that is no part of the answer, on standard error."""
        sys.stderr.write(line + "\n")

    def answer(self, facts: object, *lines: str) -> None:
        """Print `facts` as JSON, or the lines for a person."""
        for line in [json.dumps(facts)] if self.as_json else lines:
            self._stream.write(line + "\n")


def table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table, its columns as wide as they need to be."""
    cells = [list(titles), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def facts_table(facts: Mapping[str, object]) -> list[str]:
    """Return a line for each fact, its name before it."""
    width = max((len(plain(name)) for name in facts), default=0)
    return [f"{plain(name).ljust(width)}  {plain(value)}" for name, value in facts.items()]


def plain(value: object) -> str:
    """Return a value as one line of text that cannot steer a terminal."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, list | tuple):
        text = " ".join(plain(one) for one in value) or NOTHING
    elif isinstance(value, Mapping | bool):
        text = json.dumps(value)
    else:
        text = str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def moment(at: Any) -> str:
    """Return a moment (Unix seconds) in UTC, to the second."""
    if isinstance(at, bool) or not isinstance(at, int | float):
        return plain(at)
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return plain(at)


def milliseconds(value: Any) -> str:
    """Return a duration in milliseconds as a person reads it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return plain(value)
    return f"{value:.1f} ms" if value < 1000 else f"{value / 1000:.1f} s"  # noqa: PLR2004 - a second
