"""Somebody who has stolen the store's administrator, and a key or none: he can write everything and sign little."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from redis.asyncio import Redis

from keyturn import entropy
from keyturn.contract.envelope import StatementKey
from keyturn.contract.events import HEADS, KeysEvent, RevocationsEvent, SignedEvent, sign_event, sign_head
from keyturn.contract.jwk import load_ed25519_private
from keyturn.contract.positions import Lane, Position, parse_position
from keyturn.feed.redis import PREFIX, PRESENCE, bell_channel, head_key, stream_key
from tests.faults.fleet import Fleet
from tests.faults.recorder import CLOCK


def stranger(fleet: Fleet, lane: Lane) -> StatementKey:
    """Make a key that nobody knows."""
    return StatementKey(entropy.new_statement_key())


def role(fleet: Fleet, lane: Lane) -> StatementKey:
    """Steal the key of a lane's role."""
    return StatementKey(load_ed25519_private(json.loads((fleet.directory / "roles" / f"{lane}.jwk").read_text())))


def other_role(fleet: Fleet, lane: Lane) -> StatementKey:
    """Steal the key of the role that has no right to a lane."""
    [other] = set(Lane) - {lane}
    return role(fleet, other)


class Intruder:
    """Writes what would come next in a lane, wherever a follower might read it."""

    def __init__(self, redis: Redis) -> None:
        """Use the stolen connection."""
        self.redis = redis

    async def position(self, lane: Lane) -> Position:
        """Return where a lane stands."""
        position = await cast("Any", self.redis.hget(head_key(lane), "position"))
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
        stream = stream_key(lane, event.position.epoch)
        await self.redis.xadd(stream, {"event": event.compact}, id=f"{event.position.sequence}-0")
        await self.redis.publish(bell_channel(lane), event.compact)
        await self.claim(lane, event.position, key)

    async def claim(self, lane: Lane, position: Position, key: StatementKey) -> None:
        """Say that a lane stands there: in the head, and on the doorbell."""
        now = CLOCK.now()
        head = HEADS[lane](
            epoch=position.epoch, sequence=position.sequence, hash=position.hash, at=now, trust=1
        )  # fmt: skip
        signed = sign_head(key, head)
        told = {"position": str(position), "statement": signed.compact, "at": f"{int(now * 1e6):020d}"}
        await cast("Any", self.redis.hset(head_key(lane), mapping=told))
        await self.redis.publish(bell_channel(lane), signed.compact)

    async def copy(self, *names: str) -> dict[bytes, tuple[bytes, int]]:
        """Copy keys, all of the feed's and the records if none is named, with their times to live."""
        found = [name.encode() for name in names]
        if not names:
            presence = PRESENCE.encode()
            found = [key async for key in self.redis.scan_iter(PREFIX + "*") if not key.startswith(presence)]
        copied = {key: (await self.redis.dump(key), max(await self.redis.pttl(key), 0)) for key in found}
        return {key: (value, ttl) for key, (value, ttl) in copied.items() if value is not None}

    async def put_back(self, copied: dict[bytes, tuple[bytes, int]]) -> None:
        """Put copies in the place of whatever is there."""
        for key, (value, ttl) in copied.items():
            await self.redis.restore(key, ttl, value, replace=True)

    @asynccontextmanager
    async def borrowing(self, *names: str) -> AsyncIterator[None]:
        """Put these keys back afterwards."""
        copied = await self.copy(*names)
        try:
            yield
        finally:
            await self.put_back(copied)
