"""`keyturn token`: get one, turn one, or look into one without believing it."""

import argparse
from pathlib import Path
from typing import Any

from keyturn.cli.answers import CannotTell, ExitStatus, WrongUsage
from keyturn.cli.arguments import add_token_source, common_options, read_token, token_in
from keyturn.cli.environment import Role
from keyturn.cli.files import alone_in, replace_file
from keyturn.cli.origin import get_token, granted, refreshed
from keyturn.cli.session import Session, online
from keyturn.cli.signingin import SignIn, sign_in
from keyturn.cli.tables import Printer, facts_table, moment
from keyturn.contract.credentials import CredentialKind, credential_kind
from keyturn.contract.encoding import decode_object, unb64url
from keyturn.contract.errors import MalformedInput

_MOMENTS = ("iat", "nbf", "exp", "auth_time")
_JWS_PARTS = 3


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `token get`, `token refresh` and `token inspect`."""
    commands = groups.add_parser("token", help="get a token, or look into one").add_subparsers(required=True)
    get = commands.add_parser("get", parents=[common_options()], help="get an access token and print it")
    who = get.add_mutually_exclusive_group()
    who.add_argument(
        "--as", dest="role", choices=["client", "admin", "signin"], default="client",
        help="whose client credentials to get it by (default: client)",
    )  # fmt: skip
    who.add_argument(
        "--sign-in", action="store_true", help="get it for a person, who signs in by a link that is printed"
    )
    get.add_argument(
        "--refresh-token-file", type=Path, metavar="FILE",
        help="with --sign-in: where to write the refresh token, mode 600",
    )  # fmt: skip
    refresh = commands.add_parser(
        "refresh", parents=[common_options()], help="turn a refresh token: print the access token, keep the next one"
    )
    refresh.add_argument(
        "--token-file", type=Path, required=True, metavar="FILE",
        help="what token get --refresh-token-file wrote; the next one takes its place",
    )  # fmt: skip
    for command, run in ((get, _get), (refresh, _refresh)):
        command.add_argument("--scope", help="scopes, separated by spaces (default: all)")
        command.add_argument("--resource", metavar="URL", help="the API that it is for (RFC 8707)")
        command.add_argument("--format", choices=["jwt", "opaque"], help="the kind of token (default: the client's)")
        command.set_defaults(run=online(run))
    inspect = commands.add_parser(
        "inspect", parents=[common_options(online=False)], help="decode a token here, WITHOUT verifying it"
    )
    add_token_source(inspect)
    inspect.set_defaults(run=_inspect)


async def _get(args: argparse.Namespace, session: Session) -> ExitStatus:
    """Print the token alone, so that it can be piped on."""
    if args.sign_in:
        return await _sign_in(args, session)
    if args.refresh_token_file is not None:
        raise WrongUsage("--refresh-token-file goes with --sign-in: client credentials have no refresh token")
    credentials = session.environment.credentials(Role(args.role.upper()))
    async with session.issuer() as issuer:
        told = await get_token(issuer, credentials, **_asked(args, "scope", "resource", "token_format"))
    session.printer.answer(told, told["access_token"])
    return ExitStatus.YES


async def _sign_in(args: argparse.Namespace, session: Session) -> ExitStatus:
    """Print the link on standard error and the token on standard output; the refresh token goes into its file alone."""
    environment, file = session.environment, args.refresh_token_file
    attempt = SignIn.begin(environment.issuer, environment.require("KEYTURN_APP_ID"), _asked(args, "scope", "resource"))
    async with session.issuer() as issuer:
        told = await sign_in(issuer, attempt, session.printer, more=_asked(args, "token_format"))
    if file is not None:
        _keep(file, told.pop("refresh_token", None))
    session.printer.answer(told, told["access_token"])
    return ExitStatus.YES


async def _refresh(args: argparse.Namespace, session: Session) -> ExitStatus:
    """Turn the token that a file holds; 1 if the issuer takes it no more. One command at a time works on a file."""
    file, client_id = args.token_file.absolute(), session.environment.require("KEYTURN_APP_ID")
    asked = _asked(args, "scope", "resource", "token_format")
    with alone_in(file.parent):
        token = token_in(file)
        async with session.issuer() as issuer:
            answer = await refreshed(issuer, client_id, token, **asked)
        if answer.status == 400 and answer.object().get("error") == "invalid_grant":  # noqa: PLR2004 - HTTP
            session.printer.answer(answer.body, f"not refreshed: {answer.problem}; sign in again")
            return ExitStatus.NO
        told = granted(answer)
        if "refresh_token" in told:  # On the disk before anybody hears of the access token.
            _keep(file, told.pop("refresh_token"))
    session.printer.answer(told, told["access_token"])
    return ExitStatus.YES


def _asked(args: argparse.Namespace, *names: str) -> dict[str, str]:
    asked = {"scope": args.scope, "resource": args.resource, "token_format": args.format}
    return {name: asked[name] for name in names if asked[name]}


def _keep(file: Path, token: object) -> None:
    if not isinstance(token, str) or credential_kind(token) is not CredentialKind.REFRESH:
        raise CannotTell("the issuer gave no refresh token: the client may not use one")
    replace_file(file, token.encode("ascii") + b"\n")


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
