"""Shows a receipt: where it stands, how durable it is, who has adopted it, how fast, who lags."""

from typing import Any

from keyturn.cli.answers import ExitStatus
from keyturn.cli.origin import Answer
from keyturn.cli.tables import Printer, facts_table, milliseconds

_ALL_ADOPTED, _SOME_LAG = 200, 202
ACCEPTED = (_ALL_ADOPTED, _SOME_LAG)


def show_receipt(printer: Printer, answer: Answer, done: str) -> ExitStatus:
    """Print a receipt; NO where it was waited for and live verifiers still lag."""
    told = answer.object()
    shown: dict[str, Any] = {
        "position": f"{told.get('lane')} {told.get('epoch')}:{told.get('sequence')}",
        "durability": told.get("durability"),
        "adopted": f"{told.get('adopted')} of {told.get('live')} live verifiers",
        "slowest": milliseconds(told.get("slowest_ms")),
        "laggards": told.get("laggards"),
    }
    named = {name: told[name] for name in ("kid", "exposure_ms") if name in told}
    printer.answer(told, done, *facts_table(named | shown))
    return ExitStatus.NO if answer.status == _SOME_LAG else ExitStatus.YES
