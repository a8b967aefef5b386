"""In which form the caller wants his answer: content negotiation by `Accept` (RFC 9110, 12.5.1); a pure decision."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

MOST_RANGES: Final = 64  # Of one request; the rest is not looked at.
_TYPE = re.compile(r"\*/\*|[\w!#$&^.+-]+/(?:\*|[\w!#$&^.+-]+)", re.ASCII)
_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


class Rendering(StrEnum):
    """The forms of one answer, by their media types."""

    SIGNED = "application/token-introspection+jwt"  # RFC 9701.
    PHANTOM = "application/jwt"  # An access token for the API behind a gateway.
    JSON = "application/json"  # RFC 7662.


class _Range(NamedTuple):
    pattern: str
    weight: float

    @property
    def precision(self) -> int:
        """Rank `*/*` below `application/*` below a type that is named."""
        return 0 if self.pattern == "*/*" else 1 if self.pattern.endswith("/*") else 2

    def fits(self, rendering: Rendering) -> bool:
        kind, _, _ = rendering.value.partition("/")
        return self.pattern in ("*/*", f"{kind}/*", rendering.value)


def negotiate(accept: Sequence[str], *, among: Sequence[Rendering] = tuple(Rendering)) -> Rendering | None:
    """Return which of some forms to answer in, given all `Accept` fields; None where none of them is acceptable.

    The highest weight wins, then a type that is named over one that a wildcard covers. Among equals a signed answer
    wins if it was named, since whoever names it knows it; else JSON, as without the field. What cannot be read in the
    field is passed over.
    """
    ranges = [found for one in ",".join(accept).split(",")[:MOST_RANGES] if (found := _read(one)) is not None]
    if not ranges:
        return Rendering.JSON
    best: tuple[float, bool, int] | None = None
    chosen = None
    for order, rendering in enumerate(among):
        fitting = [one for one in ranges if one.fits(rendering)]
        if not fitting:
            continue
        precision = max(one.precision for one in fitting)
        weight = max(one.weight for one in fitting if one.precision == precision)
        named = precision == 2  # noqa: PLR2004 - see _Range.precision
        rank = weight, named, -order if named else order
        if weight > 0 and (best is None or rank > best):
            best, chosen = rank, rendering
    return chosen


def _read(text: str) -> _Range | None:
    """Return a media range and its weight, 1 unless it has one; None for what is neither."""
    pattern, *parameters = (part.strip() for part in text.split(";"))
    weights = [one.partition("=")[2] for one in parameters if one[:2].lower() == "q="]
    if _TYPE.fullmatch(pattern) is None or len(weights) > 1 or not all(map(_WEIGHT.fullmatch, weights)):
        return None
    return _Range(pattern.lower(), float(weights[0]) if weights else 1.0)
