"""Grants that have to end: authorization writes them down in the step that finds it out, and revocation ends them.

Only revocation may write to the revocations lane. Each ending is sealed, so that who can write the store cannot end a
grant by it; nothing is taken away before the revocation that it asks for is durable.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from keyturn.contract.encoding import encode_json
from serving.records import RecordKeys, Renew
from serving.sealing import Sealer
from serving.storing import stored

ENDINGS_KEY: Final = "keyturn:endings"
MOST_ENDINGS: Final = 100_000
"""So many wait at most: until revocation has dealt with some, no other is written down, and who asked is told 503."""
MOST_READ: Final = 100
_FIELD: Final = b"ending"
_PURPOSE: Final = b"keyturn endings"


class Ending(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A grant that has to end, and why in a few words of ours."""

    iss: str
    grant_id: str
    reason: str


class Written(NamedTuple):
    """An ending as it stands in the store; None if what stands there is none of ours."""

    id: bytes
    ending: Ending | None


class Endings:
    """The endings that wait, on Redis; `read` and `remove` raise StoreUnavailable."""

    def __init__(self, redis: Redis, keys: RecordKeys, *, renew: Renew = lambda: None) -> None:
        self._redis, self._sealer = redis, Sealer(keys, purpose=_PURPOSE, renew=renew)

    def sealed(self, ending: Ending) -> bytes:
        """Return an ending as a script is to add it: `XADD keyturn:endings * ending BOX`."""
        return self._sealer.seal(encode_json(ending), beside=ENDINGS_KEY.encode("ascii"))

    async def read(self, *, wait_seconds: float) -> list[Written]:
        """Return the oldest endings that wait, up to 100; waits for the first one, but not for longer than that."""
        with stored():
            answer = await self._redis.xread(
                {ENDINGS_KEY: "0"}, count=MOST_READ, block=max(1, int(wait_seconds * 1000))
            )
        return [Written(entry, self._opened(fields)) for _, entries in answer or () for entry, fields in entries]

    async def remove(self, ids: Sequence[bytes]) -> None:
        """Take endings away that have been dealt with."""
        with stored():
            await self._redis.xdel(ENDINGS_KEY, *cast("Any", ids))

    def _opened(self, fields: dict[bytes, bytes]) -> Ending | None:
        content = self._sealer.open(fields.get(_FIELD, b""), beside=ENDINGS_KEY.encode("ascii"))
        try:
            return None if content is None else msgspec.json.decode(content, type=Ending)
        except msgspec.DecodeError:
            return None
