"""Where the store keeps status lists: no place is leased twice, and nobody but us writes or reads a row."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from keyturn.contract.errors import StoreUnavailable
from keyturn.contract.statuslists import SIZE, ListedToken
from keyturn.process.parent import tied
from keyturn.process.redis import connect
from serving.listings import BLOCK, LEASE_KEY, MOST_ROWS, ROWS_KEY, Listings
from serving.records import RecordKeys
from stack.server import EmbeddedServer
from tests.building import FickleRedis, new_record_keys
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
KEYS = new_record_keys()
HOUR = 3600.0


def token(index: int, **changes: Any) -> ListedToken:
    """Return a token at an index."""
    members: dict[str, Any] = {
        "index": index, "exp": 2_000_000_000.0, "jti": f"jti-{index}", "grant_id": "g", "sub": "alice",
        "client_id": "shop", "aud": ("https://api.example",),
    }  # fmt: skip
    return ListedToken(**(members | changes))


async def all_opened(listings: Listings) -> list[tuple[ListedToken, ...] | None]:
    """Return what all rows say."""
    return [listings.opened(row) for row in await listings.read(None)]


async def test_leases_follow_one_another_and_never_overlap(valkey: Redis) -> None:
    """Section 13.3: two tokens must not have one index."""
    listings = Listings(valkey, KEYS)
    leases = await asyncio.gather(*(listings.lease(0.0, list_seconds=HOUR) for _ in range(20)))
    assert len({one.name for one in leases}) == len({one.seed for one in leases}) == 1
    assert sorted(one.first for one in leases) == [BLOCK * number for number in range(20)]


async def test_a_full_list_is_followed_by_another(valkey: Redis) -> None:
    """The size is fixed; the last places are given, and none beyond."""
    listings = Listings(valkey, KEYS)
    first = await listings.lease(0.0, list_seconds=HOUR)
    await cast("Any", valkey.hset(LEASE_KEY, "next", str(SIZE - BLOCK)))
    last, new = [await listings.lease(0.0, list_seconds=HOUR) for _ in range(2)]
    assert (last.name, last.first) == (first.name, SIZE - BLOCK)
    assert new.first == 0
    assert (new.name, new.seed) != (first.name, first.seed)


@pytest.mark.parametrize(("moment", "another"), [(HOUR - 1, False), (HOUR, True), (1 - HOUR, False), (-HOUR - 1, True)])
async def test_a_list_takes_tokens_for_a_while_only(valkey: Redis, moment: float, another: bool) -> None:
    """So that it comes to an end once they have expired; a clock that was an hour ahead does not keep it open."""
    listings = Listings(valkey, KEYS)
    before = await listings.lease(1e9, list_seconds=HOUR)
    after = await listings.lease(1e9 + moment, list_seconds=HOUR)
    assert (after.name != before.name) is another


OURS: dict[str, str | bytes] = {"list": "n" * 16, "seed": "s" * 16, "next": "256", "since": "0"}


@pytest.mark.parametrize(
    "held",
    [
        {"list": "x"}, {"list": "x", "seed": "s", "next": "?", "since": "0"}, {"next": "256"},
        OURS | {"list": b"\xff" * 16}, OURS | {"list": "/../../evil?list"}, OURS | {"list": "n" * 5000},
        OURS | {"seed": ""}, OURS | {"since": "nan"}, OURS | {"since": "1e300"},
        *(OURS | {"next": next_place} for next_place in ("nan", "-256", "0.5", "7", "1e300")),
    ],
)  # fmt: skip
async def test_a_lease_that_cannot_be_read_is_begun_anew(valkey: Redis, held: dict[str, str | bytes]) -> None:
    """Whoever wrote it: places of a new list are nobody's, and no name that he chose stands in a token of ours."""
    await cast("Any", valkey.hset(LEASE_KEY, mapping=cast("Any", held)))
    one = await Listings(valkey, KEYS).lease(0.0, list_seconds=HOUR)
    assert len(one.name) == len(OURS["list"])
    assert one.name != held.get("list")
    assert one.first == 0


async def test_a_lease_of_our_form_is_gone_on_with(valkey: Redis) -> None:
    """Else each lease would begin a list."""
    await cast("Any", valkey.hset(LEASE_KEY, mapping=cast("Any", OURS)))
    one = await Listings(valkey, KEYS).lease(0.0, list_seconds=HOUR)
    assert (one.name, one.seed, one.first) == ("n" * 16, b"s" * 16, 256)


_LEASING = """
import asyncio, sys
from keyturn.process.redis import connect
from serving.listings import Listings
from tests.building import new_record_keys

async def run():
    listings = Listings(connect(sys.argv[1], client_name="leaser"), new_record_keys())
    while True:
        lease = await listings.lease(0.0, list_seconds=3600.0)
        print(lease.name, lease.first, flush=True)

asyncio.run(run())
"""


def _start_leasing(url: str, out: Path) -> "subprocess.Popen[bytes]":
    with out.open("wb") as file:
        return subprocess.Popen(tied([sys.executable, "-c", _LEASING, url]), stdout=file, cwd=ROOT)


async def test_no_place_is_given_twice_whatever_crashes(own_valkey: EmbeddedServer, tmp_path: Path) -> None:
    """Section 13.3: processes killed at any moment, the server killed and begun again, and others going on."""
    files = [tmp_path / str(number) for number in range(2)]
    started = [_start_leasing(own_valkey.url(), file) for file in files]
    await eventually(lambda: all(file.read_text().count("\n") > 5 for file in files), within_seconds=30)
    for process in started:
        process.kill()
        process.wait()
    await own_valkey.kill()
    await own_valkey.restart()
    redis = connect(own_valkey.url(), client_name="tests")
    listings = Listings(redis, KEYS)
    after = [await listings.lease(0.0, list_seconds=HOUR) for _ in range(20)]
    await redis.aclose()
    before = [line for file in files for line in file.read_text().split("\n")[:-1]]  # The last may be half a line.
    told = [*before, *(f"{one.name} {one.first}" for one in after)]
    assert len(set(told)) == len(told) > 30
    assert len({line.split()[0] for line in told}) == 1 + (len(told) > SIZE // BLOCK)


async def test_rows_come_back_in_order_and_the_server_reads_none() -> None:
    """Who steals the store's disk learns no token's name, and no person's."""
    redis = FickleRedis()
    listings = Listings(redis, KEYS)
    await listings.write({"one": [token(1), token(2, sid="s")], "two": [token(3)]}, keep_seconds=HOUR)
    await listings.write({"one": [token(4, aud=("a", "b"))]}, keep_seconds=HOUR)
    rows = await listings.read(None)
    assert [(row.name, listings.opened(row)) for row in rows] == [
        ("one", (token(1), token(2, sid="s"))), ("two", (token(3),)), ("one", (token(4, aud=("a", "b")),)),
    ]  # fmt: skip
    assert await listings.read(rows[1].id) == rows[1:]
    assert not [
        raw for _, raw in await redis.xrange(ROWS_KEY) if b"alice" in raw[b"tokens"] or b"jti-" in raw[b"tokens"]
    ]


async def test_a_row_opens_for_its_own_list_and_by_our_keys_only() -> None:
    """Who can write the store puts no token into a list; what is there and cannot be read is told, and not skipped."""
    redis = FickleRedis()
    listings = Listings(redis, KEYS)
    await listings.write({"one": [token(1)]}, keep_seconds=HOUR)
    [(_, fields)] = await redis.xrange(ROWS_KEY)
    box = fields[b"tokens"]
    for name, changed in (("two", box), ("one", box[:-1]), ("one", b""), ("one", bytes([box[0] ^ 1]) + box[1:])):
        await redis.xadd(ROWS_KEY, {"list": name, "tokens": changed})
    await redis.xadd(ROWS_KEY, {"other": "x"})
    opened = await all_opened(listings)
    assert [tokens is None for tokens in opened] == [False, True, True, True, True, True]
    assert await all_opened(Listings(redis, new_record_keys())) == [None] * 6


async def test_rows_go_once_their_tokens_have_expired(valkey: Redis) -> None:
    """The store does not grow for ever, and nothing is let go early."""
    listings = Listings(valkey, KEYS)
    seconds, micros = await valkey.time()
    old, young = (seconds - 7200) * 1000 + micros // 1000, (seconds - 1800) * 1000
    for moment in (old, young):
        for number in range(200):  # Whole nodes of the stream go, of a hundred rows each.
            await valkey.xadd(ROWS_KEY, {"list": "one", "tokens": "x"}, id=f"{moment}-{number}")
    await listings.write({"one": [token(1)]}, keep_seconds=HOUR)
    ids = [int(row_id.split(b"-")[0]) for row_id, _ in await valkey.xrange(ROWS_KEY)]
    assert ids.count(young) == 200
    assert ids.count(old) < 100
    assert len(ids) > 200


async def test_what_the_store_cannot_do_is_told_as_such(valkey: Redis) -> None:
    """Another type in the place, or no server: 503 at every door, and never a place or a list out of thin air."""
    away = FickleRedis()
    away.away = True
    await valkey.set(LEASE_KEY, "x")
    await valkey.set(ROWS_KEY, "x")
    for listings in (Listings(valkey, KEYS), Listings(away, KEYS)):
        for asking in (
            listings.lease(0.0, list_seconds=HOUR), listings.write({"one": [token(1)]}, keep_seconds=HOUR),
            listings.read(None),
        ):  # fmt: skip
            with pytest.raises(StoreUnavailable):
                await asking


async def test_reading_is_bounded(valkey: Redis) -> None:
    """A page at a time, each from the last row of the one before on."""
    for number in range(MOST_ROWS + 10):
        await valkey.xadd(ROWS_KEY, {"list": "one", "tokens": "x"}, id=f"1-{number + 1}")
    listings = Listings(valkey, KEYS)
    first = await listings.read(None)
    assert len(first) == MOST_ROWS
    assert [row.id for row in await listings.read(first[-1].id)] == [f"1-{MOST_ROWS + n}".encode() for n in range(11)]


async def test_rows_of_older_keys_open_and_newer_keys_are_taken_up() -> None:
    """Record keys rotate without a restart, in one process after the other: no list may become unknown by that."""
    redis, newer = FickleRedis(), new_record_keys()
    after = replace(newer, id="newer", older=(KEYS,))
    found: list[RecordKeys] = []
    behind = Listings(redis, KEYS, renew=lambda: found.pop() if found else None)
    ahead = Listings(redis, after)
    await behind.write({"one": [token(1)]}, keep_seconds=HOUR)
    await ahead.write({"one": [token(2)]}, keep_seconds=HOUR)
    assert await all_opened(ahead) == [(token(1),), (token(2),)]
    assert await all_opened(behind) == [(token(1),), None]
    found.append(after)
    assert await all_opened(behind) == [(token(1),), (token(2),)]
    found.append(replace(newer, id="newest"))
    await behind.write({"one": [token(3)]}, keep_seconds=HOUR)
    assert await all_opened(Listings(redis, newer)) == [None, (token(2),), (token(3),)]
