"""`keyturn trust add-verifier|remove-verifier|rotate-identity|grant`: who takes part, by which key, and with what."""

import argparse

from keyturn.cli.answers import ExitStatus
from keyturn.cli.files import replace_file
from keyturn.cli.processes import verifier_name
from keyturn.cli.provisioning import SIGNATURES, NewKey, new_user, verifier_rules
from keyturn.cli.trustchanges import identity_replaced, signatures_granted, verifier_added, verifier_removed
from keyturn.cli.trustcommand import Groups, add_command, directory_of, say_signed, say_unchanged
from keyturn.clock import SystemClock

_TO_KEYSERVICE = "bring trust.jws to keyservice"
_LOAD = "bring redis/users.acl to the store's server, and have it read: valkey-cli ACL LOAD, as the default user"


def add_commands(commands: Groups) -> None:
    """Add them."""
    add = add_command(commands, "add-verifier", _add, "make a new verifier's identity, and its user of the store")
    remove = add_command(commands, "remove-verifier", _remove, "let a verifier, and its user of the store, go")
    rotate = add_command(commands, "rotate-identity", _rotate, "give a service or verifier another identity key")
    for command in (add, remove, rotate):
        command.add_argument("name", type=verifier_name, metavar="NAME")
    grant = add_command(commands, "grant", _grant, "let services have signed what this version of them makes")
    grant.add_argument(
        "services", nargs="*", type=_signing_service, metavar="SERVICE",
        help=f"{', '.join(SIGNATURES)} (default: each of them)",
    )  # fmt: skip


def _add(args: argparse.Namespace) -> ExitStatus:
    directory, name, now = directory_of(args), args.name, SystemClock().now()
    new = NewKey(directory.path / "identities" / f"{name}.jwk")
    with directory.changing(now) as held:
        document = verifier_added(held.document, name, new.key.public, now=now)
        others = directory.users_but(name, absent=True)
        line, password = new_user(name, verifier_rules(name))
        replace_file(new.path, new.content)
        replace_file(directory.path / "redis" / f"{name}.password", password)
        replace_file(directory.path / "redis" / "users.acl", others + line.encode("ascii"))
        directory.publish(held, document)
    return say_signed(
        args, directory, document, facts={"verifier": name, "kid": new.key.kid},
        then=(
            _TO_KEYSERVICE, _LOAD,
            f"start it with sidecar.verifier = {name}, identities/{name}.jwk, redis/{name}.password and root.jwk",
        ),
    )  # fmt: skip


def _remove(args: argparse.Namespace) -> ExitStatus:
    directory, name, now = directory_of(args), args.name, SystemClock().now()
    with directory.changing(now) as held:
        document = verifier_removed(held.document, name, now=now)
        others = directory.users_but(name)
        directory.publish(held, document)
        replace_file(directory.path / "redis" / "users.acl", others)
        (directory.path / "redis" / f"{name}.password").unlink(missing_ok=True)
        (directory.path / "identities" / f"{name}.jwk").unlink(missing_ok=True)
    return say_signed(
        args, directory, document, facts={"verifier": name},
        then=("stop it first, if it is still in use: its /readyz says 503 from now on", _TO_KEYSERVICE, _LOAD),
    )  # fmt: skip


def _rotate(args: argparse.Namespace) -> ExitStatus:
    directory, name, now = directory_of(args), args.name, SystemClock().now()
    new = NewKey(directory.path / "identities" / f"{name}.jwk")
    with directory.changing(now) as held:
        document = identity_replaced(held.document, name, new.key.public, now=now)
        directory.publish(held, document)
        replace_file(new.path, new.content)
    return say_signed(
        args, directory, document, facts={"identity": name, "kid": new.key.kid},
        then=(
            f"{_TO_KEYSERVICE}, and identities/{name}.jwk to {name}",
            f"restart {name}: between the two steps nobody takes what it signs",
        ),
    )  # fmt: skip


def _grant(args: argparse.Namespace) -> ExitStatus:
    directory, now = directory_of(args), SystemClock().now()
    wanted = {name: SIGNATURES[name] for name in args.services or SIGNATURES}
    with directory.changing(now) as held:
        document, granted = signatures_granted(held.document, wanted, now=now)
        if granted:
            directory.publish(held, document)
    if not granted:
        return say_unchanged(args, directory, held.document, facts={"granted": granted})
    return say_signed(
        args, directory, document, facts={"granted": granted},
        then=(
            _TO_KEYSERVICE,
            "set signer and identity_file in the sections of "
            f"{' and '.join(sorted(granted))}, give each its identities/NAME.jwk and the socket, and restart it",
        ),
    )  # fmt: skip


def _signing_service(text: str) -> str:
    if text not in SIGNATURES:
        raise argparse.ArgumentTypeError(f"is one of {', '.join(SIGNATURES)}")
    return text
