"""`keyturn keys`: see the signing keys, ask for the next one, reject one by name."""

import argparse
import re
from typing import Any

from keyturn.cli.answers import ExitStatus, WrongUsage
from keyturn.cli.arguments import common_options, waiting_options, waiting_query
from keyturn.cli.receipts import ACCEPTED, show_receipt
from keyturn.cli.session import Session, online
from keyturn.cli.tables import moment, table

_KID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_COLUMNS = ("kid", "alg", "phase", "published_at", "active_at", "retiring_at", "removed_at")
_REFUSALS = (400, 404, 409)


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `keys list`, `keys rotate` and `keys revoke`."""
    commands = groups.add_parser("keys", help="signing keys: list, rotate, revoke").add_subparsers(required=True)
    listing = commands.add_parser("list", parents=[common_options()], help="show every key and its phase")
    listing.set_defaults(run=online(_list))
    rotate = commands.add_parser("rotate", parents=[common_options(), waiting_options()], help="let the next key sign")
    rotate.add_argument("--alg", help="the algorithm to rotate (default: the issuer's choice)")
    rotate.set_defaults(run=online(_rotate))
    revoke = commands.add_parser(
        "revoke", parents=[common_options(), waiting_options()],
        help="emergency: reject a key, and all that it signed, by name",
    )  # fmt: skip
    revoke.add_argument("kid")
    revoke.set_defaults(run=online(_revoke))


async def _list(args: argparse.Namespace, session: Session) -> ExitStatus:  # noqa: ARG001 - every command takes them
    told = (await session.as_admin("GET", "/keys", accept=(200,))).object()
    keys = [key for key in told.get("keys", []) if isinstance(key, dict)]
    rows = [[key.get(name) for name in _COLUMNS[:3]] + [moment(key.get(name)) for name in _COLUMNS[3:]] for key in keys]
    titles = [name.removesuffix("_at").upper() for name in _COLUMNS]
    session.printer.answer(told, *table(titles, rows))
    return ExitStatus.YES


async def _rotate(args: argparse.Namespace, session: Session) -> ExitStatus:
    question = {name: value for name, value in (("alg", args.alg), ("reason", args.reason)) if value}
    return await _change(args, session, "/keys/rotate", question, "rotated")


async def _revoke(args: argparse.Namespace, session: Session) -> ExitStatus:
    if not _KID.fullmatch(args.kid):
        raise WrongUsage("a kid is made of letters, digits, _ and -; keyturn keys list shows them")
    question = {"reason": args.reason} if args.reason else {}
    return await _change(args, session, f"/keys/{args.kid}/revoke", question, f"revoked key {args.kid}")


async def _change(
    args: argparse.Namespace, session: Session, path: str, question: dict[str, Any], done: str
) -> ExitStatus:
    query = waiting_query(args)
    answer = await session.as_admin("POST", path, query=query, json=question, accept=(*ACCEPTED, *_REFUSALS))
    if answer.status not in ACCEPTED:
        session.printer.answer(answer.object(), f"not done: {answer.problem}")
        return ExitStatus.NO
    return show_receipt(session.printer, answer, done)
