"""Shows a receipt: where it stands, how durable it is, who has adopted it, how fast, who lags."""

from collections.abc import Iterator
from typing import Any

from keyturn.cli.answers import ExitStatus
from keyturn.cli.origin import Answer
from keyturn.cli.tables import Printer, facts_table, milliseconds, moment

_ALL_ADOPTED, _SOME_LAG = 200, 202
ACCEPTED = (_ALL_ADOPTED, _SOME_LAG)
_MOST_TIMES = 16  # Verifiers whose time is shown to a person; --json has all.


def show_receipt(
    printer: Printer, answer: Answer, done: str, *, waited: bool, ordered_for: float | None = None
) -> ExitStatus:
    """Print a receipt; NO where what was asked has not come about yet, or live verifiers that were waited for lag.

    What was ordered for a moment to come need not have come about.
    """
    told = answer.object()
    if told.get("phase") == "published":
        when = "as soon as the barrier lets it" if ordered_for is None else f"from {moment(ordered_for)} on"
        done = f"ordered: this key signs {when}"
    shown: dict[str, Any] = {"kid": told["kid"]} if "kid" in told else {}
    shown |= receipt_facts(told, waited=waited)
    printer.answer(told, done, *facts_table(shown), *_exposure(told, waited=waited))
    if answer.status != _SOME_LAG:
        return ExitStatus.YES
    lags = waited and bool(told.get("laggards"))
    return ExitStatus.YES if ordered_for is not None and not lags else ExitStatus.NO


def receipt_facts(told: dict[str, Any], *, waited: bool) -> dict[str, Any]:
    """Return what a receipt says, as a person reads it."""
    shown: dict[str, Any] = {
        "position": f"{told.get('lane')} {told.get('epoch')}:{told.get('sequence')}",
        "durability": told.get("durability"),
    }
    if not waited:  # Whoever has not reported within these few milliseconds is no laggard.
        return shown | {"adopted": "not waited for: --wait all"}
    return shown | {
        "adopted": f"{told.get('adopted')} of {told.get('live')} live verifiers",
        "slowest": milliseconds(told.get("slowest_ms")),
        "laggards": told.get("laggards"),
        **_times(told.get("adopted_ms")),
    }


def _times(told: object) -> dict[str, str]:
    """Return each verifier's time, the slowest first; of many, only the slowest ones."""
    times = told if isinstance(told, dict) else {}
    known = {name: took for name, took in times.items() if isinstance(took, int | float)}
    slowest = sorted(known, key=lambda name: (-known[name], name))
    shown = {f"  {name}": milliseconds(known[name]) for name in slowest[:_MOST_TIMES]}
    rest = len(slowest) - len(shown)
    return shown | ({f"  {rest} more": "faster than these"} if rest else {})


def _exposure(told: dict[str, Any], *, waited: bool) -> Iterator[str]:
    """Say in words who could still accept a revoked key, and until when."""
    exposure = told.get("exposure")
    if not isinstance(exposure, dict):
        return
    lag = told.get("laggards") if waited else None
    yield ""
    if waited and not lag and told.get("live"):
        yield "exposed: every live verifier has adopted the revocation and rejects all that this key signed"
    else:
        who = f" ({', '.join(map(str, lag))})" if lag else ""
        yield (
            f"exposed: a verifier that follows the feed and has not heard of it{who} could accept this key's tokens "
            f"until {moment(exposure.get('push_until'))}, when it stops answering by itself"
        )
    yield (
        f"exposed: who pulls the JWKS could accept them until {moment(exposure.get('pull_until'))}, "
        "when a cached copy is too old"
    )
