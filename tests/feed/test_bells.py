"""Reading a subscription with one timer for all waits: nothing lost, nobody woken too early, no cancellation eaten."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from keyturn.clock import SystemClock
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.feed.bells import RedisDoorbell, RedisPresenceBell, Subscription, subscription
from keyturn.feed.log import Listening, Rung
from tests.feed.valkey import Valkey
from tests.waiting import eventually

BELL = b"bell"
SHORT = 0.03
LONG = 30.0
CHANNEL = "bells"


@pytest.fixture
async def redis(one_valkey: Valkey) -> AsyncIterator[Redis]:
    """Return a client of a real server, which may be used for pub/sub as well."""
    client = one_valkey.client(socket_timeout=None)
    yield client
    await client.aclose()


@pytest.fixture
async def reader(redis: Redis) -> AsyncIterator[Subscription]:
    """Return a standing subscription whose confirmation has been read."""
    async with subscription(redis) as (pubsub, opened):
        await pubsub.subscribe(CHANNEL)
        assert await opened.read(LONG) == [b"subscribe", CHANNEL.encode(), 1]
        yield opened


async def test_a_wait_without_a_word_ends_after_its_time_and_loses_nothing(redis: Redis, reader: Subscription) -> None:
    """The follower looks at the head then; what comes afterwards must still reach it."""
    clock = SystemClock()
    for number in range(3):
        began = clock.boottime()
        assert await reader.read(SHORT) is None
        assert clock.boottime() - began >= SHORT
        await redis.publish(CHANNEL, str(number))
        assert await reader.read(LONG) == [b"message", CHANNEL.encode(), str(number).encode()]


async def test_a_word_gives_the_next_wait_its_whole_time(redis: Redis, reader: Subscription) -> None:
    """The timer of the first wait goes off in the second one, too early for it."""
    clock = SystemClock()
    words = asyncio.create_task(reader.read(10 * SHORT))
    await redis.publish(CHANNEL, "word")
    assert await words is not None
    began = clock.boottime()
    assert await reader.read(10 * SHORT) is None
    assert clock.boottime() - began >= 10 * SHORT


async def test_a_shorter_wait_does_not_last_as_long_as_the_one_before(redis: Redis, reader: Subscription) -> None:
    """The timer that still stands would go off in half a minute."""
    await redis.publish(CHANNEL, "word")
    assert await reader.read(LONG) is not None
    async with asyncio.timeout(LONG / 2):
        assert await reader.read(SHORT) is None


@pytest.mark.parametrize("at_the_same_moment", [False, True])
async def test_who_reads_can_be_cancelled(reader: Subscription, at_the_same_moment: bool) -> None:
    """A process that is told to end must end, even if the wait was over at that very moment."""
    returned = []

    async def read() -> None:
        returned.append(await reader.read(LONG))
        returned.append(await reader.read(LONG))

    task = asyncio.create_task(read())
    await eventually(lambda: reader._alarm._waiting is task)
    if at_the_same_moment:
        reader._alarm._deadline = 0.0
        reader._alarm._go_off()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert returned == []


async def test_a_wait_that_is_over_leaves_the_task_as_it_was(reader: Subscription) -> None:
    """Else the task would take itself for cancelled, and a timeout around it would not work."""
    assert await reader.read(SHORT) is None
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT):
            await reader.read(LONG)


async def test_a_lost_connection_is_said_and_not_made_again(redis: Redis, reader: Subscription) -> None:
    """Made again behind our back, it would hide that something was missed."""
    await redis.client_kill_filter(_type="pubsub")
    for _ in range(2):
        with pytest.raises(FeedUnavailable):
            await reader.read(LONG)
    assert await redis.pubsub_numsub(CHANNEL) == [(CHANNEL.encode(), 0)]


class Hostile(Subscription):
    """A server that says what it likes, and a last word that is good."""

    def __init__(self, *last: object) -> None:
        self._words: list[object] = [
            b"PONG", 7, [], [b"message"], [b"message", [b"nested"], b"word"], [b"message", b"elsewhere", b"word"],
            [b"message", BELL, 1], [b"pmessage", b"*", [b"nested"], b"word"],
            [b"pmessage", b"*", b"keyturn:presence:one", None], [b"unsubscribe", b"keys", 0], *last,
        ]  # fmt: skip

    async def read(self, within_seconds: float) -> object:
        """Return the next word."""
        return self._words.pop(0)


async def test_words_that_no_server_says_are_passed_over() -> None:
    """Who holds the server may say anything; the follower must not end of it."""
    bell = RedisDoorbell(Hostile([b"message", BELL, b"good"]), {BELL: Lane.KEYS, b"other": Lane.REVOCATIONS})
    assert await bell.next(LONG) == Rung(Lane.KEYS, b"good")
    watching = RedisPresenceBell(Hostile([b"pmessage", b"*", b"keyturn:presence:one", b"good"]), "keyturn:presence:")
    assert await watching.next(LONG) == ("one", b"good")


async def test_the_doorbell_stands_when_both_channels_do_and_says_so_again_for_each_more() -> None:
    """Each confirmation after that is the trace of a reconnect, by which something may have been missed."""
    confirmed = [b"subscribe", b"channel", 1]
    bell = RedisDoorbell(Hostile(confirmed, confirmed, confirmed), {BELL: Lane.KEYS, b"other": Lane.REVOCATIONS})
    assert [await bell.next(LONG), await bell.next(LONG)] == [Listening(), Listening()]
