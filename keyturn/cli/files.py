"""Files that change in one step: whoever reads one finds all of the old or all of the new."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyturn.cli.answers import CannotTell, WrongUsage


def replace_file(path: Path, content: bytes, *, private: bool = True) -> None:
    """Replace a file, or make it: the new one is on disk before it has the name, and the name before we go on.

    A private one has mode 0600, and keeps its owner. Raises CannotTell if that cannot be done: then nothing changed.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        fresh.unlink(missing_ok=True)
        owner = path.stat() if path.exists() else path.parent.stat()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)  # Run by root, read by the service's user.
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        fresh.unlink(missing_ok=True)
        raise CannotTell(f"{path} cannot be replaced: {error.strerror}; it is as it was") from error


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keep other commands from changing files of a directory meanwhile, by a lock on it; raises WrongUsage."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise WrongUsage(f"{directory} cannot be read: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
