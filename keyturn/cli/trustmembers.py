"""`keyturn trust add-verifier|remove-verifier|rotate-identity`: who takes part, and by which key."""

import argparse

from keyturn.cli.answers import ExitStatus
from keyturn.cli.files import replace_file
from keyturn.cli.processes import verifier_name
from keyturn.cli.provisioning import NewKey, new_user, verifier_rules
from keyturn.cli.trustchanges import identity_replaced, verifier_added, verifier_removed
from keyturn.cli.trustcommand import Groups, add_command, directory_of, say_signed
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
