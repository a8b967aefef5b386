"""The feed on Redis or Valkey: one script for each step that must happen whole, pub/sub as the doorbell."""

from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoScriptError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from keyturn.contract.errors import FeedUnavailable, MalformedInput, PositionTaken, StreamSpoiled
from keyturn.contract.events import SignedEvent, SignedHead, SignedSnapshot
from keyturn.contract.positions import Lane, Position, parse_position
from keyturn.contract.snapshots import NO_CHUNKS, Chunks
from keyturn.feed import scripts
from keyturn.feed.assurance import Assurance
from keyturn.feed.bells import RedisDoorbell, RedisPresenceBell, subscription
from keyturn.feed.log import BATCH, BEAT_LEASE_SECONDS, MOST_AHEAD_SECONDS, NOTHING_BESIDE, Beside, Top
from keyturn.feed.snapshots import RedisSnapshots

PREFIX = "keyturn:"
TRUST_KEY = PREFIX + "trust"
SEALED_KEY = PREFIX + "sealed-keys"
PRESENCE = PREFIX + "presence:"
_LONGEST_REASON = 200


def head_key(lane: Lane) -> str:
    """Name the hash that holds a lane's position, its newest statement and that statement's moment."""
    return f"{PREFIX}{lane}:head"


def stream_key(lane: Lane, epoch: int) -> str:
    """Name the stream of one epoch."""
    return f"{PREFIX}{lane}:{epoch}:events"


def bell_channel(lane: Lane) -> str:
    """Name the channel of a lane's doorbell."""
    return f"{PREFIX}{lane}:bell"


_ANY_BYTES = "latin-1"  # A stored position may be anything, and must come back byte for byte to be overwritten.
_SPOILED = 2  # What the script says of a stream that holds more than its publisher wrote.
_LANE_OF = {bell_channel(lane).encode(): lane for lane in Lane}


@contextmanager
def _reaching() -> Iterator[None]:
    """Turn what the client library or the system raises into FeedUnavailable; the outcome may be unknown."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise FeedUnavailable(f"the feed's store did not answer: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Say what is wrong with the way to the store; what the store itself says may quote a command, and so is left."""
    told = type(error).__name__
    if isinstance(error, RedisConnectionError | RedisTimeoutError) and not isinstance(error, AuthenticationError):
        told += f": {(str(error).splitlines() or [''])[0][:_LONGEST_REASON]}"
    return told


class RedisFeed:
    """Both lanes and the presence board on one server; `pubsub` is a client without a socket timeout.

    For a follower `pubsub` and `reading` may lead to a replica of the server that `redis` writes to: what is late
    there makes it stale, and nothing there is believed that its publisher did not sign. `assurance` is for
    publishers: it sees to each event that was appended.
    """

    def __init__(
        self, redis: Redis, *, pubsub: Redis, reading: Redis | None = None, assurance: Assurance | None = None
    ) -> None:
        self._redis, self._pubsub, self._reading = redis, pubsub, reading or redis
        self._assurance = assurance or Assurance()
        self._shas: dict[str, str] = {}
        self._snapshots = RedisSnapshots(redis, self._script, reading=self._reading)

    async def append(self, event: SignedEvent, *, after: Position, beside: Beside = NOTHING_BESIDE) -> None:
        """Add an event if the lane stands exactly at `after`; see the protocol.

        Raises Unconfirmed where the event stands, and is less durable than the assurance requires.
        """
        lane, position = event.event.lane, event.position
        keys = [head_key(lane), stream_key(lane, position.epoch)]
        if lane is Lane.KEYS:  # The other lane's publisher has no right to sealed keys, not even by name.
            keys.append(SEALED_KEY)
        sealed = [part for kid, box in beside.sealed.items() for part in (kid, box)]
        arguments = (
            str(after), f"{position.sequence}-0", event.compact, str(position), _moment(event.event.at),
            bell_channel(lane), len(beside.erased), *beside.erased, *sealed,
        )  # fmt: skip
        done = await self._written(scripts.APPEND, keys, arguments, position=position, lane=lane)
        if done == _SPOILED:
            raise StreamSpoiled(f"the stream of epoch {position.epoch} of lane {lane} was written to by somebody else")
        if not done:
            raise PositionTaken(f"lane {lane} does not stand at {after.epoch}:{after.sequence}")

    async def beat(self, head: SignedHead, *, beater: str) -> bool:
        """Store and ring a head if the lane stands at its position and it is our turn; see the protocol."""
        lane, at = head.head.lane, head.head.at
        arguments = (
            str(head.position), _moment(at), head.compact, bell_channel(lane), _moment(at + MOST_AHEAD_SECONDS),
            beater, _moment(at - BEAT_LEASE_SECONDS),
        )  # fmt: skip
        return bool(await self._script(scripts.BEAT, [head_key(lane)], *arguments))

    async def confirm(self, lane: Lane, position: Position) -> bool:
        """Make a write that only succeeds where the lane stands at that position."""
        return bool(await self._script(scripts.CONFIRM, [head_key(lane)], str(position)))

    async def assure(self, lane: Lane, position: Position) -> bool:
        """See to it that all events up to a position are as durable as required; False if the lane stands elsewhere.

        It writes, since only what was written can be waited for. Raises Unconfirmed, or FeedUnavailable.
        """
        return bool(
            await self._written(scripts.CONFIRM, [head_key(lane)], (str(position),), position=position, lane=lane)
        )

    async def open_epoch(self, snapshot: SignedSnapshot, *, after: str | None, chunks: Chunks = NO_CHUNKS) -> bool:
        """Begin an epoch if the stored position is `after` (None: if nothing is there); see the protocol."""
        stored = (after or "").encode(_ANY_BYTES)
        arguments = (stored, str(snapshot.position), snapshot.compact, _moment(snapshot.snapshot.at))
        return await self._store(scripts.OPEN, snapshot, chunks, *arguments, bell_channel(snapshot.snapshot.lane))

    async def keep_snapshot(self, snapshot: SignedSnapshot, chunks: Chunks = NO_CHUNKS) -> bool:
        """Store a snapshot of a place in the running epoch, if it is newer than the stored one."""
        with _reaching():
            held = await self._snapshots.position(snapshot.snapshot.lane)
        try:
            stored = parse_position(held)
        except MalformedInput:
            return False  # Nothing is there, or nothing of ours.
        if stored.epoch != snapshot.position.epoch or stored.sequence >= snapshot.position.sequence:
            return False
        return await self._store(scripts.KEEP, snapshot, chunks, str(stored), str(snapshot.position), snapshot.compact)

    async def mend_snapshot(self, snapshot: SignedSnapshot, chunks: Chunks = NO_CHUNKS) -> bool:
        """Store a snapshot of exactly where the lane stands, and all of its chunks, whatever is stored."""
        return await self._store(scripts.MEND, snapshot, chunks, str(snapshot.position), snapshot.compact, anew=True)

    async def _store(
        self, script: str, snapshot: SignedSnapshot, chunks: Chunks, *arguments: str | bytes, anew: bool = False
    ) -> bool:
        lane = snapshot.snapshot.lane
        head, stream = head_key(lane), stream_key(lane, snapshot.position.epoch)
        with _reaching():
            return await self._snapshots.store(script, (head, stream), snapshot, chunks, *arguments, anew=anew)

    async def trim(self, lane: Lane, *, epoch: int, up_to: int) -> None:
        """Forget the events of an epoch up to a sequence."""
        with _reaching():
            await self._redis.xtrim(stream_key(lane, epoch), minid=f"{up_to + 1}-0", approximate=False)

    async def top(self, lane: Lane) -> Top | None:
        """Return the newest place."""
        return (await self._tops(lane))[lane]

    async def all_tops(self) -> dict[Lane, Top | None]:
        """Return the newest place of every lane, in one round trip."""
        return await self._tops(*Lane)

    async def _tops(self, *lanes: Lane) -> dict[Lane, Top | None]:
        with _reaching():
            pipeline = self._reading.pipeline(transaction=False)
            for lane in lanes:
                pipeline.hmget(head_key(lane), ["position", "statement"])
            return dict(zip(lanes, map(_top, await pipeline.execute(raise_on_error=False)), strict=True))

    async def events(self, lane: Lane, *, epoch: int, after: int) -> list[bytes]:
        """Return up to 256 events of an epoch after a sequence."""
        with _reaching():
            rows = await self._reading.xrange(stream_key(lane, epoch), min=f"({after}-0", max="+", count=BATCH)
        return [fields.get(b"event", b"") for _, fields in rows]

    async def snapshot(self, lane: Lane) -> bytes | None:
        """Return the newest stored snapshot."""
        with _reaching():
            return await self._snapshots.newest(lane)

    async def chunks(self, lane: Lane, digests: Sequence[str]) -> dict[str, bytes]:
        """Return those of up to 16 chunks that are stored, by digest."""
        with _reaching():
            return await self._snapshots.chunks(lane, digests)

    async def trust(self) -> bytes | None:
        """Return the stored trust document."""
        with _reaching():
            return cast("bytes | None", await self._reading.get(TRUST_KEY))

    async def keep_trust(self, compact: bytes, *, over: bytes | None = None) -> bool:
        """Store a trust document; with `over`, only in the place of that very one (empty: of none). Say whether."""
        if over is not None:
            return bool(await self._script(scripts.KEEP_TRUST, [TRUST_KEY], over, compact))
        with _reaching():
            await self._redis.set(TRUST_KEY, compact)
        return True

    async def sealed_keys(self) -> dict[str, bytes]:
        """Return the sealed private keys by kid."""
        with _reaching():
            boxes = await cast("Awaitable[dict[bytes, bytes]]", self._redis.hgetall(SEALED_KEY))
        return {kid.decode("ascii", "replace"): box for kid, box in boxes.items()}

    async def replace_sealed(self, kid: str, *, held: bytes, by: bytes) -> bool:
        """Replace the sealed form of a private key if it is still `held`."""
        return bool(await self._script(scripts.RESEAL, [SEALED_KEY], kid, held, by))

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[RedisDoorbell]:
        """Subscribe to both lanes."""
        async with subscription(self._pubsub) as (pubsub, reader):
            with _reaching():
                await pubsub.subscribe(*(bell_channel(lane) for lane in Lane))
            yield RedisDoorbell(reader, _LANE_OF)

    async def report(self, verifier: str, report: bytes, *, ttl_seconds: float) -> None:
        """Replace this verifier's report and tell those who watch, in one round trip."""
        key = PRESENCE + verifier
        with _reaching():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.set(key, report, px=int(ttl_seconds * 1000))
            pipeline.publish(key, report)
            await pipeline.execute()

    async def reports(self, verifiers: Sequence[str]) -> dict[str, bytes]:
        """Return the reports of these verifiers that have not run out; never a walk over the whole keyspace."""
        if not verifiers:
            return {}
        with _reaching():
            values = await self._redis.mget([PRESENCE + name for name in verifiers])
        pairs = zip(verifiers, values, strict=True)
        return {name: value for name, value in pairs if value is not None}

    async def server_run(self) -> str:
        """Name the server's present run."""
        with _reaching():
            facts = await self._redis.info("server")
        return str(facts["run_id"])

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[RedisPresenceBell]:
        """Subscribe to reports as they are made."""
        async with subscription(self._pubsub) as (pubsub, reader):
            with _reaching():
                await pubsub.psubscribe(PRESENCE + "*")
            yield RedisPresenceBell(reader, PRESENCE)

    async def _written(
        self, script: str, keys: list[str], arguments: tuple[Any, ...], *, lane: Lane, position: Position
    ) -> int:
        """Run a script that writes, and have it seen to on the same connection if it did."""
        if not self._assurance.asks:
            return await self._script(script, keys, *arguments)
        async with AsyncExitStack() as stack:
            with _reaching():
                alone = await stack.enter_async_context(self._redis.client())
            done = await self._script(script, keys, *arguments, on=alone)
            if done == 1:
                await self._assurance.see_to(alone, lane, position)
            return done

    async def _script(
        self, script: str, keys: list[str], *arguments: str | bytes | int, on: Redis | None = None
    ) -> int:
        redis = on or self._redis
        with _reaching():
            if script not in self._shas:
                self._shas[script] = cast("str", await redis.script_load(script))
            try:
                return await _run(redis, self._shas[script], keys, arguments)
            except NoScriptError:  # The server lost its scripts, as a restart makes it; nothing was done.
                self._shas[script] = cast("str", await redis.script_load(script))
                return await _run(redis, self._shas[script], keys, arguments)


async def _run(redis: Redis, sha: str, keys: list[str], arguments: tuple[Any, ...]) -> int:
    return int(await cast("Awaitable[int]", redis.evalsha(sha, len(keys), *keys, *arguments)))


def _top(answer: Any) -> Top | None:
    """Read what the server holds as a lane's head; raises the error with which it answered."""
    if isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE"):
        return None  # Somebody has put another type there: as good as nothing.
    if isinstance(answer, Exception):
        raise answer
    position, statement = answer
    if position is None or statement is None:
        return None
    return Top(position.decode(_ANY_BYTES), statement)


def _moment(at: float) -> str:
    """Write a moment in microseconds at a fixed width, so that strings compare as numbers do."""
    return f"{int(at * 1_000_000):020d}"
