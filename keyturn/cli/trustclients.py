"""`keyturn trust client-keys`: the keys by which a client signs its assertions (private_key_jwt, RFC 7523)."""

import argparse
from pathlib import Path

from keyturn.cli.answers import ExitStatus, WrongUsage
from keyturn.cli.bringing import read_file
from keyturn.cli.trustchanges import client_keys_set
from keyturn.cli.trustcommand import Groups, add_command, directory_of, say_signed
from keyturn.clock import SystemClock
from keyturn.contract.errors import MalformedInput
from keyturn.contract.foreign import read_keys


def add_commands(commands: Groups) -> None:
    """Add it."""
    command = add_command(commands, "client-keys", _set, "say by which public keys a client signs its assertions")
    command.add_argument("client", metavar="CLIENT", help="the client's id")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--keys", type=Path, metavar="FILE", help="PEM, a JWK or a JWK set; in place of those before")
    which.add_argument("--none", action="store_true", help="take its keys away")
    command.add_argument("--alg", help="what a key that names no algorithm is for (default for RSA: RS256)")


def _set(args: argparse.Namespace) -> ExitStatus:
    directory, now = directory_of(args), SystemClock().now()
    keys = [] if args.none else _public_keys(args.keys, alg=args.alg)
    with directory.changing(now) as held:
        document = client_keys_set(held.document, args.client, keys, now=now)
        directory.publish(held, document)
    return say_signed(
        args, directory, document, facts={"client": args.client, "kids": [key["kid"] for key in keys]},
        then=("bring trust.jws to keyservice: every process has it within seconds",),
    )  # fmt: skip


def _public_keys(path: Path, *, alg: str | None) -> list[dict[str, str]]:
    try:
        keys, _ = read_keys(read_file(path), alg=alg)
    except MalformedInput as error:
        raise WrongUsage(f"{path}: {error}") from error
    if any(key.private is not None for key in keys):
        raise WrongUsage(f"{path} holds a private key, which is the client's alone: bring the public one")
    return [{**key.jwk, "kid": key.kid, "alg": key.alg} for key in keys]
