"""`keyturn trust add-client|remove-client|client-keys|client-redirects`: the clients that the root vouches for."""

import argparse
import re
from pathlib import Path

from keyturn.cli.answers import ExitStatus, WrongUsage
from keyturn.cli.bringing import read_file
from keyturn.cli.files import replace_file
from keyturn.cli.newclients import GRANTS, NewClient, new_secret
from keyturn.cli.trustchanges import client_added, client_keys_set, client_redirects_set, client_removed
from keyturn.cli.trustcommand import Groups, add_command, directory_of, say_signed
from keyturn.clock import SystemClock
from keyturn.contract.errors import MalformedInput
from keyturn.contract.foreign import read_keys
from keyturn.contract.trust import OPERATING_SCOPES

_TO_KEYSERVICE = "bring trust.jws to keyservice: every process has it within seconds"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SCOPES = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749, 3.3.


def add_commands(commands: Groups) -> None:
    """Add them."""
    add = add_command(commands, "add-client", _add, "make a new client, and a secret for it")
    add.add_argument("client", type=_client_name, metavar="CLIENT", help="the id that it gets")
    add.add_argument("--public", action="store_true", help="an app that can keep no secret: it signs users in")
    add.add_argument("--grant", action="append", choices=GRANTS, default=[], help="may stand several times")
    add.add_argument("--scope", action="append", type=_scope, default=[], metavar="SCOPE", help="likewise")
    add.add_argument("--audience", action="append", default=[], metavar="URL", help="likewise; the first is the usual")
    add.add_argument(
        "--redirect", action="append", default=[], metavar="URI", help="likewise: where users come back to"
    )
    add.add_argument("--may-introspect", action="store_true", help="a resource server, for its audiences")
    remove = add_command(commands, "remove-client", _remove, "let a client, and its secret, go")
    keys = add_command(commands, "client-keys", _set_keys, "say by which public keys a client signs its assertions")
    redirects = add_command(commands, "client-redirects", _set_redirects, "say where a client's users are sent back to")
    for command in (remove, keys, redirects):
        command.add_argument("client", metavar="CLIENT", help="the client's id")
    which = keys.add_mutually_exclusive_group(required=True)
    which.add_argument("--keys", type=Path, metavar="FILE", help="PEM, a JWK or a JWK set; in place of those before")
    which.add_argument("--none", action="store_true", help="take its keys away")
    keys.add_argument("--alg", help="what a key that names no algorithm is for (default for RSA: RS256)")
    redirects.add_argument(
        "--redirect", action="append", required=True, metavar="URI",
        help="may stand several times; in place of those before",
    )  # fmt: skip


def _add(args: argparse.Namespace) -> ExitStatus:
    directory, now, secret = directory_of(args), SystemClock().now(), new_secret()
    new = NewClient(
        client_id=args.client, grant_types=tuple(dict.fromkeys(args.grant)), scopes=tuple(dict.fromkeys(args.scope)),
        audiences=tuple(dict.fromkeys(args.audience)), redirects=tuple(dict.fromkeys(args.redirect)),
        public=args.public, always_opaque=not OPERATING_SCOPES.isdisjoint(args.scope),
        may_introspect=args.may_introspect,
    )  # fmt: skip
    path = directory.path / "clients" / f"{new.client_id}.secret"
    with directory.changing(now) as held:
        document = client_added(held.document, new, secret, now=now)
        if not new.public:
            replace_file(path, secret.encode("ascii"))
        directory.publish(held, document)
    steps = () if new.public else (f"give the client clients/{path.name}",)
    facts = {"client": new.client_id, "secret_file": None if new.public else str(path)}
    return say_signed(args, directory, document, facts=facts, then=(_TO_KEYSERVICE, *steps))


def _remove(args: argparse.Namespace) -> ExitStatus:
    directory, now = directory_of(args), SystemClock().now()
    with directory.changing(now) as held:
        document = client_removed(held.document, args.client, now=now)
        directory.publish(held, document)
        if _NAME.fullmatch(args.client):
            (directory.path / "clients" / f"{args.client}.secret").unlink(missing_ok=True)
    return say_signed(
        args, directory, document, facts={"client": args.client},
        then=(_TO_KEYSERVICE, f"end its tokens: keyturn revoke --client {args.client}"),
    )  # fmt: skip


def _set_keys(args: argparse.Namespace) -> ExitStatus:
    directory, now = directory_of(args), SystemClock().now()
    keys = [] if args.none else _public_keys(args.keys, alg=args.alg)
    with directory.changing(now) as held:
        document = client_keys_set(held.document, args.client, keys, now=now)
        directory.publish(held, document)
    facts = {"client": args.client, "kids": [key["kid"] for key in keys]}
    return say_signed(args, directory, document, facts=facts, then=(_TO_KEYSERVICE,))


def _set_redirects(args: argparse.Namespace) -> ExitStatus:
    directory, now = directory_of(args), SystemClock().now()
    uris = tuple(dict.fromkeys(args.redirect))
    with directory.changing(now) as held:
        document = client_redirects_set(held.document, args.client, uris, now=now)
        directory.publish(held, document)
    facts = {"client": args.client, "redirects": list(uris)}
    return say_signed(args, directory, document, facts=facts, then=(_TO_KEYSERVICE,))


def _public_keys(path: Path, *, alg: str | None) -> list[dict[str, str]]:
    try:
        keys, _ = read_keys(read_file(path), alg=alg)
    except MalformedInput as error:
        raise WrongUsage(f"{path}: {error}") from error
    if any(key.private is not None for key in keys):
        raise WrongUsage(f"{path} holds a private key, which is the client's alone: bring the public one")
    return [{**key.jwk, "kid": key.kid, "alg": key.alg} for key in keys]


def _client_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("is made of letters, digits, '.', '_' and '-', 63 at most")
    return text


def _scope(text: str) -> str:
    if not _SCOPES.fullmatch(text):
        raise argparse.ArgumentTypeError("is one word (RFC 6749, 3.3); name several by several --scope")
    return text
