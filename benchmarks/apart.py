"""Fifty sidecars, and fifty bare subscribers, in a process each: forked from one that has imported everything.

Each prints `ready KIND NUMBER PID PORT` once, a subscriber then `told NUMBER MESSAGE SECONDS` for each message.
"""

import asyncio
import os
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.bare_pubsub import CHANNEL
from benchmarks.fleet import sidecar_of
from keyturn.clock import SystemClock
from keyturn.process.logging import configure_logging
from keyturn.process.parent import die_with_parent
from keyturn.process.redis import connect
from keyturn.process.settings import LogSettings, RedisSettings
from keyturn.process.values import Listen, Secret


async def sidecar(home: Path, redis_url: str, number: int) -> None:
    """Serve one sidecar until the process ends."""
    async with AsyncExitStack() as stack:
        store = RedisSettings(url=redis_url, credentials=home / "redis")
        one = sidecar_of(stack, store, home, number)
        address = await stack.enter_async_context(one.serving(Listen(host="127.0.0.1", port=0)))
        await one.follower.ready()
        _tell(f"ready sidecar {number} {os.getpid()} {address.port}")
        await asyncio.Event().wait()


async def subscriber(home: Path, redis_url: str, number: int) -> None:
    """Read one bare subscription, with the client library that the sidecar reads with, until the process ends."""
    clock = SystemClock()
    password = Secret.read(home / "redis" / "default.password")
    redis = connect(redis_url, client_name="bare", username="default", password=password, subscribing=True)
    pubsub = redis.pubsub(ignore_subscribe_messages=False)
    await pubsub.subscribe(CHANNEL)
    while True:
        message = await pubsub.get_message(timeout=None)
        if message is None:
            continue
        if message["type"] == "subscribe":
            _tell(f"ready subscriber {number} {os.getpid()} 0")
        else:
            _tell(f"told {number} {int(message['data'][:8])} {clock.boottime()}")


def _tell(line: str) -> None:
    """Print a line in one piece: all the children share the way to whoever reads it."""
    os.write(1, f"{line}\n".encode("ascii"))


def fork(work: Coroutine[Any, Any, None]) -> int:
    """Do the work in a child process that ends with it; return the child's pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        die_with_parent(parent=parent)
        status = 1
        try:
            uvloop.run(work)
            status = 0
        finally:
            os._exit(status)
    work.close()
    return pid


def main(home: Path, redis_url: str, count: int) -> None:
    """Fork them all, and wait; they end when this process does."""
    configure_logging(LogSettings(level="error"), process="fleet")
    for number in range(1, count + 1):
        fork(sidecar(home, redis_url, number))
        fork(subscriber(home, redis_url, number))
    for _ in range(2 * count):
        os.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
