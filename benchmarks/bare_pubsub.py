"""The reference for a push: fifty subscribers in one process on uvloop that only note when each message came.

They read with the client library that the sidecar reads with, and tell their times in one line a message.
"""

import asyncio
import sys
from pathlib import Path

import uvloop

from keyturn.clock import SystemClock
from keyturn.process.redis import connect
from keyturn.process.values import Secret

CHANNEL = "bare"


async def serve(redis_url: str, password: Path, subscribers: int) -> None:
    """Subscribe until the process ends; prints for each message when the last subscriber had it (boot-time seconds)."""
    clock = SystemClock()
    counts: dict[bytes, int] = {}
    ready = 0

    async def subscribe() -> None:
        nonlocal ready
        redis = connect(redis_url, client_name="bare", password=Secret.read(password), subscribing=True)
        pubsub = redis.pubsub(ignore_subscribe_messages=False)
        await pubsub.subscribe(CHANNEL)
        while True:
            message = await pubsub.get_message(timeout=None)
            if message is None:
                continue
            if message["type"] == "subscribe":
                ready += 1
                if ready == subscribers:
                    print("ready", flush=True)
                continue
            number = message["data"][:8]
            counts[number] = counts.get(number, 0) + 1
            if counts[number] == subscribers:
                print(clock.boottime(), flush=True)

    await asyncio.gather(*(subscribe() for _ in range(subscribers)))


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
