"""What a stream keeps in the store: its progress, its dead letters, and whose turn it is to push."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from keyturn.contract.encoding import decode_object
from keyturn.contract.errors import MalformedInput
from serving.storing import stored

PREFIX = "keyturn:streams:"
MOST_DEAD_LETTERS = 1000  # Of one stream; the oldest go.
# Keys: progress, dead letters. What is given up and its letter stand together or not at all.
_SETTLE = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
for i = 4, #ARGV do redis.call('LPUSH', KEYS[2], ARGV[i]) end
if #ARGV > 3 then redis.call('LTRIM', KEYS[2], 0, tonumber(ARGV[3]) - 1) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
# Keys: what waits to be told again, dead letters. The letters named go, and what they lead to waits, or neither.
_SEND_AGAIN = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
local gone, kept = {}, {}
for i = 3, #ARGV do gone[ARGV[i]] = true end
for _, letter in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do
  if not gone[letter] then kept[#kept + 1] = letter end
end
redis.call('DEL', KEYS[2])
for i = #kept, 1, -1 do redis.call('LPUSH', KEYS[2], kept[i]) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
_TAKE_TURN = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""

_LEAVE_TURN = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


class StreamStore:
    """One stream's part of the store; every method raises StoreUnavailable when the store cannot say."""

    def __init__(self, redis: Redis, name: str) -> None:
        self._redis, start = redis, PREFIX + name
        self._progress, self._letters, self._turn = f"{start}:progress", f"{start}:dead", f"{start}:turn"
        self._again, self._send_again = f"{start}:again", redis.register_script(_SEND_AGAIN)
        self._settle, self._take_turn = redis.register_script(_SETTLE), redis.register_script(_TAKE_TURN)
        self._leave_turn = redis.register_script(_LEAVE_TURN)

    async def progress(self) -> bytes:
        """Return how far the stream is, empty for one that never began."""
        with stored():
            return await self._redis.get(self._progress) or b""

    async def settle(self, held: bytes, progress: bytes, letters: Sequence[dict[str, Any]] = ()) -> bool:
        """Replace the progress if it is still `held`, and keep the letters with it; say whether that was so."""
        written = [msgspec.json.encode(letter) for letter in letters]
        with stored():
            return bool(
                await self._settle(
                    keys=[self._progress, self._letters], args=[held, progress, MOST_DEAD_LETTERS, *written]
                )
            )

    async def again(self) -> bytes:
        """Return what waits to be told again, empty for nothing."""
        with stored():
            return await self._redis.get(self._again) or b""

    async def settle_again(self, held: bytes, waiting: bytes, letters: Sequence[dict[str, Any]]) -> bool:
        """Replace what waits to be told again if it is still `held`, and keep the letters with it."""
        written = [msgspec.json.encode(letter) for letter in letters]
        with stored():
            return bool(
                await self._settle(keys=[self._again, self._letters], args=[held, waiting, MOST_DEAD_LETTERS, *written])
            )

    async def send_again(self, held: bytes, waiting: bytes, letters: Sequence[bytes]) -> bool:
        """Replace what waits to be told again if it is still `held`, and drop the letters that it came from."""
        with stored():
            return bool(await self._send_again(keys=[self._again, self._letters], args=[held, waiting, *letters]))

    async def take_turn(self, who: str, *, lasting_seconds: float) -> bool:
        """Say whether it is the turn of `who` to push, and let it last that long from now on."""
        with stored():
            return bool(await self._take_turn(keys=[self._turn], args=[who, int(lasting_seconds * 1000)]))

    async def leave_turn(self, who: str) -> None:
        """Let another one push at once, if it is the turn of `who`."""
        with stored():
            await self._leave_turn(keys=[self._turn], args=[who])

    async def count_letters(self) -> int:
        """Count the dead letters that are kept."""
        with stored():
            return int(await cast("Any", self._redis.llen(self._letters)))

    async def raw_letters(self) -> list[tuple[bytes, dict[str, Any]]]:
        """Return the dead letters that are kept, as they stand there and as they are read, the newest first."""
        with stored():
            kept = await cast("Any", self._redis.lrange(self._letters, 0, MOST_DEAD_LETTERS - 1))
        return [(one, letter) for one in kept if (letter := _read(one)) is not None]


def _read(raw: bytes) -> dict[str, Any] | None:
    try:
        return decode_object(raw)
    except MalformedInput:  # Somebody else has written it.
        return None
