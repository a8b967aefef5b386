"""A key of another type than ours, which whoever can write the store can put anywhere, is as good as no store."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from keyturn.clock import SystemClock
from keyturn.contract.errors import StoreUnavailable
from revocation.receiving.once import Received, _name
from revocation.streams.store import PREFIX, StreamStore
from serving.listings import LEASE_KEY, ROWS_KEY, Listings
from serving.records import RecordStore
from tests.building import new_access_token, new_record_keys

TOKEN, KEYS, IDP = new_access_token(), new_record_keys(), "https://idp.example"


def records(redis: Redis) -> RecordStore:
    """Return the records of that store."""
    return RecordStore(redis, KEYS, SystemClock())


def stream(redis: Redis) -> StreamStore:
    """Return what a stream keeps in that store."""
    return StreamStore(redis, "one")


RECORD = RecordStore(Redis(), KEYS, SystemClock()).names(TOKEN)[0]
ASKED: dict[str, tuple[str, Callable[[Redis], Awaitable[object]]]] = {
    "a record": (RECORD, lambda redis: records(redis).get(TOKEN)),
    "a record with the positions": (RECORD, lambda redis: records(redis).read(TOKEN)),
    "an event that was taken": (_name(IDP, "1"), lambda redis: Received(redis).has(IDP, "1")),
    "a stream's progress": (f"{PREFIX}one:progress", lambda redis: stream(redis).progress()),
    "a stream's next step": (f"{PREFIX}one:progress", lambda redis: stream(redis).settle(b"", b"1")),
    "a stream's letter": (f"{PREFIX}one:dead", lambda redis: stream(redis).settle(b"", b"1", [{"err": "x"}])),
    "a stream's letters": (f"{PREFIX}one:dead", lambda redis: stream(redis).raw_letters()),
    "what a stream tells again": (f"{PREFIX}one:again", lambda redis: stream(redis).again()),
    "a stream's turn": (f"{PREFIX}one:turn", lambda redis: stream(redis).take_turn("me", lasting_seconds=1)),
    "a list's place": (LEASE_KEY, lambda redis: Listings(redis, KEYS).lease(0.0, list_seconds=1.0)),
    "a list's rows": (ROWS_KEY, lambda redis: Listings(redis, KEYS).read(None)),
}


@pytest.mark.parametrize("what", ASKED)
async def test_what_stands_where_nobody_of_us_put_it_is_unavailable(valkey: Redis, what: str) -> None:
    """503 and a line in the log, not a 500 with a stack trace; and never taken for "it is not there"."""
    key, ask = ASKED[what]
    await cast("Any", valkey.sadd(key, "somebody else's"))
    with pytest.raises(StoreUnavailable):
        await ask(valkey)
