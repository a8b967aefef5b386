"""A way to the store on which exactly the n-th step of a request goes wrong, in each way that a step can."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from enum import Enum, auto
from typing import Any

from aiohttp import web
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from keyturn.process.redis import connect
from serving.routing import Handler

_OF_A_REQUEST: ContextVar[bool] = ContextVar("of_a_request", default=False)


class Mishap(Enum):
    """What becomes of a step."""

    CUT = auto()
    """The connection breaks before anything was sent."""
    UNANSWERED = auto()
    """The server does what it was told, and the connection breaks before its answer."""
    FROZEN = auto()
    """Nothing arrives, no answer comes, and the client gives up after its timeout."""
    REFUSED = auto()
    """The server says that it cannot: its disk is full."""


class Stumbling:
    """Counts what is sent to the store on behalf of requests; the step `at`, and with `lasting` all after it, fail.

    What runs beside requests (heartbeats, followers) goes its way. A frozen step takes no time here: `waited_seconds`
    adds up what it would have taken.
    """

    name = "stumbling"

    def __init__(self) -> None:
        """Let everything pass."""
        self.steps, self.waited_seconds = 0, 0.0
        self._at, self._how, self._lasting = 0, Mishap.CUT, False

    def set_out(self, *, at: int = 0, how: Mishap = Mishap.CUT, lasting: bool = False) -> None:
        """Count from one again; nothing fails `at` 0."""
        self.steps, self.waited_seconds = 0, 0.0
        self._at, self._how, self._lasting = at, how, lasting

    def step(self) -> Mishap | None:
        """Count a step, and say what becomes of it."""
        if not _OF_A_REQUEST.get():
            return None
        self.steps += 1
        fails = self.steps >= self._at > 0 if self._lasting else self.steps == self._at
        return self._how if fails else None

    def add_routes(self, app: web.Application) -> None:
        """Know from now on what is done for a request: all tasks that it begins are its own."""

        @web.middleware
        async def mark(request: web.Request, handler: Handler) -> web.StreamResponse:
            token = _OF_A_REQUEST.set(True)
            try:
                return await handler(request)
            finally:
                _OF_A_REQUEST.reset(token)

        app.middlewares.append(mark)

    async def run(self) -> None:
        """Do nothing beside requests."""

    def unready(self) -> str | None:
        """Have no reason."""
        return None


@asynccontextmanager
async def stumbling_client(url: str, stumbling: Stumbling) -> AsyncIterator[Redis]:
    """Connect as processes do, by connections that ask at each step what becomes of it."""
    redis = connect(url, client_name="tests-stumbling")
    pool = redis.connection_pool
    pool.connection_class = _stumbling(pool.connection_class, stumbling)
    try:
        yield redis
    finally:
        stumbling.set_out()
        await redis.aclose()


def _stumbling(ordinary: type[AbstractConnection], stumbling: Stumbling) -> type[AbstractConnection]:
    class Connection(ordinary):  # type: ignore[misc, valid-type]
        mishap: Mishap | None = None

        async def connect(self) -> None:
            """Connect anew: what was frozen is forgotten with the old connection."""
            if not self.is_connected:
                self.mishap = None
            await super().connect()

        async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
            """Send a command, or what a pipeline sends at once."""
            mishap = stumbling.step()
            if self.mishap is Mishap.FROZEN:  # Its answer is still awaited by somebody.
                mishap = Mishap.FROZEN
            self.mishap = mishap
            if mishap is Mishap.CUT:
                await self.disconnect(nowait=True)
                raise RedisConnectionError("cut")
            if mishap in (None, Mishap.UNANSWERED):
                await super().send_packed_command(command, check_health)

        async def read_response(self, *arguments: Any, **options: Any) -> Any:
            """Read the answer to it."""
            match self.mishap:
                case None:
                    return await super().read_response(*arguments, **options)
                case Mishap.REFUSED:
                    raise ResponseError("MISCONF Errors writing to the AOF file: No space left on device")
                case Mishap.UNANSWERED:
                    await super().read_response(*arguments, **options)
                    await self.disconnect(nowait=True)
                    raise RedisConnectionError("cut before the answer")
                case _:
                    stumbling.waited_seconds += self.socket_timeout or 0.0
                    await self.disconnect(nowait=True)
                    raise RedisTimeoutError("frozen")

    return Connection


async def done(what: Callable[[], Awaitable[None] | None]) -> None:
    """Do something to a server, at once or over time."""
    doing = what()
    if doing is not None:
        await doing
