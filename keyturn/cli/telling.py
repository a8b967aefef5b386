"""What an event of the feed says, in words for an operator."""

from typing import assert_never

from keyturn.cli.tables import moment, plain
from keyturn.contract.events import Event, RevocationsEvent
from keyturn.contract.keys import Activated, KeyChange, Published, Removed, Retired, Revoked, RotationRequested
from keyturn.contract.selectors import Entry, SelectorKind

_SHORT = 12  # Characters of a kid that tell it from the others.


def words_of(event: Event) -> list[str]:
    """Return what an event says, one line for each change or revocation."""
    if isinstance(event, RevocationsEvent):
        return [_revocation(entry) for entry in event.entries]
    return [_change(change) for change in event.changes]


def _revocation(entry: Entry) -> str:
    selector = entry.selector
    named = "everything" if selector.kind is SelectorKind.ALL else f"{selector.kind} {plain(selector.value)}"
    before = "" if selector.before is None else f" from before {moment(selector.before)}"
    reason = f" ({plain(entry.reason)})" if entry.reason else ""
    return f"revoked {named}{before}, kept until {moment(entry.until)}{reason}"


def _change(change: KeyChange) -> str:
    match change:
        case Published():
            return f"published {change.alg} {_kid(change.kid)}"
        case Activated():
            return f"activated {_kid(change.kid)}, signs until {moment(change.sign_until)}"
        case Retired():
            return f"retired {_kid(change.kid)}"
        case Removed():
            return f"removed {_kid(change.kid)}"
        case Revoked():
            return f"revoked key {_kid(change.kid)}" + (f" ({plain(change.reason)})" if change.reason else "")
        case RotationRequested():
            which = "" if change.kid is None else f" to {_kid(change.kid)}"
            when = "" if change.not_before is None else f", not before {moment(change.not_before)}"
            return f"rotation of {change.alg} asked for{which}{when}"
    assert_never(change)


def _kid(kid: str) -> str:
    return plain(kid)[:_SHORT]
