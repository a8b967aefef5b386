"""`keyturn feed tail` and `keyturn feed verify`: what the lanes say, held against the root that is pinned here."""

import argparse
from pathlib import Path
from typing import Any

from keyturn.cli.arguments import common_options
from keyturn.cli.pinning import ROOT_VARIABLE
from keyturn.cli.session import online
from keyturn.cli.tailing import tail as tail_lanes
from keyturn.cli.verifying import verify as verify_files
from keyturn.contract.positions import Lane


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `feed tail` and `feed verify`."""
    commands = groups.add_parser("feed", help="the signed feed: tail, verify").add_subparsers(required=True)
    tail = commands.add_parser("tail", parents=[common_options()], help="show the events of the feed, each verified")
    tail.add_argument("lane", nargs="?", type=_lane, metavar="LANE", help="keys or revocations (default: both)")
    tail.add_argument("--after", type=_sequence, metavar="SEQ", help="begin after this sequence of LANE")
    tail.add_argument("--epoch", type=_sequence, metavar="E", help="of this epoch of LANE (default: the running one)")
    tail.add_argument("--follow", action="store_true", help="go on as events come, until interrupted")
    _add_trust(tail)
    tail.set_defaults(run=online(tail_lanes))
    verify = commands.add_parser(
        "verify", parents=[common_options()], help="check a dump or archive of the feed, without any server"
    )
    verify.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="dumps, archived segments, genesis/LANE.jws"
    )
    _add_trust(verify)
    verify.set_defaults(run=online(verify_files))


def _add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, metavar="FILE", help=f"the root to pin (default: {ROOT_VARIABLE})")
    parser.add_argument(
        "--trust", type=Path, action="append", metavar="FILE",
        help="a trust document, signed by that root; older ones may be given beside the newest",
    )  # fmt: skip


def _lane(text: str) -> Lane:
    try:
        return Lane(text)
    except ValueError:
        raise argparse.ArgumentTypeError("is keys or revocations") from None


def _sequence(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:  # noqa: PLR2004 - digits of a 63-bit number
        raise argparse.ArgumentTypeError("is a sequence: 0 or more")
    return int(text)
