"""`keyturn verify` and `keyturn introspect`: what a sidecar and the issuer say of a token."""

import argparse
import re
from typing import Any

from keyturn.cli.answers import ExitStatus, WrongUsage
from keyturn.cli.arguments import add_token_source, common_options, read_token
from keyturn.cli.environment import Role
from keyturn.cli.origin import Answer, basic, bearer, origin
from keyturn.cli.session import Session, online
from keyturn.cli.tables import facts_table, moment, plain

_POLICY = re.compile(r"[a-z0-9_-]{1,64}")
_IDENTITY = {
    "subject": "X-Auth-Subject",
    "client": "X-Auth-Client",
    "scope": "X-Auth-Scope",
    "issuer": "X-Auth-Issuer",
    "token_id": "X-Auth-Token-Id",
    "state": "X-Auth-State",
}
_JSON, _JWT = "application/json", "application/jwt"
_ALLOWED, _DENIED = 200, (401, 403)


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `verify` and `introspect`."""
    verify = groups.add_parser("verify", parents=[common_options()], help="ask a sidecar whether a token passes")
    add_token_source(verify)
    verify.add_argument("--policy", default="default", help="the policy to ask under (default: default)")
    verify.set_defaults(run=online(_verify))
    introspect = groups.add_parser(
        "introspect", parents=[common_options()], help="ask the issuer about a token as a resource server (RFC 7662)"
    )
    add_token_source(introspect)
    introspect.add_argument(
        "--jwt", action="store_true", help="print a JWT in its place, as a gateway gets one for the API behind it"
    )
    introspect.set_defaults(run=online(_introspect))


async def _verify(args: argparse.Namespace, session: Session) -> ExitStatus:
    if not _POLICY.fullmatch(args.policy):
        raise WrongUsage("a policy's name is made of a-z, 0-9, _ and -, 64 at most")
    token = read_token(args) or ""
    async with origin(session.environment.sidecar) as sidecar:
        answer = await sidecar.ask(
            "GET", f"/nginx/{args.policy}", authorization=bearer(token), accept=(_ALLOWED, *_DENIED)
        )
    if answer.status == _ALLOWED:
        identity = {name: answer.headers.get(header, "") for name, header in _IDENTITY.items()}
        session.printer.answer({"active": True} | identity, "active", *facts_table(identity))
        return ExitStatus.YES
    reason = _objection(answer)
    session.printer.answer({"active": False, "status": answer.status, "reason": reason}, f"refused: {reason}")
    return ExitStatus.NO


def _objection(answer: Answer) -> str:
    """Return what the RFC 6750 challenge says, else the status."""
    challenge = answer.headers.get("WWW-Authenticate", "")
    said = dict(re.findall(r'(error|error_description)="([^"]*)"', challenge))
    words = ": ".join(said[name] for name in ("error", "error_description") if name in said)
    return plain(words or f"status {answer.status}")


async def _introspect(args: argparse.Namespace, session: Session) -> ExitStatus:
    token = read_token(args) or ""
    credentials = session.environment.credentials(Role.RESOURCE)
    async with session.issuer() as issuer:
        answer = await issuer.ask(
            "POST", "/introspect", form={"token": token}, authorization=basic(credentials),
            media_type=_JWT if args.jwt else _JSON, accept=(200,),
        )  # fmt: skip
    if args.jwt and isinstance(answer.body, str):
        session.printer.answer({"active": True, "jwt": answer.body}, answer.body)
        return ExitStatus.YES
    told = answer.object()
    if told.get("active") is not True:
        session.printer.answer({"active": False}, "inactive")
        return ExitStatus.NO
    shown = {name: moment(value) if name in ("exp", "iat", "nbf") else value for name, value in told.items()}
    del shown["active"]
    session.printer.answer(told, "active", *facts_table(shown))
    return ExitStatus.YES
