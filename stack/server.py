"""The embedded Valkey: a real server on loopback, alone in its locked directory, that ends with its parent."""

import errno
import fcntl
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from keyturn.clock import Clock, SystemClock
from keyturn.contract.errors import ConfigurationError, KeyturnError
from keyturn.process.parent import tied
from keyturn.process.redis import connect
from keyturn.process.values import Secret
from stack.binary import server_binary
from stack.ports import LOOPBACK, free_port, is_taken

READY_WITHIN_SECONDS = 30.0
LOCK_WITHIN_SECONDS = 0.5  # A server whose parent was killed lets go a moment later.
STOP_WITHIN_SECONDS = 10.0
LOOK_AGAIN_SECONDS = 0.01
PING_SECONDS = 1.0
PORT_ATTEMPTS = 5
_LOCK, _SETTINGS, _LOG = "server.lock", "server.conf", "server.log"


class ServerFailed(KeyturnError):
    """The embedded server did not start, or has ended; says its last words."""

    code = "server_failed"


class _PortTaken(ServerFailed):
    """Somebody else listens there."""


class EmbeddedServer:
    """A Valkey that keeps what it acknowledges: `appendfsync always`, `noeviction`, loopback only.

    Start it from a thread that stays: the kernel ends it together with the thread that started it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        aclfile: Path | None = None,
        user: str | None = None,
        password: Secret | None = None,
        clock: Clock | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Describe a server; `port` None takes a free one, and keeps it over restarts.

        `user` and `password` are whom this object asks as, from `aclfile` (where the default user may be off).
        `settings` are more lines of the server's own configuration, for tests of unusual servers.
        """
        self.directory = directory.absolute()
        self._port = port
        self._aclfile, self._user, self._password = aclfile, user, password
        self._clock = clock or SystemClock()
        self._more_settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def port(self) -> int:
        """The port that it listens on; known once it has started."""
        if self._port is None:
            raise ServerFailed("the embedded server was never started")
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServerFailed("the embedded server does not run")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there; a frozen one is."""
        return self._process is not None and self._process.poll() is None

    def url(self, user: str | None = None) -> str:
        """Return where it is, for a user of the access list; never with a password."""
        return f"redis://{f'{user}@' if user else ''}{LOOPBACK}:{self.port}/0"

    async def start(self) -> None:
        """Start it, and return when it answers.

        Raises ConfigurationError when the directory or the port is taken, or no server is installed; ServerFailed
        when it ends, or does not answer within 30 s.
        """
        if self.running:
            raise ServerFailed(f"the embedded server already runs, as process {self.pid}")
        binary = server_binary()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._take_lock()
        try:
            await self._start_on_some_port(binary)
        except BaseException:
            await self._end(signal.SIGKILL)
            self._release_lock()
            raise

    async def stop(self) -> None:
        """End it in order, let go of the directory, and return when it is gone; stopping twice is fine."""
        await self._end(signal.SIGTERM)
        self._release_lock()

    async def kill(self) -> None:
        """End it as a power cut would; the directory stays ours, for `restart`."""
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """Start it again, on the same port and directory; end it in order first if it runs."""
        await self._end(signal.SIGTERM)
        await self.start()

    def freeze(self) -> None:
        """Stop its time (SIGSTOP): connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let its time go on (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    async def _start_on_some_port(self, binary: Path) -> None:
        for attempt in range(PORT_ATTEMPTS):
            port = self._port or free_port()
            try:
                self._spawn(binary, port)
                await self._until_ready(port)
            except _PortTaken as error:
                await self._end(signal.SIGKILL)
                if self._port is not None:
                    raise ConfigurationError(
                        f"port {port} is taken", setting="redis port", mend="choose another, or end who has it"
                    ) from error
                if attempt == PORT_ATTEMPTS - 1:
                    raise
            else:
                self._port = port
                return

    def _spawn(self, binary: Path, port: int) -> None:
        if is_taken(port):
            raise _PortTaken(f"port {port} is taken")
        settings = self._settings(port)
        path = self.directory / _SETTINGS
        _write_privately(path, "".join(f"{name} {value}\n" for name, value in settings.items()))
        log = os.open(self.directory / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self._process = subprocess.Popen(
                tied([str(binary), str(path)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                pass_fds=[self._lock] if self._lock is not None else [],  # Held for as long as a server lives.
                start_new_session=True,  # Ctrl-C at the terminal is for us, who end it in order.
            )
        finally:
            os.close(log)
        self._sign_lock(self._process.pid)

    def _settings(self, port: int) -> dict[str, str]:
        settings = {
            "bind": LOOPBACK,
            "port": str(port),
            "protected-mode": "yes",
            "daemonize": "no",
            "dir": _quoted(self.directory),
            "logfile": '""',
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "maxmemory-policy": "noeviction",
        }
        if self._aclfile is not None:
            settings["aclfile"] = _quoted(self._aclfile.absolute())
        return settings | self._more_settings

    async def _until_ready(self, port: int) -> None:
        url = f"redis://{f'{self._user}@' if self._user else ''}{LOOPBACK}:{port}/0"
        deadline = self._clock.boottime() + READY_WITHIN_SECONDS
        while self._clock.boottime() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise self._failure()
            redis = connect(url, client_name="embedded", password=self._password, answer_seconds=PING_SECONDS)
            try:
                # A stranger on the port may answer too: it must be our process that does.
                if int((await redis.info("server"))["process_id"]) == self._process.pid:
                    return
            except (AuthenticationError, NoPermissionError) as error:
                raise ConfigurationError(
                    f"the server does not let {self._user or 'the default user'} in",
                    setting="aclfile",
                    mend="give a user that it names, its password, and +info",
                ) from error
            except (RedisError, OSError, KeyError, ValueError):
                pass  # Not yet listening, or still loading.
            finally:
                await redis.aclose()
            await self._clock.sleep(LOOK_AGAIN_SECONDS)
        raise ServerFailed(f"the embedded server did not answer within {READY_WITHIN_SECONDS:.0f} s")

    def _failure(self) -> ServerFailed:
        words = (self.directory / _LOG).read_text(errors="replace").strip().splitlines()
        kind = _PortTaken if any(os.strerror(errno.EADDRINUSE) in word for word in words) else ServerFailed
        return kind(f"the embedded server has ended: {words[-1] if words else 'without a word'}")

    async def _end(self, how: signal.Signals) -> None:
        """Signal the process and wait until it is gone; one that does not go is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)  # A frozen one could not end.
        deadline = self._clock.boottime() + STOP_WITHIN_SECONDS
        while process.poll() is None:
            if self._clock.boottime() > deadline:
                process.kill()
            await self._clock.sleep(LOOK_AGAIN_SECONDS)

    async def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await self._wait_for(lock)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock
        self._sign_lock(os.getpid())

    async def _wait_for(self, lock: int) -> None:
        deadline = self._clock.boottime() + LOCK_WITHIN_SECONDS
        while not _locked(lock):
            if self._clock.boottime() > deadline:
                raise self._in_use(lock)
            await self._clock.sleep(LOOK_AGAIN_SECONDS)

    def _in_use(self, lock: int) -> ConfigurationError:
        owner = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        return ConfigurationError(
            f"{self.directory} is in use by process {owner}, and two servers would lose its data",
            setting="dir",
            mend="choose another directory, or end that process",
        )

    def _sign_lock(self, pid: int) -> None:
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{pid}\n".encode(), 0)

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _write_privately(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
