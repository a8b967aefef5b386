"""Where the sidecar listens: a loopback address, or a unix socket in a directory that is its own."""

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from keyturn.contract.errors import ConfigurationError
from keyturn.process.values import Listen
from keyturn.sidecar.listener import Listener

_SETTING = "sidecar.listen"
_DIRECTORY_MODE, _SOCKET_MODE = 0o750, 0o660
_NOT_FOR_OTHERS = stat.S_IWGRP | stat.S_IRWXO


async def open_at(listener: Listener, listen: Listen) -> Listen:
    """Open the listener there and return the address, with the port that was chosen if 0 was asked for.

    Raises ConfigurationError where somebody else listens, or others could reach into the socket's directory.
    """
    try:
        if listen.path is None:
            return Listen(host=listen.host, port=await listener.open_tcp(listen.host, listen.port))
        _make_way(listen.path)
        await listener.open_unix(listen.path)
        listen.path.chmod(_SOCKET_MODE)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen at {listen}: {error.strerror or error}",
            setting=_SETTING,
            mend="choose another address, or end who has it",
        ) from error
    return listen


def remove(listen: Listen) -> None:
    """Remove the unix socket, if it is one."""
    if listen.path is not None:
        with suppress(OSError):
            listen.path.unlink()


def _make_way(path: Path) -> None:
    """See to the directory, and remove a socket that nobody listens at any more."""
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
        path.parent.chmod(_DIRECTORY_MODE)
    found = path.parent.stat()
    if found.st_mode & _NOT_FOR_OTHERS or found.st_uid not in (os.geteuid(), 0):
        raise ConfigurationError(
            f"others than us may reach into {path.parent}", setting=_SETTING,
            mend=f"give the socket a directory of its own (chmod 750 {path.parent})",
        )  # fmt: skip
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
            else:
                raise ConfigurationError(
                    f"somebody listens at {path} already", setting=_SETTING, mend="choose another path, or end who does"
                )
