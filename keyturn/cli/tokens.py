"""`keyturn token`: get one, or look into one without believing it."""

import argparse
from typing import Any

from keyturn.cli.answers import ExitStatus
from keyturn.cli.arguments import add_token_source, common_options, read_token
from keyturn.cli.environment import Role
from keyturn.cli.origin import get_token
from keyturn.cli.session import Session, online
from keyturn.cli.tables import Printer, facts_table, moment
from keyturn.contract.credentials import credential_kind
from keyturn.contract.encoding import decode_object, unb64url
from keyturn.contract.errors import MalformedInput

_MOMENTS = ("iat", "nbf", "exp", "auth_time")
_JWS_PARTS = 3


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `token get` and `token inspect`."""
    commands = groups.add_parser("token", help="get a token, or look into one").add_subparsers(required=True)
    get = commands.add_parser(
        "get", parents=[common_options()], help="get an access token by client credentials and print it"
    )
    get.add_argument("--as", dest="role", choices=["client", "admin"], default="client", help="whose credentials")
    get.add_argument("--scope", help="scopes, separated by spaces (default: all of the client's)")
    get.add_argument("--resource", metavar="URL", help="the API that it is for (RFC 8707)")
    get.add_argument("--format", choices=["jwt", "opaque"], help="the kind of token (default: the client's)")
    get.set_defaults(run=online(_get))
    inspect = commands.add_parser(
        "inspect", parents=[common_options(online=False)], help="decode a token here, WITHOUT verifying it"
    )
    add_token_source(inspect)
    inspect.set_defaults(run=_inspect)


async def _get(args: argparse.Namespace, session: Session) -> ExitStatus:
    """Print the token alone, so that it can be piped on."""
    asked = {"scope": args.scope, "resource": args.resource, "token_format": args.format}
    credentials = session.environment.credentials(Role(args.role.upper()))
    async with session.issuer() as issuer:
        told = await get_token(issuer, credentials, **{name: value for name, value in asked.items() if value})
    session.printer.answer(told, told["access_token"])
    return ExitStatus.YES


def _inspect(args: argparse.Namespace) -> ExitStatus:
    token, printer = read_token(args) or "", Printer(as_json=args.json)
    kind = credential_kind(token)
    if kind is not None:
        said = f"an opaque credential ({kind.name.lower().replace('_', ' ')}); only its issuer knows more"
        printer.answer({"verified": False, "format": "opaque", "kind": kind.name.lower()}, "NOT VERIFIED", said)
        return ExitStatus.YES
    try:
        header, claims = _decode(token)
    except MalformedInput as error:
        printer.answer({"verified": False, "format": None, "reason": str(error)}, f"not a token: {error}")
        return ExitStatus.NO
    shown = {name: f"{value} ({moment(value)})" if name in _MOMENTS else value for name, value in claims.items()}
    printer.answer(
        {"verified": False, "format": "jwt", "header": header, "claims": claims},
        "NOT VERIFIED: decoded here, believe nothing of it (keyturn verify asks a verifier)",
        "",
        *facts_table(header),
        "",
        *facts_table(shown),
    )
    return ExitStatus.YES


def _decode(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    parts = token.split(".")
    if len(parts) != _JWS_PARTS:
        raise MalformedInput("neither a compact JWS nor a credential of ours")
    return decode_object(unb64url(parts[0])), decode_object(unb64url(parts[1]))
