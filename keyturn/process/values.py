"""Turns what a configuration file or an environment variable says into typed values, or says why it cannot."""

import math
import os
import re
import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, TypeAlias, Union, get_args, get_origin

LARGEST_SECRET_BYTES = 64 * 1024
LARGEST_NUMBER = 1e15
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})
_HIGHEST_PORT = 65_535


class Unfit(ValueError):
    """A value that does not fit its setting; says how to mend it, and never repeats a secret."""

    def __init__(self, message: str, *, mend: str) -> None:
        super().__init__(message)
        self.mend = mend


@dataclass(frozen=True, slots=True)
class DurationMark:
    """Marks a float as a duration: seconds, or a string such as `15m`."""


@dataclass(frozen=True, slots=True)
class Range:
    """Marks a number, or a duration, with what it may be, both ends included: `Annotated[int, Range(1, 64)]`."""

    low: float = -math.inf
    high: float = math.inf


Duration: TypeAlias = Annotated[float, DurationMark()]
"""A setting in seconds, written as a number or as `250ms`, `15m`, `1h30m`, `30d`; never negative."""


class Secret:
    """The content of a secret file; it shows itself to nobody who does not ask for it by name."""

    __slots__ = ("_path", "_value")

    def __init__(self, value: bytes, *, path: Path | None = None) -> None:
        self._value, self._path = value, path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that only its owner may read; one line break at the end is not part of the secret.

        Raises Unfit when it is missing, readable for others, empty or larger than 64 KiB.
        """
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise Unfit(f"{path} is not a file", mend="name a file that holds the secret")
                if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise Unfit(f"{path} is open to other users", mend=f"chmod 600 {path}")
                value = file.read(LARGEST_SECRET_BYTES + 1)
        except OSError as error:
            raise Unfit(
                f"{path} cannot be read: {error.strerror}", mend="name a file that this process can read"
            ) from error
        if len(value) > LARGEST_SECRET_BYTES:
            raise Unfit(f"{path} is larger than {LARGEST_SECRET_BYTES} bytes", mend="name the file of the secret")
        value = value.removesuffix(b"\n").removesuffix(b"\r")
        if not value:
            raise Unfit(f"{path} is empty", mend="write the secret into it")
        return cls(value, path=path)

    def again(self) -> Self:
        """Return what its file holds now, itself if it is from no file; raises Unfit as `read` does."""
        return self if self._path is None else self.read(self._path)

    def reveal(self) -> bytes:
        """Return the secret."""
        return self._value

    def reveal_text(self) -> str:
        """Return the secret as text (UTF-8)."""
        return self._value.decode()

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not to be written down")


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a process listens: `HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address; raises Unfit."""
        mend = "write HOST:PORT, [IPV6]:PORT or unix:/PATH"
        if text.startswith("unix:"):
            path = Path(text.removeprefix("unix:"))
            if not path.is_absolute():
                raise Unfit(f"{text!r} does not name an absolute path", mend=mend)
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not host or (":" in host and not bracketed):
            raise Unfit(f"{text!r} is not an address", mend=mend)
        if not (port.isascii() and port.isdigit() and int(port) <= _HIGHEST_PORT):
            raise Unfit(f"{text!r} has no port between 0 and {_HIGHEST_PORT}", mend=mend)
        return cls(host=host[1:-1] if bracketed else host, port=int(port))

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def seconds(raw: object) -> float:
    """Return a duration in seconds; raises Unfit."""
    mend = 'write seconds, or a duration such as "15m"'
    length: object = raw
    if isinstance(raw, str) and _DURATION.fullmatch(raw):
        length = sum(float(amount) * _UNITS[unit] for amount, unit in _DURATION_PART.findall(raw))
    if isinstance(length, bool) or not isinstance(length, int | float):
        raise Unfit(f"{_shown(raw)} is not a duration", mend=mend)
    if not 0 <= length <= LARGEST_NUMBER:
        raise Unfit(f"{_shown(raw)} is not a length of time", mend=mend)
    return float(length)


def without_none(annotation: Any) -> Any:
    """Return `X` for `X | None`, and anything else as it is."""
    if get_origin(annotation) in (Union, UnionType):
        others = [each for each in get_args(annotation) if each is not NoneType]
        if len(others) == 1:
            return others[0]
    return annotation


def from_text(annotation: Any, text: str) -> object:
    """Return what a TOML file would have said for an environment variable's text; raises Unfit."""
    kind = without_none(annotation)
    origin = get_origin(kind)
    if origin is Annotated:
        return from_text(get_args(kind)[0], text)
    if origin is tuple:
        return [from_text(get_args(kind)[0], each.strip()) for each in text.split(",") if each.strip()]
    if kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise Unfit(f"{text!r} is neither true nor false", mend="write true or false")
    if kind in (int, float):
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    return text


def fit(annotation: Any, raw: object, *, beside: Path) -> object:
    """Return `raw` as the type asks for it, relative paths taken from the folder `beside`; raises Unfit.

    Types: str, bool, int, float, Duration, Path, StrEnum, Literal, tuple[X, ...], X | None, Annotated with a
    Range, and any class with a `parse(text)` class method that raises Unfit.
    """
    kind = without_none(annotation)
    origin = get_origin(kind)
    if origin is Annotated:
        return _fit_marked(kind, raw, beside=beside)
    if origin is Literal:
        return _one_of(get_args(kind), raw)
    if origin is tuple:
        if not isinstance(raw, list):
            raise Unfit(f"{_shown(raw)} is not a list", mend='write a list, such as ["one", "two"]')
        return tuple(fit(get_args(kind)[0], each, beside=beside) for each in raw)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(_one_of(tuple(kind), raw))
    return _fit_plain(kind, raw, beside=beside)


def _fit_plain(kind: Any, raw: object, *, beside: Path) -> object:
    if kind is bool:
        if isinstance(raw, bool):
            return raw
        raise Unfit(f"{_shown(raw)} is neither true nor false", mend="write true or false")
    if kind in (int, float):
        return _number(kind, raw)
    if kind is str:
        return _text(raw)
    if kind is Path:
        return path_from(raw, beside=beside)
    return kind.parse(_text(raw))


def path_from(raw: object, *, beside: Path) -> Path:
    """Return a path, a relative one taken from the folder `beside`; raises Unfit."""
    return beside / Path(_text(raw)).expanduser()


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise Unfit(f"{_shown(raw)} is not text", mend="write it in quotes")
    if not raw or not raw.isprintable():
        raise Unfit("the text is empty or has unprintable characters", mend="write a value, or leave it out")
    return raw


def _fit_marked(kind: Any, raw: object, *, beside: Path) -> object:
    inner, *marks = get_args(kind)
    if any(isinstance(mark, DurationMark) for mark in marks):
        value: object = seconds(raw)
    else:
        value = fit(inner, raw, beside=beside)
    for mark in marks:
        if isinstance(mark, Range) and isinstance(value, int | float) and not mark.low <= value <= mark.high:
            raise Unfit(f"{value:g} is out of range", mend=f"choose a value from {mark.low:g} to {mark.high:g}")
    return value


def _number(kind: type[int] | type[float], raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise Unfit(f"{_shown(raw)} is not a number", mend="write a number, without quotes")
    if not -LARGEST_NUMBER <= raw <= LARGEST_NUMBER:
        raise Unfit(f"{_shown(raw)} is out of range", mend="write a smaller number")
    if kind(raw) != raw:
        raise Unfit(f"{raw} is not a whole number", mend="write one without a fraction")
    return kind(raw)


def _one_of(choices: tuple[Any, ...], raw: object) -> Any:
    if raw in choices:
        return raw
    raise Unfit(f"{_shown(raw)} is not a choice", mend=f"choose from {', '.join(str(each) for each in choices)}")


def _shown(raw: object) -> str:
    """Show a wrong value, shortened: it may be anything."""
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:60]}…"  # noqa: PLR2004 - what fits a line beside the message
