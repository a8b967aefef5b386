"""Sealed records of opaque tokens: found by a keyed hash, opened only under the name that they were sealed for."""

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain, islice
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
from keyturn.process.redis import store_errors
from serving.gathering import Gathering
from serving.storing import listed, stored

PREFIX = "keyturn:record:"
RECORD_UNREADABLE = "record_unreadable"
LARGEST_RECORD_BYTES = 16 * 1024
MOST_RECORD_KEYS = 4  # A record that is not there is looked for under each of them.
_KEY_BYTES = 32
_NONCE_BYTES = 12
_MOST_READ_TOGETHER = 256
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class RecordKeys:
    """The key that seals records and the one that hides their names; neither shows itself.

    What `older` ones have sealed and hidden is still found; nothing new is written by them.
    """

    id: str
    seal: bytes = field(repr=False)
    pepper: bytes = field(repr=False)
    older: tuple["RecordKeys", ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read `{"id", "seal", "pepper"}`, the keys 32 bytes in base64url, or `{"keys": [newest, …]}`, at most four.

        Raises MalformedInput.
        """
        members = decode_object(raw)
        rows = members["keys"] if members.keys() == {"keys"} else [members]
        if not isinstance(rows, list) or not 0 < len(rows) <= MOST_RECORD_KEYS:
            raise MalformedInput(f"record keys are 1 to {MOST_RECORD_KEYS}, the newest first")
        newest, *older = (cls._parse_one(row) for row in rows)
        if len({newest.id, *(one.id for one in older)}) != len(rows):
            raise MalformedInput("two record keys have one id")
        return cls(newest.id, newest.seal, newest.pepper, tuple(older))

    @classmethod
    def _parse_one(cls, members: object) -> Self:
        if not isinstance(members, dict) or members.keys() != {"id", "seal", "pepper"}:
            raise MalformedInput("record keys have exactly id, seal and pepper")
        if not all(isinstance(one, str) for one in members.values()):
            raise MalformedInput("id, seal and pepper of record keys are strings")
        seal, pepper = unb64url(members["seal"]), unb64url(members["pepper"])
        if len(seal) != _KEY_BYTES or len(pepper) != _KEY_BYTES:
            raise MalformedInput(f"seal and pepper have {_KEY_BYTES} bytes each")
        return cls(members["id"], seal, pepper)


Renew: TypeAlias = Callable[[], RecordKeys | None]
"""Tells the record keys if there are others by now, None if they are as they were."""

Positions: TypeAlias = Mapping[Lane, bytes | None]
"""Where the store says that each lane stands."""


class Reading(NamedTuple):
    """A record, None where there is none, and where both lanes stood once it had been read."""

    record: dict[str, Any] | None
    positions: Positions


class Found(NamedTuple):
    """A record as `Reading` has it, and the name that it has in the store."""

    name: str
    record: dict[str, Any] | None
    positions: Positions


class Sealed(NamedTuple):
    """A record as the store holds it: for who writes it by a script of their own."""

    name: str
    box: bytes


class Page(NamedTuple):
    """Some of all records: where the next ones begin (0 at the end), how many names there were, and what opened."""

    following: int
    names: int
    records: list[tuple[str, dict[str, Any]]]


class RecordStore:
    """Records by token, on Redis; every method raises StoreUnavailable when the store cannot say.

    Those under one prefix are nothing under another: their names are sealed in.
    """

    def __init__(
        self, redis: Redis, keys: RecordKeys, clock: Clock, *, renew: Renew = lambda: None, prefix: str = PREFIX
    ) -> None:
        self._redis, self._clock, self._renew, self._prefix = redis, clock, renew, prefix
        self._reads = Gathering(self._read_all, most_together=_MOST_READ_TOGETHER)
        self._use(keys)

    async def put(self, token: str, record: dict[str, Any], *, expires_at: float) -> None:
        """Keep a token's record until `expires_at` (Unix seconds)."""
        name, box = self.sealed(token, record)
        with stored():
            await self._redis.set(name, box, px=self.lasting_ms(expires_at))

    def sealed(self, token: str, record: Mapping[str, Any]) -> Sealed:
        """Return what `put` would write; raises MalformedInput for a record that is too large."""
        self._look_for_keys()
        content = encode_json(record)
        if len(content) > LARGEST_RECORD_BYTES:
            raise MalformedInput(f"a record has at most {LARGEST_RECORD_BYTES} bytes")
        name, nonce = self.names(token)[0], entropy.token_bytes(_NONCE_BYTES)
        return Sealed(name, nonce + self._seals[0].encrypt(nonce, content, name.encode("ascii")))

    def lasting_ms(self, until: float) -> int:
        """Return for how long the store has to keep what is good until then (Unix seconds); at least a moment."""
        return max(1, int((until - self._clock.now()) * 1000))

    async def get(self, token: str) -> dict[str, Any] | None:
        """Return a token's record, None if there is none; that it is still valid, the caller sees to."""
        return (await self.read(token)).record

    async def read(self, token: str) -> Reading:
        """Return a token's record and where both lanes stand, in one round trip that others may share.

        One that is not there is looked for again, where there are other keys by now.
        """
        _, record, positions = await self.find(token)
        return Reading(record, positions)

    async def find(self, token: str) -> Found:
        """Return what `read` does, and the name under which the record was found."""
        found = await self._find(token)
        return await self._find(token) if found.record is None and self._look_for_keys() else found

    async def positions(self) -> Positions:
        """Return where both lanes stand now, in one round trip that others may share."""
        return (await self._reads.ask(()))[1]

    async def positions_alone(self) -> Positions:
        """Return what `positions` does, in a round trip of its own: for who asks for many at once already."""
        return (await self._read_all([()]))[0][1]

    async def page(self, cursor: int) -> Page:
        """Return some of all records, from a cursor on: 0 to begin with.

        A record that is there all the while is on one of the pages, or on several; what does not open is passed over,
        since it is nobody's token. One page takes the server and us a few milliseconds. Raises StoreUnavailable.
        """
        some = await listed(self._redis, self._prefix, cursor)
        opened = ((name, self._unsealed(name, box)) for name, box in some.boxes)
        return Page(some.following, some.names, [(name, record) for name, record in opened if record is not None])

    async def delete(self, token: str) -> None:
        """Forget a token's record; one that is not there is forgotten already."""
        self._look_for_keys()
        with stored():
            await self._redis.delete(*self.names(token))

    async def _find(self, token: str) -> Found:
        names = self.names(token)
        boxes, positions = await self._reads.ask(names)
        for name, box in zip(names, boxes, strict=True):
            if box is not None and (record := self._open(name, box)) is not None:
                return Found(name, record, positions)
        return Found(names[0], None, positions)

    async def _read_all(self, asked: Sequence[tuple[str, ...]]) -> list[tuple[list[bytes | None], Positions]]:
        # The positions are read last: what was revoked before a record was read lies behind them.
        with store_errors(StoreUnavailable):
            pipeline = self._redis.pipeline(transaction=False)
            for name in chain.from_iterable(asked):
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
        return [(list(islice(found, len(names))), positions) for names in asked]

    def _use(self, keys: RecordKeys) -> None:
        every = (keys, *keys.older)
        self._seals = [AESGCM(seal) for seal in dict.fromkeys(one.seal for one in every)]
        self._peppers = [one.pepper for one in every]

    def _look_for_keys(self) -> bool:
        """Take up other keys if there are any; say so."""
        keys = self._renew()
        if keys is not None:
            self._use(keys)
        return keys is not None

    def names(self, token: str) -> tuple[str, ...]:
        """Return the names that a token's record may have, that of the newest pepper first."""
        text = token.encode("utf-8", "surrogatepass")
        return tuple(self._prefix + b64url(hmac.digest(pepper, text, sha256)) for pepper in self._peppers)

    def _open(self, name: str, box: bytes) -> dict[str, Any] | None:
        record = self._unsealed(name, box)
        if record is None:
            logger("records").error(RECORD_UNREADABLE)
        return record

    def _unsealed(self, name: str, box: bytes) -> dict[str, Any] | None:
        for seal in self._seals:
            try:
                content = seal.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], name.encode("utf-8"))
                return msgspec.json.decode(content, type=dict[str, Any])
            except (InvalidTag, ValueError, msgspec.DecodeError):  # Somebody else wrote it, or under another key.
                continue
        return None
