"""`keyturn keys`: see the signing keys, ask for the next one, reject one by name, bring some from elsewhere."""

import argparse
import re
from typing import Any
from urllib.parse import quote

from keyturn.cli.answers import ExitStatus, WrongUsage
from keyturn.cli.arguments import common_options, moment_of, waiting_options, waiting_query
from keyturn.cli.bringing import add_import
from keyturn.cli.ordering import add_idempotency_key, order
from keyturn.cli.receipts import ACCEPTED, show_receipt
from keyturn.cli.session import Session, online
from keyturn.cli.tables import moment, table
from keyturn.contract.keys import Use

_VISIBLE = re.compile(r"[\x21-\x7e]{1,128}")
_COLUMNS = ("kid", "alg", "phase", "use", "published_at", "active_at", "retiring_at", "removed_at")
_REFUSALS = (400, 404, 409)


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `keys list`, `keys rotate`, `keys revoke` and `keys import`."""
    commands = groups.add_parser("keys", help="signing keys: list, rotate, revoke, import").add_subparsers(
        required=True
    )
    listing = commands.add_parser("list", parents=[common_options()], help="show every key and its phase")
    _add_use(listing, "only the keys of one use (default: all)")
    listing.set_defaults(run=online(_list))
    rotate = commands.add_parser("rotate", parents=[common_options(), waiting_options()], help="let the next key sign")
    _add_use(rotate, "what the key signs (default: access, for access tokens)")
    rotate.add_argument("--alg", help="the algorithm to rotate (default: the issuer's choice)")
    rotate.add_argument(
        "--at", type=moment_of, metavar="MOMENT",
        help="not before this moment (Unix seconds, or ISO 8601 with a zone; default: now)",
    )  # fmt: skip
    add_idempotency_key(rotate)
    rotate.set_defaults(run=online(_rotate))
    revoke = commands.add_parser(
        "revoke", parents=[common_options(), waiting_options()],
        help="emergency: reject a key, and all that it signed, by name",
    )  # fmt: skip
    revoke.add_argument("kid")
    add_idempotency_key(revoke)
    revoke.set_defaults(run=online(_revoke))
    add_import(commands)


def _add_use(parser: argparse.ArgumentParser, about: str) -> None:
    parser.add_argument("--use", choices=[use.value for use in Use], help=about)


async def _list(args: argparse.Namespace, session: Session) -> ExitStatus:
    told = (await session.as_admin("GET", "/keys", accept=(200,))).object()
    keys = [key for key in told.get("keys", []) if isinstance(key, dict) and args.use in (None, key.get("use"))]
    told["keys"] = keys
    rows = [[key.get(name) for name in _COLUMNS[:4]] + [moment(key.get(name)) for name in _COLUMNS[4:]] for key in keys]
    titles = [name.removesuffix("_at").upper() for name in _COLUMNS]
    session.printer.answer(told, *table(titles, rows))
    return ExitStatus.YES


async def _rotate(args: argparse.Namespace, session: Session) -> ExitStatus:
    named = (("use", args.use), ("alg", args.alg), ("reason", args.reason), ("at", args.at))
    question = {name: value for name, value in named if value is not None}
    return await _change(args, session, "/keys/rotate", question, "rotated")


async def _revoke(args: argparse.Namespace, session: Session) -> ExitStatus:
    if not _VISIBLE.fullmatch(args.kid) or args.kid in (".", ".."):
        raise WrongUsage("a kid has up to 128 visible ASCII characters; keyturn keys list shows them")
    question = {"reason": args.reason} if args.reason else {}
    return await _change(args, session, f"/keys/{quote(args.kid, safe='')}/revoke", question, f"revoked key {args.kid}")


async def _change(
    args: argparse.Namespace, session: Session, path: str, question: dict[str, Any], done: str
) -> ExitStatus:
    query = waiting_query(args)
    answer = await order(session, path, args, query=query, json=question, accept=(*ACCEPTED, *_REFUSALS))
    if answer.status not in ACCEPTED:
        session.printer.answer(answer.object(), f"not done: {answer.problem}")
        return ExitStatus.NO
    ordered_for = getattr(args, "at", None)
    return show_receipt(session.printer, answer, done, waited=bool(query), ordered_for=ordered_for)
