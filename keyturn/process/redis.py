"""The connection to Redis or Valkey, its failures in our own words, and what the server says of itself."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection, parse_url
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from keyturn.contract.errors import ConfigurationError, KeyturnError
from keyturn.process.connections import connection_class
from keyturn.process.sentinels import Guide
from keyturn.process.values import Secret

ANSWER_SECONDS = 2.0
CONNECT_SECONDS = 1.0
MOST_CONNECTIONS = 64
WAIT_FOR_CONNECTION_SECONDS = 2.0
_LONGEST_REASON = 200

# Replies by which a server says that it, or its access list, is at fault, and not the command.
_AT_FAULT = frozenset(
    {
        *("BUSY", "CLUSTERDOWN", "FAILOVER", "LOADING", "MASTERDOWN", "MISCONF", "NOAUTH", "NOGOODSLAVE", "NOPERM"),
        *("NOREPLICAS", "OOM", "READONLY", "TRYAGAIN", "UNBLOCKED", "WRONGPASS"),
    }
)

Answer = TypeVar("Answer")


class _Pool(BlockingConnectionPool):
    """A pool without ceremony for who finds a connection free, as long as nobody waits for one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._in_line = 0

    async def get_connection(self, *arguments: Any, **options: Any) -> Any:
        """Return a connection that stands."""
        if self._in_line == 0 and self.can_get_connection():
            connection = self.get_available_connection()  # type: ignore[no-untyped-call]
            try:
                await self.ensure_connection(connection)
            except BaseException:
                await self.release(connection)
                raise
            return connection
        self._in_line += 1
        try:
            return await super().get_connection(*arguments, **options)
        finally:
            self._in_line -= 1

    async def release(self, connection: Any) -> None:
        """Take a connection back."""
        if self._in_line:
            await super().release(connection)
        else:
            await ConnectionPool.release(self, connection)


class _GuidedPool(_Pool):
    """A pool whose guide hears of each command, so that none goes to a server of the past for long."""

    async def get_connection(self, *arguments: Any, **options: Any) -> Any:
        """Return a connection that stands."""
        self.connection_kwargs["guide"].look_again()
        return await super().get_connection(*arguments, **options)


def connect(
    url: str,
    *,
    client_name: str,
    username: str | None = None,
    password: Secret | str | None = None,
    ca_file: Path | None = None,
    guide: Guide | None = None,
    subscribing: bool = False,
    most_connections: int = MOST_CONNECTIONS,
    answer_seconds: float = ANSWER_SECONDS,
) -> Redis:
    """Return a client that answers in bytes; nothing is sent before its first command.

    A command that was sent is never sent again: when no answer comes within 2 s its outcome is unknown, and who
    asked decides. A connection that the server closed meanwhile is replaced before a command is written to it.
    `subscribing` is for pub/sub, which waits without an end; there a heartbeat must notice a silent server.

    With `rediss://` the server's certificate must be for the host that is connected to, by `ca_file` or, without it,
    by the authorities that the system trusts. With a `guide` it says where to go, and the URL's host is not looked
    at. Raises ConfigurationError for a `ca_file` that holds no certificates.
    """
    options: dict[str, Any] = dict(parse_url(url))
    theirs = options.get("connection_class", Connection)
    if username is not None:
        options["username"] = username
    if password is not None:
        options["password"] = password.reveal_text() if isinstance(password, Secret) else password
    if theirs is not UnixDomainSocketConnection:
        options["socket_keepalive"] = True
    if theirs is SSLConnection:
        options["ssl_check_hostname"] = True
        if ca_file is not None:
            options["ssl_ca_certs"] = str(_certificates(ca_file))
    options |= {
        "max_connections": most_connections,
        "timeout": WAIT_FOR_CONNECTION_SECONDS,
        "decode_responses": False,
        "socket_timeout": None if subscribing else answer_seconds,
        "socket_connect_timeout": CONNECT_SECONDS,
        "client_name": client_name,
        "connection_class": connection_class(theirs, guided=guide is not None),
    }
    if guide is None:
        return Redis.from_pool(_Pool(**options))
    return Redis.from_pool(_GuidedPool(guide=guide, **options))


def _certificates(ca_file: Path) -> Path:
    try:
        ssl.create_default_context(cafile=str(ca_file))
    except OSError as error:  # SSLError is one: a file that holds something else.
        raise ConfigurationError(
            f"{ca_file} holds no certificates that can be read", setting="redis.ca_file",
            mend="name a file of PEM certificates that this process can read",
        ) from error  # fmt: skip
    return ca_file


@contextmanager
def store_errors(unavailable: Callable[[str], KeyturnError]) -> Iterator[None]:
    """Raise `unavailable` (FeedUnavailable, StoreUnavailable) where the server failed or could not be reached.

    Whether a command took effect is then unknown. An error of the command itself passes through.
    """
    try:
        yield
    except (TimeoutError, RedisError, OSError, asyncio.IncompleteReadError) as error:
        if not is_server_failure(error):
            raise
        reason = (str(error).splitlines() or [""])[0][:_LONGEST_REASON]
        raise unavailable(f"{type(error).__name__}: {reason}" if reason else type(error).__name__) from error


def is_server_failure(error: BaseException) -> bool:
    """Whether this error speaks of the server or the way to it, and not of the command."""
    if isinstance(error, ResponseError):
        refused = (ReadOnlyError, OutOfMemoryError, NoPermissionError, AuthenticationError, AuthorizationError)
        return isinstance(error, refused) or str(error).split(" ", 1)[0].rstrip(":") in _AT_FAULT
    failures = (RedisConnectionError, RedisTimeoutError, OSError, asyncio.TimeoutError, asyncio.IncompleteReadError)
    return isinstance(error, failures)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerFacts:
    """What a server says of itself; None where it does not tell us (an ACL may deny CONFIG or INFO)."""

    run_id: str | None = None
    version: str | None = None
    role: str | None = None
    uptime_seconds: float | None = None
    replicas: int | None = None
    append_only: bool | None = None
    append_fsync: str | None = None
    maxmemory_policy: str | None = None
    min_replicas_to_write: int | None = None
    cluster: bool = False


async def server_facts(redis: Redis) -> ServerFacts:
    """Ask the server about itself; a server that cannot be reached raises as any command does."""
    info = await _unless_denied(redis.info(), {})
    config = {}
    for name in ("appendfsync", "maxmemory-policy", "min-replicas-to-write"):
        config.update(await _unless_denied(redis.config_get(name), {}))
    settings = {_text(name): _text(value) for name, value in config.items()}
    told = {_text(name): value for name, value in info.items()}
    append_only = _number(told.get("aof_enabled"))
    return ServerFacts(
        run_id=_text(told.get("run_id")),
        version=_text(told.get("valkey_version", told.get("redis_version"))),
        role=_text(told.get("role")),
        uptime_seconds=_number(told.get("uptime_in_seconds")),
        replicas=_number(told.get("connected_slaves")),
        append_only=None if append_only is None else bool(append_only),
        append_fsync=settings.get("appendfsync"),
        maxmemory_policy=settings.get("maxmemory-policy") or _text(told.get("maxmemory_policy")),
        cluster=_number(told.get("cluster_enabled")) == 1,
        min_replicas_to_write=_number(settings.get("min-replicas-to-write")),
    )


async def _unless_denied(asked: Awaitable[Answer], otherwise: Answer) -> Answer:
    try:
        return await asked
    except ResponseError:
        return otherwise


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if value is None else str(value)


def _number(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None
