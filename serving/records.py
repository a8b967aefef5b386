"""Sealed records of opaque tokens: found by a keyed hash, opened only under the name that they were sealed for."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple, Self, TypeAlias

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from redis.asyncio import Redis
from redis.exceptions import RedisError

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.encoding import b64url, decode_object, encode_json, unb64url
from keyturn.contract.errors import MalformedInput, StoreUnavailable
from keyturn.contract.positions import Lane
from keyturn.feed.redis import head_key
from keyturn.process.logging import logger
from keyturn.process.redis import is_server_failure, store_errors
from serving.gathering import Gathering
from serving.storing import stored

PREFIX = "keyturn:record:"
RECORD_UNREADABLE = "record_unreadable"
LARGEST_RECORD_BYTES = 16 * 1024
_KEY_BYTES = 32
_NONCE_BYTES = 12
_MOST_READ_TOGETHER = 256
_LISTED_TOGETHER = 256
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class RecordKeys:
    """The key that seals records and the one that hides their names; neither shows itself."""

    id: str
    seal: bytes = field(repr=False)
    pepper: bytes = field(repr=False)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read `{"id", "seal", "pepper"}`, the keys 32 bytes in base64url; raises MalformedInput."""
        members = decode_object(raw)
        if members.keys() != {"id", "seal", "pepper"} or not all(isinstance(one, str) for one in members.values()):
            raise MalformedInput("record keys have exactly id, seal and pepper")
        seal, pepper = unb64url(members["seal"]), unb64url(members["pepper"])
        if len(seal) != _KEY_BYTES or len(pepper) != _KEY_BYTES:
            raise MalformedInput(f"seal and pepper have {_KEY_BYTES} bytes each")
        return cls(members["id"], seal, pepper)


Positions: TypeAlias = Mapping[Lane, bytes | None]
"""Where the store says that each lane stands."""


class Reading(NamedTuple):
    """A record, None where there is none, and where both lanes stood once it had been read."""

    record: dict[str, Any] | None
    positions: Positions


class Page(NamedTuple):
    """Some of all records: where the next ones begin (0 at the end), how many names there were, and what opened."""

    following: int
    names: int
    records: list[tuple[str, dict[str, Any]]]


class RecordStore:
    """Records by token, on Redis; every method raises StoreUnavailable when the store cannot say."""

    def __init__(self, redis: Redis, keys: RecordKeys, clock: Clock) -> None:
        self._redis, self._clock = redis, clock
        self._seal, self._pepper = AESGCM(keys.seal), keys.pepper
        self._reads = Gathering(self._read_all, most_together=_MOST_READ_TOGETHER)

    async def put(self, token: str, record: dict[str, Any], *, expires_at: float) -> None:
        """Keep a token's record until `expires_at` (Unix seconds)."""
        name = self._name(token)
        content = encode_json(record)
        if len(content) > LARGEST_RECORD_BYTES:
            raise MalformedInput(f"a record has at most {LARGEST_RECORD_BYTES} bytes")
        nonce = entropy.token_bytes(_NONCE_BYTES)
        box = nonce + self._seal.encrypt(nonce, content, name.encode("ascii"))
        lasting_ms = max(1, int((expires_at - self._clock.now()) * 1000))
        with stored():
            await self._redis.set(name, box, px=lasting_ms)

    async def get(self, token: str) -> dict[str, Any] | None:
        """Return a token's record, None if there is none; that it is still valid, the caller sees to."""
        name = self._name(token)
        with stored():
            box = await self._redis.get(name)
        return self._open(name, box)

    async def read(self, token: str) -> Reading:
        """Return a token's record and where both lanes stand, in one round trip that others may share."""
        name = self._name(token)
        box, positions = await self._reads.ask(name)
        return Reading(self._open(name, box), positions)

    async def positions(self) -> Positions:
        """Return where both lanes stand now, in one round trip that others may share."""
        return (await self._reads.ask(None))[1]

    async def page(self, cursor: int) -> Page:
        """Return some of all records, from a cursor on: 0 to begin with.

        A record that is there all the while is on one of the pages, or on several; what does not open is passed over,
        since it is nobody's token. One page takes the server and us a few milliseconds. Raises StoreUnavailable.
        """
        with store_errors(StoreUnavailable):
            following, names = await self._redis.scan(cursor, match=PREFIX + "*", count=_LISTED_TOGETHER)
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                pipeline.get(name)
            boxes = await pipeline.execute(raise_on_error=False) if names else []
            for box in boxes:
                if isinstance(box, RedisError) and is_server_failure(box):  # Of another type than ours is no failure.
                    raise box
        found = [(name.decode("ascii", "replace"), box) for name, box in zip(names, boxes, strict=True)]
        opened = ((name, self._unsealed(name, box)) for name, box in found if isinstance(box, bytes))
        return Page(int(following), len(names), [(name, record) for name, record in opened if record is not None])

    async def delete(self, token: str) -> None:
        """Forget a token's record; one that is not there is forgotten already."""
        with stored():
            await self._redis.delete(self._name(token))

    async def _read_all(self, names: Sequence[str | None]) -> list[tuple[bytes | None, Positions]]:
        # The positions are read last: what was revoked before a record was read lies behind them.
        with store_errors(StoreUnavailable):
            pipeline = self._redis.pipeline(transaction=False)
            for name in names:
                if name is not None:
                    pipeline.get(name)
            for lane in Lane:
                pipeline.hget(head_key(lane), "position")
            answers = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, RedisError):  # Also of another type than ours: then nothing here can be believed.
                raise StoreUnavailable(f"{type(answer).__name__}: {answer}"[:_LONGEST_REASON]) from answer
        *boxes, keys, revocations = answers
        positions = {Lane.KEYS: keys, Lane.REVOCATIONS: revocations}
        found = iter(boxes)
        return [(None if name is None else next(found), positions) for name in names]

    def _name(self, token: str) -> str:
        return PREFIX + b64url(hmac.digest(self._pepper, token.encode("utf-8", "surrogatepass"), sha256))

    def _open(self, name: str, box: bytes | None) -> dict[str, Any] | None:
        if box is None:
            return None
        record = self._unsealed(name, box)
        if record is None:
            logger("records").error(RECORD_UNREADABLE)
        return record

    def _unsealed(self, name: str, box: bytes) -> dict[str, Any] | None:
        try:
            content = self._seal.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], name.encode("utf-8"))
            return msgspec.json.decode(content, type=dict[str, Any])
        except (InvalidTag, ValueError, msgspec.DecodeError):  # Somebody else wrote it, or under another key.
            return None
