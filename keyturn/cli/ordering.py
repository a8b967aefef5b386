"""Orders that are safe to repeat: each goes out under an idempotency key, again where its outcome is unknown."""

import argparse
import re
from typing import Any

from keyturn import entropy
from keyturn.cli.answers import OutcomeUnknown, WrongUsage
from keyturn.cli.origin import Answer
from keyturn.cli.session import Session
from keyturn.clock import SystemClock

ATTEMPTS = 3
PAUSE_SECONDS = 1.0  # What the services ask for by Retry-After.
_VISIBLE = re.compile(r"[\x21-\x7e]{1,128}")


def add_idempotency_key(parser: argparse.ArgumentParser) -> None:
    """Take a key by which an order is recognised when it is repeated."""
    parser.add_argument(
        "--idempotency-key", metavar="KEY",
        help="repeat an order with the same key, and it is carried out once (default: a new one for each command)",
    )  # fmt: skip


async def order(session: Session, path: str, args: argparse.Namespace, **asked: Any) -> Answer:
    """Send an order as administrator; the arguments are those of Origin.ask.

    It is repeated where its outcome is unknown: by its key it is carried out once. Raises WrongUsage for a key that is
    none, OutcomeUnknown, naming the key, when it gives up.
    """
    key = args.idempotency_key or entropy.uuid7(SystemClock().now())
    if not _VISIBLE.fullmatch(key):
        raise WrongUsage("--idempotency-key has 1 to 128 visible ASCII characters")
    for _ in range(ATTEMPTS - 1):
        try:
            return await session.as_admin("POST", path, idempotency_key=key, **asked)
        except OutcomeUnknown:
            await SystemClock().sleep(PAUSE_SECONDS)
    try:
        return await session.as_admin("POST", path, idempotency_key=key, **asked)
    except OutcomeUnknown as error:
        raise OutcomeUnknown(
            f"{error}; it may have been carried out: repeat the command with --idempotency-key {key}"
        ) from error
