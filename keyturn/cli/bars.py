"""Draws a timeline of keys: a table of moments, and below it bars, in 80 columns and without colour."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from keyturn.cli.tables import NOTHING, plain, table
from keyturn.contract.rotation import Window
from keyturn.contract.timeline import Span, Timeline

COLUMNS = 80
_LABEL = 8
_WIDTH = COLUMNS - _LABEL - 1
_DAY_SECONDS = 86_400
_OUTSIDE = "*"
_TITLES = ("KEY", "PUBLISH", "MAY ACTIVATE", "ACTIVE", "RETIRES", "REMOVED")


@dataclass(frozen=True, slots=True)
class Marks:
    """One character for each thing that a bar can say."""

    waiting: str
    standby: str
    active: str
    retiring: str
    window: str


UNICODE = Marks(waiting="·", standby="─", active="█", retiring="▒", window="▔")
ASCII = Marks(waiting=".", standby="-", active="#", retiring="%", window="^")


def marks_for(encoding: str | None) -> Marks:
    """Return what a stream of that encoding can show."""
    try:
        "".join((UNICODE.waiting, UNICODE.standby, UNICODE.active, UNICODE.retiring, UNICODE.window)).encode(
            encoding or "ascii"
        )
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def draw(timeline: Timeline, alg: str, *, window: Window | None, marks: Marks) -> list[str]:
    """Return the lines of one algorithm: its table and its bars."""
    spans, begin = timeline.of(alg), timeline.begins_at
    end = timeline.ends_at.get(alg, begin + 1)
    rows = [[_label(span), *_moments(span, begin, end)] for span in spans]
    lines = table(_TITLES, rows)
    if any(span.in_window is False for span in spans):
        lines.append(f"{_OUTSIDE} outside the window: the first key, an order, or one that could wait no longer")
    lines += ["", _axis(begin, end)]
    lines += [f"{_label(span):<{_LABEL}} {_bar(span, begin, end, marks)}".rstrip() for span in spans]
    if window is not None:
        open_at = "".join(
            marks.window if _opens(window, *_cell(begin, end, column)) else " " for column in range(_WIDTH)
        )
        lines.append(f"{'window':<{_LABEL}} {open_at}".rstrip())
    return lines


def legend(marks: Marks, *, window: bool) -> str:
    """Return what the characters say."""
    said = [
        f"{marks.waiting} published, may not sign yet", f"{marks.standby} may sign", f"{marks.active} active",
        f"{marks.retiring} retiring",
    ]  # fmt: skip
    return "   ".join([*said, f"{marks.window} window"] if window else said)


def duration(seconds: float) -> str:
    """Return a duration as a person writes it, its two largest parts: 30d, 20m4s."""
    whole, parts = round(seconds), []
    for unit, length in (("d", _DAY_SECONDS), ("h", 3600), ("m", 60), ("s", 1)):
        count, whole = divmod(whole, length)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts[:2]) or f"{seconds:g}s"


def _label(span: Span) -> str:
    return plain(span.kid)[:_LABEL]


def _moments(span: Span, begin: float, end: float) -> Iterator[str]:
    active = NOTHING if span.active_at is None else _stamp(span.active_at, begin, end)
    yield _stamp(span.publish_at, begin, end)
    yield NOTHING if span.may_activate_at is None else _stamp(span.may_activate_at, begin, end)
    yield active + (_OUTSIDE if span.in_window is False else "")
    yield NOTHING if span.retires_at is None else _stamp(span.retires_at, begin, end)
    yield NOTHING if span.gone_at == math.inf else _stamp(span.gone_at, begin, end)


def _stamp(at: float, begin: float, end: float) -> str:
    """Return a moment in 12 columns, as exact as the length of the chart asks."""
    moment, first = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(begin, UTC)
    if end - begin < _DAY_SECONDS and abs(at - begin) < _DAY_SECONDS:
        return moment.strftime("%H:%M:%S")
    return moment.strftime("%d %b %H:%M" if moment.year == first.year else "%d %b %Y")


def _axis(begin: float, end: float) -> str:
    first, middle, last = (_stamp(at, begin, end) for at in (begin, (begin + end) / 2, end))
    line = list(" " * _WIDTH)
    for text, start in ((first, 0), (middle, (_WIDTH - len(middle)) // 2), (last, _WIDTH - len(last))):
        line[start : start + len(text)] = text
    return " " * (_LABEL + 1) + "".join(line)


def _cell(begin: float, end: float, column: int) -> tuple[float, float]:
    wide = (end - begin) / _WIDTH
    return begin + column * wide, begin + (column + 1) * wide


def _bar(span: Span, begin: float, end: float, marks: Marks) -> str:
    """Paint one phase after the other, each at least one column wide where it begins inside the chart."""
    line = [" "] * _WIDTH
    for start, stop, mark in _phases(span, end, marks):
        if stop <= begin or start >= end or start >= stop:
            continue
        first = max(0, _column(start, begin, end))
        if mark == marks.standby and line[first] == marks.waiting and start >= begin:
            first += 1  # However short the wait, it is seen.
        for column in range(first, min(_WIDTH, max(first + 1, _column(stop, begin, end)))):
            line[column] = mark
    return "".join(line)


def _column(at: float, begin: float, end: float) -> int:
    return int((at - begin) * _WIDTH / (end - begin))


def _phases(span: Span, end: float, marks: Marks) -> Iterator[tuple[float, float, str]]:
    gone = span.gone_at
    active = gone if span.active_at is None else span.active_at
    earliest = active if span.may_activate_at is None else min(span.may_activate_at, active)
    yield span.publish_at, earliest, marks.waiting
    yield earliest, min(active, end), marks.standby
    if span.active_at is not None:
        retires = gone if span.retires_at is None else span.retires_at
        yield span.active_at, min(retires, end), marks.active
        yield retires, gone, marks.retiring


def _opens(window: Window, begin: float, stop: float) -> bool:
    """Say whether a window is open at some time of a column."""
    step = max(1.0, min((stop - begin) / 2, window.length_seconds / 2))
    at = begin
    while at < stop:
        if window.holds(at):
            return True
        at += step
    return False
