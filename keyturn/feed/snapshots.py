"""Snapshots on Redis: the signed statement in one hash, its chunks by digest in another."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from keyturn.contract.events import SignedSnapshot
from keyturn.contract.positions import Lane
from keyturn.contract.snapshots import Chunks
from keyturn.feed import scripts
from keyturn.feed.log import CHUNKS_AT_ONCE, MOST_SWEPT

_TRIES = 3  # Another publisher may sweep chunks away that no stored snapshot names yet.

_Found = TypeVar("_Found")
_Other = TypeVar("_Other")
RunScript = Callable[..., Awaitable[int]]


def snapshot_key(lane: Lane) -> str:
    """Name the hash that holds a lane's newest snapshot, its position, and the chunks that it and the last one name."""
    return f"keyturn:{lane}:snapshot"


def chunks_key(lane: Lane) -> str:
    """Name the hash that holds a lane's chunks by digest."""
    return f"keyturn:{lane}:chunks"


class RedisSnapshots:
    """Stores a snapshot whole or not at all; the commands of the client library raise what they raise."""

    def __init__(self, redis: Redis, script: RunScript, *, reading: Redis) -> None:
        self._redis, self._script, self._reading = redis, script, reading

    async def store(
        self,
        script: str,
        lane_keys: tuple[str, str],
        snapshot: SignedSnapshot,
        chunks: Chunks,
        *arguments: str | bytes,
        anew: bool = False,
    ) -> bool:
        """Store the chunks that are not there (`anew`: all of them), then the snapshot by that script, then sweep.

        Say whether the script's condition held. `lane_keys` name the lane's head and the stream of the epoch.
        """
        lane, digests = snapshot.snapshot.lane, snapshot.digests
        head, stream = lane_keys
        keys, outcome = [head, snapshot_key(lane), chunks_key(lane), stream], scripts.MISSING
        for _ in range(_TRIES):
            await self._put(lane, chunks, anew=anew)
            outcome = await self._script(script, keys, *arguments, *digests)
            if outcome != scripts.MISSING:
                break
        if outcome == scripts.DONE and lane is Lane.REVOCATIONS:  # The other lane has no chunks.
            await self._sweep(lane)
        return outcome == scripts.DONE

    async def newest(self, lane: Lane) -> bytes | None:
        """Return the newest stored snapshot."""
        answer = cast("Awaitable[bytes | None]", self._reading.hget(snapshot_key(lane), "snapshot"))
        return await _unless_of_another_type(answer, None)

    async def position(self, lane: Lane) -> str:
        """Return the position of the newest stored snapshot as it is spelled there, empty if there is none."""
        answer = cast("Awaitable[bytes | None]", self._redis.hget(snapshot_key(lane), "position"))
        return (await _unless_of_another_type(answer, None) or b"").decode("ascii", "replace")

    async def chunks(self, lane: Lane, digests: Sequence[str]) -> dict[str, bytes]:
        """Return those of up to 16 chunks that are stored."""
        asked = list(digests[:CHUNKS_AT_ONCE])
        if not asked:
            return {}
        answer = cast("Awaitable[list[bytes | None]]", self._reading.hmget(chunks_key(lane), asked))
        found = await _unless_of_another_type(answer, [None] * len(asked))
        return {digest: raw for digest, raw in zip(asked, found, strict=True) if raw is not None}

    async def _put(self, lane: Lane, chunks: Chunks, *, anew: bool) -> None:
        if not chunks:
            return
        held = await _unless_of_another_type(self._stored(lane), None)
        if held is None:
            await self._redis.delete(chunks_key(lane))
        if held is None or anew:
            held = set()
        missing = [digest for digest in chunks if digest not in held]
        for start in range(0, len(missing), CHUNKS_AT_ONCE):
            some = {digest: chunks[digest] for digest in missing[start : start + CHUNKS_AT_ONCE]}
            await cast("Awaitable[int]", self._redis.hset(chunks_key(lane), mapping=some))

    async def _sweep(self, lane: Lane) -> None:
        """Forget chunks that neither the newest nor the previous snapshot names: unless another was stored meanwhile.

        So also those that a publisher left behind that died before it stored its snapshot.
        """
        fields = ["stored", "chunks", "previous"]
        found = await cast("Awaitable[list[bytes | None]]", self._redis.hmget(snapshot_key(lane), fields))
        stored, newest, previous = ((value or b"").decode("ascii", "replace") for value in found)
        needed = {*newest.split(" "), *previous.split(" ")}
        garbage = [digest for digest in await self._stored(lane) if digest not in needed][:MOST_SWEPT]
        if garbage:
            await self._script(scripts.SWEEP, [snapshot_key(lane), chunks_key(lane)], stored, *garbage)

    async def _stored(self, lane: Lane) -> set[str]:
        names = await cast("Awaitable[list[bytes]]", self._redis.hkeys(chunks_key(lane)))
        return {name.decode("ascii", "replace") for name in names}


async def _unless_of_another_type(answer: Awaitable[_Found], otherwise: _Other) -> _Found | _Other:
    """Return the answer; where somebody has put another type there it is as good as nothing."""
    try:
        return await answer
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return otherwise
