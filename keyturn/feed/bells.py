"""Subscriptions on Redis: what the server pushes, read with one timer for all waits, and what it means."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.feed.log import Listening, Rung


class Subscription:
    """The messages of one connection for pub/sub, as the server wrote them; one reader.

    Every subscribe message is among them, since each may mean that something was missed. The connection is never
    made again behind the reader's back: a lost one raises, and who reads subscribes anew.
    """

    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self._alarm = _Alarm()

    async def read(self, within_seconds: float) -> Any:
        """Wait for the next message, None after that long. Raises FeedUnavailable when the connection is lost."""
        connection = self._pubsub.connection
        if connection is None:
            raise FeedUnavailable("the subscription is closed")
        alarm = self._alarm
        alarm.set(within_seconds)
        try:
            # Without a timeout of its own: setting one up and taking it down cost as much as all the rest of a read.
            return await connection.read_response(disconnect_on_error=False)
        except (RedisError, OSError) as error:
            raise FeedUnavailable(f"the feed's store did not answer: {type(error).__name__}") from error
        except asyncio.CancelledError:
            if alarm.was_ours():
                return None
            raise
        finally:
            alarm.rest()

    def close(self) -> None:
        """Leave no timer behind."""
        self._alarm.close()


class _Alarm:
    """A timer that is not taken down after each wait: where it goes off too early it sets itself again.

    It wakes the waiting task as `asyncio.timeout` does, by a cancellation that it takes back.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._waiting: asyncio.Task[Any] | None = None
        self._asked_before = 0  # Cancellations of the task that others had asked for when its wait began.
        self._rang = False

    def set(self, within_seconds: float) -> None:
        """Wake the task that calls this after so long, unless it says `rest` before."""
        self._waiting = task = asyncio.current_task()
        self._asked_before = 0 if task is None else task.cancelling()
        self._rang = False
        self._deadline = deadline = self._loop.time() + within_seconds
        timer = self._timer
        if timer is None or timer.when() > deadline:
            self.close()
            self._timer = self._loop.call_at(deadline, self._go_off)

    def rest(self) -> None:
        """Wake nobody until it is set again."""
        self._waiting = None

    def was_ours(self) -> bool:
        """Say whether a cancellation was this alarm's alone, and take that one back."""
        if not self._rang or self._waiting is None:
            return False
        return self._waiting.uncancel() <= self._asked_before

    def close(self) -> None:
        """Take the timer down."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _go_off(self) -> None:
        self._timer = None
        if self._waiting is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._go_off)
            return
        self._rang = True
        self._waiting.cancel()


@asynccontextmanager
async def subscription(redis: Redis) -> AsyncIterator[tuple[PubSub, Subscription]]:
    """Open a connection for pub/sub: what subscribes, and what reads."""
    pubsub = redis.pubsub(ignore_subscribe_messages=False)
    reader = Subscription(pubsub)
    try:
        yield pubsub, reader
    finally:
        reader.close()
        # Closing the socket, not unsubscribing: a frozen server would keep us waiting.
        connection, pubsub.connection = pubsub.connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            connection.deregister_connect_callback(pubsub.on_connect)
            await redis.connection_pool.release(connection)  # Else the pool runs dry, one reconnect at a time.


class RedisDoorbell:
    """The words of the lanes' channels."""

    def __init__(self, subscription: Subscription, lane_of: Mapping[bytes, Lane]) -> None:
        self._read, self._lane_of, self._confirmed = subscription.read, lane_of, 0

    async def next(self, within_seconds: float) -> Listening | Rung | None:
        """Wait for the next word; `Listening` once all channels stand."""
        while True:
            match await self._read(within_seconds):
                case [b"message", bytes(channel), bytes(statement)] if channel in self._lane_of:
                    return Rung(self._lane_of[channel], statement)
                case [b"subscribe", *_]:
                    self._confirmed += 1
                    if self._confirmed >= len(self._lane_of):
                        return Listening()
                case None:
                    return None


class RedisPresenceBell:
    """Reports as they are made, each on the channel of its verifier."""

    def __init__(self, subscription: Subscription, prefix: str) -> None:
        self._read, self._prefix = subscription.read, prefix

    async def next(self, within_seconds: float) -> tuple[str, bytes] | Listening | None:
        """Wait for the next (verifier, report)."""
        while True:
            match await self._read(within_seconds):
                case [b"pmessage", _, bytes(channel), bytes(report)]:
                    return channel.decode("utf-8", "replace")[len(self._prefix) :], report
                case [b"psubscribe", *_]:
                    return Listening()
                case None:
                    return None
