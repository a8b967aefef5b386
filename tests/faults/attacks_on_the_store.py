"""What somebody may do to the rest of the store who owns it; each lasts as long as its block, and says what he does."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

from redis.asyncio import Redis

from keyturn.contract.positions import Lane
from keyturn.feed.redis import PRESENCE, SEALED_KEY, TRUST_KEY, bell_channel, head_key, stream_key
from keyturn.feed.snapshots import chunks_key, snapshot_key
from serving.records import PREFIX as RECORDS
from tests.faults.attacks_on_the_feed import stream_of
from tests.faults.withstanding import Attack, Scene

HUGE = b"x" * (9 * 1024 * 1024)  # More than a subscriber may leave unread for a minute.
FLOOD = 20_000


@asynccontextmanager
async def wrong_types(scene: Scene) -> AsyncIterator[None]:
    """Put a value of another type in the place of each key of the feed."""
    redis = scene.intruder.redis
    for lane in Lane:
        for name in (await stream_of(scene, lane), head_key(lane), snapshot_key(lane), chunks_key(Lane.REVOCATIONS)):
            await redis.set(name, b"x")
    async with scene.intruder.borrowing(TRUST_KEY, SEALED_KEY):
        await redis.delete(TRUST_KEY, SEALED_KEY)
        await cast("Any", redis.lpush(TRUST_KEY, b"x"))
        await redis.set(SEALED_KEY, b"x")
        yield
        await redis.delete(TRUST_KEY, SEALED_KEY)


@asynccontextmanager
async def huge_values(scene: Scene) -> AsyncIterator[None]:
    """Put 9 MiB in the place of each statement, and on each doorbell."""
    redis = scene.intruder.redis
    async with scene.intruder.borrowing(TRUST_KEY):
        for lane in Lane:
            await cast("Any", redis.hset(head_key(lane), mapping={"statement": HUGE}))
            await cast("Any", redis.hset(snapshot_key(lane), mapping={"snapshot": HUGE}))
        chunks = chunks_key(Lane.REVOCATIONS)
        for digest in await cast("Any", redis.hkeys(chunks)):
            await cast("Any", redis.hset(chunks, mapping={digest: HUGE}))
        for lane in Lane:
            position = await scene.intruder.position(lane)
            await redis.xadd(stream_key(lane, position.epoch), {b"event": HUGE}, id=f"{position.sequence + 1}-0")
            await redis.publish(bell_channel(lane), HUGE)
        for sidecar in scene.people.sidecars():
            await redis.set(PRESENCE + sidecar, HUGE)
        await redis.set(TRUST_KEY, HUGE)
        yield


@asynccontextmanager
async def flood(scene: Scene) -> AsyncIterator[None]:
    """Ring 20,000 times with nothing, on both doorbells."""
    for _ in range(FLOOD // 1000):
        pipeline = scene.intruder.redis.pipeline(transaction=False)
        for turn in range(1000):
            pipeline.publish(bell_channel(list(Lane)[turn % 2]), b"nothing")
        await pipeline.execute()
    yield


@asynccontextmanager
async def full(scene: Scene) -> AsyncIterator[None]:
    """Fill the memory: the server takes no write any more."""
    await scene.intruder.redis.config_set("maxmemory", "1")
    try:
        yield
    finally:
        await scene.intruder.redis.config_set("maxmemory", "0")


def locked_out(*users: str) -> Attack:
    """Make the attack of locking these users of the store out."""

    @asynccontextmanager
    async def attack(scene: Scene) -> AsyncIterator[None]:
        async with _access_changed(scene.intruder.redis, users, "off"):
            yield

    return attack


@asynccontextmanager
async def deaf(scene: Scene) -> AsyncIterator[None]:
    """Take the doorbell's channels from the sidecars."""
    async with _access_changed(scene.intruder.redis, scene.people.sidecars(), "resetchannels"):
        yield


@asynccontextmanager
async def edited_trust(scene: Scene) -> AsyncIterator[None]:
    """Write another client into the stored trust document."""
    redis = scene.intruder.redis
    async with scene.intruder.borrowing(TRUST_KEY):
        header, payload, signature = cast("bytes", await redis.get(TRUST_KEY)).split(b".")
        await redis.set(TRUST_KEY, b".".join((header, payload[:-4] + b"AAAA", signature)))
        yield


@asynccontextmanager
async def edited_records(scene: Scene) -> AsyncIterator[None]:
    """Swap the sealed records of opaque tokens, and turn a bit of one."""
    redis = scene.intruder.redis
    names = [name async for name in redis.scan_iter(RECORDS + "*")]
    async with scene.intruder.borrowing(*(name.decode() for name in names)):
        boxes = [cast("bytes", await redis.get(name)) for name in names]
        for name, box in zip(names, [*boxes[1:], boxes[0]], strict=True):
            await redis.set(name, box[:-1] + bytes([box[-1] ^ 1]), keepttl=True)
        assert await scene.people.introspect_text(scene.opaque) is not True
        yield


@asynccontextmanager
async def swapped_keys(scene: Scene) -> AsyncIterator[None]:
    """Put each sealed private key under another's name."""
    redis = scene.intruder.redis
    async with scene.intruder.borrowing(SEALED_KEY):
        held: dict[bytes, bytes] = await cast("Any", redis.hgetall(SEALED_KEY))
        first, *rest = held.values()
        await cast("Any", redis.hset(SEALED_KEY, mapping=dict(zip(held, [*rest, first], strict=True))))
        yield


@asynccontextmanager
async def _access_changed(redis: Redis, users: Iterable[str], rule: str) -> AsyncIterator[None]:
    for user in users:
        await _give(redis, "ACL", "SETUSER", user, rule)
        await _give(redis, "CLIENT", "KILL", "USER", user)
    try:
        yield
    finally:
        await _give(redis, "ACL", "LOAD")


async def _give(redis: Redis, *words: str) -> None:
    await redis.execute_command(*words)  # type: ignore[no-untyped-call]
