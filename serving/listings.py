"""What the store knows of status lists: which places are leased to whom, and which token stands at each.

Authorization leases places and writes; revocation reads. Every row is sealed for its list, so that the store's owner
learns no token's names from it and can put no token into a list. Who can write the store can take rows away, or turn
the lease back: the lists then say less than the feed does, or show two tokens by one bit.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from keyturn import entropy
from keyturn.contract.encoding import b64url
from keyturn.contract.statuslists import SIZE, ListedToken
from serving.records import RecordKeys, Renew
from serving.sealing import Sealer
from serving.storing import stored

LEASE_KEY: Final = "keyturn:statuslists:lease"
ROWS_KEY: Final = "keyturn:statuslists:rows"
BLOCK: Final = 256  # Places that are leased at once.
MOST_ROWS: Final = 256  # That are read at once.
_PURPOSE: Final = b"keyturn status list rows"
_NAME_BYTES, _SEED_BYTES = 12, 16

# The next places of the running list; a new list where none is left, or the list has run for long enough (or began in
# the future: a clock was put right), or the lease is not of our form: its name stands in tokens that we sign. The
# places are taken before anybody uses them, so that none is taken twice.
_LEASE = """
local held = redis.call('HMGET', KEYS[1], 'list', 'seed', 'next', 'since')
local list, seed, first, since = held[1], held[2], tonumber(held[3] or ''), tonumber(held[4] or '')
local count, size, now, last = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local ours = list and seed and #list == #ARGV[1] and list:match('^[%w_-]+$') and #seed == #ARGV[2]
ours = ours and first and first >= 0 and first + count <= size and first % count == 0
if not (ours and since and since > now - last and since <= now + last) then
  list, seed, first = ARGV[1], ARGV[2], 0
  redis.call('HSET', KEYS[1], 'list', list, 'seed', seed, 'since', ARGV[5])
end
redis.call('HSET', KEYS[1], 'next', string.format('%d', first + count))
return {list, seed, first}
"""
# Rows go once every token on them has expired: by the server's clock, which also gave them their ids.
_WRITE = """
local id
for i = 2, #ARGV, 2 do id = redis.call('XADD', KEYS[1], '*', 'list', ARGV[i], 'tokens', ARGV[i + 1]) end
local oldest = tonumber(id:match('^%d+')) - tonumber(ARGV[1])
if oldest > 0 then redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', oldest)) end
return 1
"""
_TOKENS = msgspec.msgpack.Decoder(tuple[ListedToken, ...])


class Lease(NamedTuple):
    """Places of a list that nobody else has: `places` turns of its shuffle, from `first` on."""

    name: str
    seed: bytes
    first: int
    places: int


class Row(NamedTuple):
    """Tokens of a list that were written together, as they are sealed."""

    id: bytes
    list: bytes
    box: bytes

    @property
    def name(self) -> str:
        """Return what the list is called."""
        return self.list.decode("ascii", "replace")


class Listings:
    """The lease and the rows on Redis; every method raises StoreUnavailable."""

    def __init__(self, redis: Redis, keys: RecordKeys, *, renew: Renew = lambda: None) -> None:
        """Seal by the newest of the record keys, and open by any; `renew` returns others once there are some."""
        self._redis, self._sealer = redis, Sealer(keys, purpose=_PURPOSE, renew=renew)
        self._lease, self._write = redis.register_script(_LEASE), redis.register_script(_WRITE)

    async def lease(self, now: float, *, list_seconds: float) -> Lease:
        """Take the next places, for good; a list that began `list_seconds` ago is followed by another."""
        name, seed = b64url(entropy.token_bytes(_NAME_BYTES)), entropy.token_bytes(_SEED_BYTES)
        arguments = (name, seed, BLOCK, SIZE, f"{now:.3f}", f"{list_seconds:.3f}")
        answer = await self._run(self._lease, LEASE_KEY, arguments)
        return Lease(answer[0].decode("ascii"), answer[1], int(answer[2]), BLOCK)

    async def write(self, rows: Mapping[str, Sequence[ListedToken]], *, keep_seconds: float) -> None:
        """Add a row for each list, and let go of those older than `keep_seconds`; after that the tokens may leave."""
        arguments: list[str | bytes | int] = [int(keep_seconds * 1000)]
        for name, tokens in rows.items():
            content = msgspec.msgpack.encode(tuple(tokens))
            arguments += [name, self._sealer.seal(content, beside=name.encode("ascii"))]
        await self._run(self._write, ROWS_KEY, arguments)

    async def read(self, after: bytes | None) -> list[Row]:
        """Return up to 256 rows from one on, itself included; all from the first on for None."""
        with stored():
            rows = await self._redis.xrange(ROWS_KEY, min=after or "-", max="+", count=MOST_ROWS)
        return [_row(row_id, fields) for row_id, fields in rows if fields is not None]

    def opened(self, row: Row) -> tuple[ListedToken, ...] | None:
        """Return the tokens of a row; None if it was written by others, for another list or under other keys."""
        content = self._sealer.open(row.box, beside=row.list)
        try:
            return None if content is None else _TOKENS.decode(content)
        except (ValueError, msgspec.DecodeError):
            return None

    async def _run(self, script: Any, key: str, arguments: Sequence[str | bytes | int]) -> Any:
        with stored():
            return cast("Any", await script(keys=[key], args=arguments))


def _row(row_id: bytes, fields: Mapping[bytes, bytes]) -> Row:
    return Row(row_id, fields.get(b"list", b""), fields.get(b"tokens", b""))
