"""What the commands of `trust` share: their options, their directory, and how they say what they signed."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from keyturn.cli.answers import ExitStatus, WrongUsage
from keyturn.cli.arguments import common_options
from keyturn.cli.environment import Environment
from keyturn.cli.tables import Printer, moment
from keyturn.cli.trustdir import TrustDirectory
from keyturn.contract.trust import TrustDocument

DEFAULT_DIRECTORY = Path(".keyturn")
Groups: TypeAlias = "argparse._SubParsersAction[Any]"
Run: TypeAlias = Callable[[argparse.Namespace], ExitStatus]


def add_command(commands: Groups, name: str, run: Run, about: str, *, signs: bool = True) -> argparse.ArgumentParser:
    """Add a command that works on the directory; those that sign need the root's private key."""
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


def directory_of(args: argparse.Namespace) -> TrustDirectory:
    """Return the directory that the arguments or the environment name; raises WrongUsage."""
    named: Path | None = args.dir
    if named is None:
        root = Environment.read(None).get("KEYTURN_ROOT")
        named = Path(root).parent if root else DEFAULT_DIRECTORY
    if not named.is_dir():
        raise WrongUsage(f"{named} is no directory: name the one that keyturn init made by --dir")
    return TrustDirectory(named, root_key=getattr(args, "root_key", None))


def say_signed(
    args: argparse.Namespace,
    directory: TrustDirectory,
    document: TrustDocument,
    *,
    facts: dict[str, Any] | None = None,
    then: Sequence[str] = (),
) -> ExitStatus:
    """Tell of the new version, where the one before it is, and what is to be done `then`."""
    told = {"version": document.version, "expires_at": document.expires_at, "document": str(directory.document)}
    Printer(as_json=args.json).answer(
        {**told, **(facts or {}), "then": list(then)},
        f"{directory.document}: version {document.version}, until {moment(document.expires_at)}",
        f"the one before is trust-{document.version - 1}.jws beside it",
        *(f"{number}. {step}" for number, step in enumerate(then, start=1)),
    )
    return ExitStatus.YES


def say_unchanged(
    args: argparse.Namespace, directory: TrustDirectory, document: TrustDocument, *, facts: dict[str, Any]
) -> ExitStatus:
    """Tell that the document says it all already, and that no version was signed."""
    told = {"version": document.version, "expires_at": document.expires_at, "document": str(directory.document)}
    Printer(as_json=args.json).answer(
        {**told, **facts, "then": []}, f"{directory.document}: version {document.version} says so already"
    )
    return ExitStatus.YES
