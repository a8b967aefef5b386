"""What the commands share of their arguments; a token never stands among them, and is never repeated."""

import argparse
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, TextIO

from keyturn.cli.answers import WrongUsage

LARGEST_TOKEN_INPUT = 64 * 1024
_FARTHEST_MOMENT = 253_402_300_799.0  # The end of the year 9999.
_LONGEST_WAIT_SECONDS = 8.0  # What the services allow.
# What may be a token or a client secret in a message about wrong arguments.
_SECRET_LIKE = re.compile(r"kt_[a-z]{2}_[^\s']*|[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}[^\s']*|[A-Za-z0-9_-]{40,}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


class Parser(argparse.ArgumentParser):
    """Raises WrongUsage in place of ending the process, and keeps what looks like a secret to itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments."""
        raise WrongUsage(f"{_SECRET_LIKE.sub('(not shown)', message)}; see {self.prog} --help")


def common_options(*, online: bool = True) -> argparse.ArgumentParser:
    """Return the options that every command has; `online` ones also find their issuer and credentials."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--json", action="store_true", help="print one JSON document")
    if online:
        parent.add_argument(
            "--env", type=Path, metavar="FILE", default=None,
            help="KEYTURN_… names that the environment does not set (default: .keyturn/dev.env)",
        )  # fmt: skip
    return parent


def waiting_options(*, reason: bool = True) -> argparse.ArgumentParser:
    """Return the options of commands that return a receipt, with or without one for the record."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--wait", choices=["all", "quorum"],
        help="return when all live verifiers, or more than half of them, have adopted it",
    )  # fmt: skip
    parent.add_argument("--timeout", type=_timeout, metavar="SECONDS", help="how long to wait for them (default: 5)")
    if reason:
        parent.add_argument("--reason", metavar="TEXT", help="why, for the record")
    return parent


def add_token_source(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Take a token from standard input (`-`) or a file; `required` says whether there has to be one."""
    parser.add_argument("token", nargs="?", metavar="-", help="read the token from standard input")
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="read the token from a file")
    parser.set_defaults(token_required=required)


def read_token(args: argparse.Namespace, *, stdin: TextIO | None = None) -> str | None:
    """Return the token that the arguments point at, None where none is asked for; raises WrongUsage."""
    if args.token not in (None, "-"):
        raise WrongUsage("a token does not belong in the arguments, where others can read it: write - and pipe it in, "
                         "or use --token-file")  # fmt: skip
    if args.token and args.token_file:
        raise WrongUsage("choose one of - and --token-file")
    if args.token is None and args.token_file is None:
        if args.token_required:
            raise WrongUsage("no token: write - and pipe it in, or use --token-file FILE")
        return None
    if args.token:
        return _single((stdin or sys.stdin).read(LARGEST_TOKEN_INPUT + 1), source="standard input")
    return token_in(args.token_file)


def token_in(path: Path) -> str:
    """Return the token that a file holds; raises WrongUsage."""
    return _single(_from_file(path), source=str(path))


def _single(text: str, *, source: str) -> str:
    token = text.strip()
    if len(text) > LARGEST_TOKEN_INPUT or not _VISIBLE.fullmatch(token):
        raise WrongUsage(f"{source} holds no single token")
    return token


def _from_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST_TOKEN_INPUT + 1)
    except OSError as error:
        raise WrongUsage(f"{path} cannot be read: {error.strerror}") from error


def waiting_query(args: argparse.Namespace) -> dict[str, str]:
    """Return the query parameters that ask for a receipt; raises WrongUsage for a timeout without a wait."""
    if args.wait is None:
        if args.timeout is not None:
            raise WrongUsage("--timeout goes with --wait")
        return {}
    return {"wait": args.wait} | ({} if args.timeout is None else {"timeout": f"{args.timeout:g}"})


def moment_of(text: str) -> float:
    """Read a moment as an argument says it: Unix seconds, or ISO 8601 with a zone."""
    try:
        moment = float(text)
        if not 0 <= moment <= _FARTHEST_MOMENT:  # Neither is a NaN.
            raise argparse.ArgumentTypeError("is no moment that a calendar has")
    except ValueError:
        pass
    else:
        return moment
    try:
        written = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("is a moment: Unix seconds, or ISO 8601 with a zone") from error
    if written.tzinfo is None:
        raise argparse.ArgumentTypeError("needs a zone: write Z or +01:00 after it")
    return written.timestamp()


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST_WAIT_SECONDS:
        raise argparse.ArgumentTypeError(f"is a number of seconds up to {_LONGEST_WAIT_SECONDS:g}")
    return seconds
