"""The root that a command holds things against, and the trust documents that it signed."""

import argparse
from pathlib import Path

from keyturn.cli.answers import CannotTell, WrongUsage
from keyturn.cli.session import Session
from keyturn.contract.errors import TrustError
from keyturn.contract.trust import Trust, open_trust
from keyturn.process.pinned import read_root

ROOT_VARIABLE = "KEYTURN_ROOT"
_MOST_OLDER = 64
_LARGEST_TRUST_BYTES = 8 * 1024 * 1024


def root_file(args: argparse.Namespace, session: Session) -> Path:
    """Return the file of the root that a command pins; raises WrongUsage."""
    if args.root is not None:
        return Path(args.root)
    named = session.environment.get(ROOT_VARIABLE)
    if named is None:
        raise WrongUsage(f"no root to hold it against: name the root.jwk by --root, or set {ROOT_VARIABLE}")
    return Path(named)


def older_documents(root: Path) -> list[Trust]:
    """Return what the root vouched for before, as far as it lies beside it: `trust-N.jws`, as `keyturn trust` keeps it.

    One by another root is not looked at.
    """
    found = []
    for file in sorted(root.parent.glob("trust-*.jws"))[-_MOST_OLDER:]:
        try:
            found.append(open_trust(read_document(file), root=read_root(root), allow_dev=True))
        except TrustError:
            continue
    return found


def read_document(file: Path) -> bytes:
    """Return a signed trust document; raises WrongUsage."""
    try:
        with file.open("rb") as opened:
            raw = opened.read(_LARGEST_TRUST_BYTES + 1)
    except OSError as error:
        raise WrongUsage(f"{file} cannot be read: {error.strerror}; name a trust document by --trust") from error
    if len(raw) > _LARGEST_TRUST_BYTES:
        raise WrongUsage(f"{file} is larger than {_LARGEST_TRUST_BYTES} bytes")
    return raw.strip()


def open_document(compact: bytes, root: Path) -> Trust:
    """Return what the pinned root vouches for; raises CannotTell where it is not this root's document."""
    try:
        return open_trust(compact, root=read_root(root), allow_dev=True)
    except TrustError as error:
        raise CannotTell(f"no trust document to judge by: {error}") from error
