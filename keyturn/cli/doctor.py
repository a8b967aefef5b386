"""`keyturn doctor`: looks at everything that has to be right beside a configuration, and names each mend."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keyturn.cli.answers import ExitStatus
from keyturn.cli.arguments import common_options
from keyturn.cli.checkup import Level, Result, examine
from keyturn.cli.examination import Patient, from_environment, from_settings, gather
from keyturn.cli.session import Session, online
from keyturn.cli.tables import plain, table
from keyturn.clock import SystemClock
from keyturn.process.settings import DEFAULT_FILE, Settings


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `doctor`."""
    doctor = groups.add_parser(
        "doctor", parents=[common_options()], help="look at store, feed, trust, verifiers and services, and name mends"
    )
    doctor.add_argument(
        "--config", type=Path, metavar="FILE",
        help=f"the settings to look beside (default: KEYTURN_CONFIG, else ./{DEFAULT_FILE}, else what --env names)",
    )  # fmt: skip
    doctor.set_defaults(run=online(_doctor))


async def _doctor(args: argparse.Namespace, session: Session) -> ExitStatus:
    results = examine(await gather(_patient(args, session), SystemClock()))
    facts = [
        {"check": one.check, "level": one.level, "seen": plain(one.seen), "mend": one.mend or None} for one in results
    ]
    rows = [[one.level.upper() if one.level is Level.FAIL else one.level, one.check, one.seen] for one in results]
    mends = [f"{one.check}: {one.mend}" for one in results if one.level is not Level.OK and one.mend]
    lines = table(["", "CHECK", "SEEN"], rows) + (["", "to mend:", *(f"  {mend}" for mend in mends)] if mends else [])
    session.printer.answer({"status": _status(results).name.lower(), "checks": facts}, *lines)
    return _status(results)


def _status(results: Sequence[Result]) -> ExitStatus:
    levels = {one.level for one in results}
    if Level.FAIL in levels:
        return ExitStatus.NO
    return ExitStatus.UNTOLD if Level.UNKNOWN in levels else ExitStatus.YES


def _patient(args: argparse.Namespace, session: Session) -> Patient:
    variables = session.environment
    if args.config is not None or variables.get("KEYTURN_CONFIG") is not None or Path(DEFAULT_FILE).exists():
        return from_settings(Settings.read(args.config))
    return from_environment(variables)
