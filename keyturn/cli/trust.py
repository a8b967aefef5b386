"""`keyturn trust …`: what the root vouches for, shown and changed, offline, where `keyturn init` put it."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keyturn.cli.answers import ExitStatus, WrongUsage
from keyturn.cli.arguments import common_options
from keyturn.cli.environment import Environment
from keyturn.cli.tables import Printer, moment
from keyturn.cli.trustchanges import MOST_DAYS, renewed
from keyturn.cli.trustdir import TrustDirectory
from keyturn.cli.trustshow import facts_of, lines_of, warning_of
from keyturn.clock import SystemClock

DEFAULT_DIRECTORY = Path(".keyturn")
DEFAULT_DAYS = 365


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add the commands of `trust`."""
    commands = groups.add_parser("trust", help="the trust document: show and change it").add_subparsers(required=True)
    _add(commands, "show", _show, "show what the root vouches for; status 1 if it has expired", signs=False)
    renew = _add(commands, "renew", _renew, "sign the same anew, for a longer time")
    renew.add_argument(
        "--days", type=_days, default=DEFAULT_DAYS, metavar="N", help=f"from now (default: {DEFAULT_DAYS})"
    )


def _add(
    commands: "argparse._SubParsersAction[Any]",
    name: str,
    run: Callable[[argparse.Namespace], ExitStatus],
    about: str,
    *,
    signs: bool = True,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, parents=[common_options(online=False)], help=about)
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="what keyturn init made (default: where KEYTURN_ROOT is, else .keyturn)"
    )
    if signs:
        parser.add_argument(
            "--root-key", type=Path, metavar="FILE", help="the root's private key (default: DIR/root/private.jwk)"
        )
    parser.set_defaults(run=run)
    return parser


def _show(args: argparse.Namespace) -> ExitStatus:
    directory, now = _directory(args), SystemClock().now()
    facts = facts_of(directory.read(), root=directory.root_kid, now=now)
    warning = warning_of(facts)
    Printer(as_json=args.json).answer(facts, *([warning, ""] if warning else []), *lines_of(facts))
    return ExitStatus.NO if facts["expired"] else ExitStatus.YES


def _renew(args: argparse.Namespace) -> ExitStatus:
    directory = _directory(args)
    with directory.alone():
        held = directory.read()
        document = renewed(held.document, days=args.days, now=SystemClock().now())
        directory.publish(held, document)
    Printer(as_json=args.json).answer(
        {"version": document.version, "expires_at": document.expires_at, "document": str(directory.document)},
        f"{directory.document}: version {document.version}, until {moment(document.expires_at)}",
        f"the old one is trust-{held.version}.jws beside it",
    )
    return ExitStatus.YES


def _directory(args: argparse.Namespace) -> TrustDirectory:
    named: Path | None = args.dir
    if named is None:
        root = Environment.read(None).get("KEYTURN_ROOT")
        named = Path(root).parent if root else DEFAULT_DIRECTORY
    if not named.is_dir():
        raise WrongUsage(f"{named} is no directory: name the one that keyturn init made by --dir")
    return TrustDirectory(named, root_key=getattr(args, "root_key", None))


def _days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"is a number of days from 1 to {MOST_DAYS}")
    return int(text)
