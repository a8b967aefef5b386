"""`keyturn trust …`: what the root vouches for, shown and changed, offline, where `keyturn init` put it."""

import argparse
from typing import Any

from keyturn.cli import trustclients, trustmembers, trustroles
from keyturn.cli.answers import ExitStatus
from keyturn.cli.tables import Printer
from keyturn.cli.trustchanges import MOST_DAYS, renewed
from keyturn.cli.trustcommand import add_command, directory_of, say_signed
from keyturn.cli.trustshow import facts_of, lines_of, warning_of
from keyturn.clock import SystemClock

DEFAULT_DAYS = 365


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands of `trust`."""
    commands = groups.add_parser("trust", help="the trust document: show and change it").add_subparsers(required=True)
    add_command(commands, "show", _show, "show what the root vouches for; status 1 if it has expired", signs=False)
    renew = add_command(commands, "renew", _renew, "sign the same anew, for a longer time")
    renew.add_argument(
        "--days", type=_days, default=DEFAULT_DAYS, metavar="N", help=f"from now (default: {DEFAULT_DAYS})"
    )
    trustroles.add_commands(commands)
    trustmembers.add_commands(commands)
    trustclients.add_commands(commands)


def _show(args: argparse.Namespace) -> ExitStatus:
    facts = facts_of(directory_of(args).read(), now=SystemClock().now())
    warning = warning_of(facts)
    Printer(as_json=args.json).answer(facts, *([warning, ""] if warning else []), *lines_of(facts))
    return ExitStatus.NO if facts["expired"] else ExitStatus.YES


def _renew(args: argparse.Namespace) -> ExitStatus:
    directory = directory_of(args)
    with directory.signing() as held:
        document = renewed(held.document, days=args.days, now=SystemClock().now())
        directory.publish(held, document)
    return say_signed(args, directory, document)


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"is a number of days from 1 to {MOST_DAYS}")
    return int(text)
