"""A task that talks to the store ends when it is told to, whatever moment that comes in."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from keyturn.clock import SystemClock


async def test_a_cancellation_in_the_moment_of_writing_is_kept(valkey: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 loses it inside the client library; a follower then went on for ever, and SIGTERM was in vain."""
    write = AbstractConnection._send_packed_command
    task: asyncio.Future[Any] | None = None

    async def write_and_cancel(self: AbstractConnection, command: Iterable[bytes]) -> None:
        await write(self, command)
        if task is not None:
            task.cancel()

    await valkey.ping()
    monkeypatch.setattr(AbstractConnection, "_send_packed_command", write_and_cancel)
    task = asyncio.ensure_future(valkey.get("anything"))
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    task = None
    assert await valkey.ping(), "the connection with the unread answer must not serve the next command"


async def test_a_goodbye_after_a_cancellation_is_still_sent(valkey: Redis) -> None:
    """Cleaning up talks to the store, too: only a new cancellation counts."""

    async def serve() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await valkey.set("goodbye", "said")

    task = asyncio.create_task(serve())
    await SystemClock().sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
    assert await valkey.get("goodbye") == b"said"


async def test_a_deadline_in_the_moment_of_writing_is_kept_as_one(
    valkey: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request's own timeout cancels by the same means, and must still be told as a timeout."""
    write = AbstractConnection._send_packed_command
    scope: asyncio.Timeout | None = None

    async def write_past_the_deadline(self: AbstractConnection, command: Iterable[bytes]) -> None:
        await write(self, command)
        if scope is not None:
            scope._on_timeout()  # type: ignore[attr-defined]  # What the loop calls at the deadline.

    async def ask() -> None:
        nonlocal scope
        async with asyncio.timeout(60) as scope:
            await valkey.get("anything")
            await asyncio.Event().wait()

    await valkey.ping()
    monkeypatch.setattr(AbstractConnection, "_send_packed_command", write_past_the_deadline)
    with pytest.raises(TimeoutError):
        await ask()
