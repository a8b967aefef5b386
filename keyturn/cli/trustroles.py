"""`keyturn trust rotate-role|revoke-role|rotate-root`: other keys for those who sign the feed, and for the root."""

import argparse
from pathlib import Path

from keyturn.cli.answers import ExitStatus
from keyturn.cli.files import replace_file
from keyturn.cli.provisioning import NewKey, signed_genesis
from keyturn.cli.trustchanges import handed_over, role_added, role_revoked, role_settled
from keyturn.cli.trustcommand import Groups, add_command, directory_of, say_signed
from keyturn.clock import SystemClock
from keyturn.contract.positions import Lane

SETTLED_SECONDS = 60
"""How long to wait for the last of a fleet after all that can be seen is done."""
_PUBLISHERS = {Lane.KEYS: "every keyservice and worker", Lane.REVOCATIONS: "every revocation service"}
_LARGEST_EPOCH = 2**53 - 1
_GONE = {
    Lane.KEYS: "all signing keys are gone, and with them every JWT: keyservice makes new keys, clients get new tokens",
    Lane.REVOCATIONS: "all revocations are gone: end every older token by keyturn revoke --before, or revoke again "
    "what still matters",
}


def add_commands(commands: Groups) -> None:
    """Add them."""
    rotate = add_command(commands, "rotate-role", _rotate_role, "give a lane's role another key, in two steps")
    rotate.add_argument(
        "--finish", action="store_true", help="the second step: take the role from the key before the newest"
    )
    revoke = add_command(commands, "revoke-role", _revoke_role, "a role's key was stolen: drop all that it ever signed")
    revoke.add_argument(
        "--epoch", type=_epoch, metavar="N", help="the lowest that counts from now on (default: one more than now)"
    )
    for command in (rotate, revoke):
        command.add_argument("lane", type=Lane, choices=list(Lane), metavar="LANE", help="keys or revocations")
    add_command(commands, "rotate-root", _rotate_root, "let the root hand over to a new one")


def _rotate_role(args: argparse.Namespace) -> ExitStatus:
    directory, lane, now = directory_of(args), args.lane, SystemClock().now()
    path = directory.path / "roles" / f"{lane}.jwk"
    with directory.changing(now) as held:
        if args.finish:
            document = role_settled(held.document, lane, directory.public_of(path), now=now)
            directory.publish(held, document)
            _older(path).unlink(missing_ok=True)
            return say_signed(args, directory, document)
        new = NewKey(path)
        document = role_added(held.document, lane, new.key.public, now=now)
        before = directory.secret_of(path)
        directory.publish(held, document)
        replace_file(_older(path), before)
        replace_file(path, new.content)
    return say_signed(
        args, directory, document, facts={"kid": new.key.kid},
        then=(
            f"bring trust.jws to keyservice, roles/{path.name} to {_PUBLISHERS[lane]}: they take both while they run",
            f"wait until each has logged role_key_taken, and every verifier says trust_version {document.version}",
            f"{SETTLED_SECONDS} s later: keyturn trust rotate-role {lane} --finish",
        ),
    )  # fmt: skip


def _revoke_role(args: argparse.Namespace) -> ExitStatus:
    directory, lane, now = directory_of(args), args.lane, SystemClock().now()
    path = directory.path / "roles" / f"{lane}.jwk"
    with directory.changing(now) as held:
        new = NewKey(path)
        document = role_revoked(held.document, lane, new.key.public, epoch=args.epoch, now=now)
        epoch = document.lowest_epoch[lane.value]
        genesis = signed_genesis(lane, new.key, epoch=epoch, trust=document.version, now=now)
        directory.publish(held, document)
        replace_file(path, new.content)
        replace_file(directory.path / "genesis" / f"{lane}.jws", genesis, private=False)
        _older(path).unlink(missing_ok=True)
    return say_signed(
        args, directory, document, facts={"kid": new.key.kid, "lowest_epoch": epoch},
        then=(
            "bring trust.jws to keyservice: within seconds nobody believes the stolen key any more",
            f"bring roles/{path.name} and genesis/{lane}.jws to {_PUBLISHERS[lane]}: epoch {epoch} begins",
            _GONE[lane],
        ),
    )  # fmt: skip


def _rotate_root(args: argparse.Namespace) -> ExitStatus:
    directory, now = directory_of(args), SystemClock().now()
    with directory.changing(now) as held:
        document = handed_over(held.document, now=now)
        new = directory.hand_over(held, document, now=now)
    return say_signed(
        args, directory, document, facts={"root": new.key.kid},
        then=(
            f"bring trust.jws to keyservice; wait until every process says trust_version {document.version}",
            "bring root.jwk to every process, and restart it when it suits: until then it walks from the old root",
            f"destroy {directory.old_root(held.version).name}, the old private root, and take the new one back offline",
        ),
    )  # fmt: skip


def _older(path: Path) -> Path:
    """Return where the key before the newest is kept until a rotation is finished."""
    return path.with_name(f"{path.stem}.old.jwk")


def _epoch(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 < int(text) <= _LARGEST_EPOCH:
        raise argparse.ArgumentTypeError(f"is a number from 2 to {_LARGEST_EPOCH}")
    return int(text)
