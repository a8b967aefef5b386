"""`keyturn revoke`: end a token as its client, or end what a selector names as an administrator."""

import argparse
from typing import Any

from keyturn.cli.answers import ExitStatus, WrongUsage
from keyturn.cli.arguments import (
    add_token_source,
    common_options,
    moment_of,
    read_token,
    waiting_options,
    waiting_query,
)
from keyturn.cli.bulk import add_bulk, revoke_list
from keyturn.cli.environment import Role
from keyturn.cli.ordering import add_idempotency_key, order
from keyturn.cli.origin import Answer, basic
from keyturn.cli.receipts import ACCEPTED, show_receipt
from keyturn.cli.session import Session, online
from keyturn.cli.tables import facts_table

_NAMES = {
    "jti": "one token",
    "grant_id": "a sign-in and all that came of it",
    "sid": "a session",
    "sub": "a subject's grants",
    "client_id": "a client's grants",
    "aud": "an audience's grants",
}


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `revoke`."""
    revoke = groups.add_parser(
        "revoke", parents=[common_options(), waiting_options()],
        help="revoke a token (-), or what a selector names (--sub, --jti, …)",
    )  # fmt: skip
    add_token_source(revoke, required=False)
    selector = revoke.add_argument_group("selectors (one of them; as administrator)")
    for member, what in _NAMES.items():
        selector.add_argument(f"--{member.replace('_', '-')}", dest=member, metavar="ID", help=what)
    selector.add_argument(
        "--before", type=moment_of, metavar="MOMENT",
        help="only grants from before this moment (Unix seconds, or ISO 8601 with a zone; default: now)",
    )  # fmt: skip
    selector.add_argument("--iss", metavar="URL", help="whose tokens, if they are another issuer's that is known here")
    revoke.add_argument("--dry-run", action="store_true", help="say what it would revoke, and revoke nothing")
    add_idempotency_key(revoke)
    add_bulk(revoke)
    revoke.set_defaults(run=online(_revoke))


async def _revoke(args: argparse.Namespace, session: Session) -> ExitStatus:
    if args.bulk is not None:
        return await revoke_list(args, session)
    if args.from_line is not None or args.skip_bad:
        raise WrongUsage("--from-line and --skip-bad go with --bulk")
    token, selector = read_token(args), _selector(args)
    if (token is None) == (selector is None):
        raise WrongUsage(
            "revoke one thing: a token (- or --token-file), one selector such as --sub, or a list (--bulk)"
        )
    if token is not None:
        return await _revoke_token(args, session, token)
    return await _revoke_selected(args, session, selector or {})


async def _revoke_token(args: argparse.Namespace, session: Session, token: str) -> ExitStatus:
    if args.reason or args.dry_run or args.idempotency_key:
        raise WrongUsage("--reason, --dry-run and --idempotency-key go with a selector")
    credentials, query = session.environment.credentials(Role.CLIENT), waiting_query(args)
    async with session.issuer() as issuer:
        answer = await issuer.ask(
            "POST", "/revoke", query=query, form={"token": token}, authorization=basic(credentials),
            accept=(*ACCEPTED, 400),
        )  # fmt: skip
    if answer.status not in ACCEPTED:
        return _refused(session, answer)
    if not query:
        session.printer.answer({"revoked": True}, "revoked (or nothing that could still be used)")
        return ExitStatus.YES
    return show_receipt(session.printer, answer, "revoked", waited=True)


async def _revoke_selected(args: argparse.Namespace, session: Session, selector: dict[str, Any]) -> ExitStatus:
    question: dict[str, Any] = {"selector": selector}
    if args.reason:
        question["reason"] = args.reason
    if args.dry_run:
        question["dry_run"] = True
    query = waiting_query(args)
    answer = await order(session, "/revocations", args, query=query, json=question, accept=(*ACCEPTED, 400, 422))
    if answer.status not in ACCEPTED:
        return _refused(session, answer)
    if args.dry_run:
        session.printer.answer(answer.object(), "nothing was revoked; this would be:", *facts_table(answer.object()))
        return ExitStatus.YES
    return show_receipt(session.printer, answer, "revoked", waited=bool(query))


def _refused(session: Session, answer: Answer) -> ExitStatus:
    session.printer.answer(answer.object(), f"not revoked: {answer.problem}")
    return ExitStatus.NO


def _selector(args: argparse.Namespace) -> dict[str, Any] | None:
    members: dict[str, Any] = {name: getattr(args, name) for name in _NAMES if getattr(args, name) is not None}
    if args.before is not None:
        members["before"] = args.before
    if args.iss is not None:
        members["iss"] = args.iss
    return members or None
