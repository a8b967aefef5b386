"""Somebody who has stolen the store's administrator, and a key or none: he can write everything and sign little."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from redis.asyncio import Redis

from keyturn import entropy
from keyturn.contract.envelope import StatementKey
from keyturn.contract.events import HEADS, KeysEvent, RevocationsEvent, SignedEvent, sign_event, sign_head
from keyturn.contract.positions import Lane, Position, parse_position
from keyturn.feed.redis import bell_channel, head_key, stream_key
from tests.faults.recorder import CLOCK


class Intruder:
    """Writes what would come next in a lane, wherever a follower might read it."""

    def __init__(self, redis: Redis) -> None:
        """Use the stolen connection."""
        self._redis = redis

    async def position(self, lane: Lane) -> Position:
        """Return where a lane stands."""
        position = await cast("Any", self._redis.hget(head_key(lane), "position"))
        return parse_position(position.decode())

    async def event(
        self, lane: Lane, content: Sequence[Any], key: StatementKey, *, instead_of: Lane | None = None
    ) -> SignedEvent:
        """Make the lane's next event, perfect but for who signed it; or one that takes the next place of another."""
        held, now = await self.position(instead_of or lane), CLOCK.now()
        place: dict[str, Any] = {
            "epoch": held.epoch, "sequence": held.sequence + 1, "previous": held.hash, "at": now, "trust": 1,
            "id": entropy.uuid7(now), "report": True,
        }  # fmt: skip
        if lane is Lane.KEYS:
            return sign_event(key, KeysEvent(changes=tuple(content), **place))
        return sign_event(key, RevocationsEvent(entries=tuple(content), **place))

    async def push(self, lane: Lane, event: SignedEvent, key: StatementKey) -> None:
        """Put an event into stream and channel, and a head that leads to it: wherever a follower may look."""
        position, now = event.position, CLOCK.now()
        head = HEADS[lane](
            epoch=position.epoch, sequence=position.sequence, hash=position.hash, at=now, trust=1
        )  # fmt: skip
        signed = sign_head(key, head)
        stream = stream_key(lane, position.epoch)
        await self._redis.xadd(stream, {"event": event.compact}, id=f"{position.sequence}-0")
        told = {"position": str(position), "statement": signed.compact, "at": f"{int(now * 1e6):020d}"}
        await cast("Any", self._redis.hset(head_key(lane), mapping=told))
        await self._redis.publish(bell_channel(lane), event.compact)
        await self._redis.publish(bell_channel(lane), signed.compact)

    @asynccontextmanager
    async def undone(self, lanes: Iterable[Lane]) -> AsyncIterator[None]:
        """Put back afterwards what the store held, as an operator would from a backup of a moment ago."""
        keys = [
            name for lane in lanes for name in (head_key(lane), stream_key(lane, (await self.position(lane)).epoch))
        ]
        kept = {key: await self._redis.dump(key) for key in keys}
        try:
            yield
        finally:
            for key, value in kept.items():
                if value is None:
                    await self._redis.delete(key)
                else:
                    await self._redis.restore(key, 0, value, replace=True)
