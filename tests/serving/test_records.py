"""Sealed records: what is kept can be read by nobody else, moved nowhere else, and is gone when its time is up."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from keyturn import entropy
from keyturn.clock import SystemClock
from keyturn.contract.encoding import b64url, encode_json
from keyturn.contract.errors import MalformedInput, StoreUnavailable
from keyturn.contract.positions import Lane
from keyturn.feed.redis import head_key
from keyturn.process.values import Secret
from serving.records import LARGEST_RECORD_BYTES, RECORD_UNREADABLE, RecordKeys, RecordStore
from serving.settings import KeysInFile
from tests.building import FickleRedis, new_access_token, new_record_keys, write_secret
from tests.clocks import ManualClock

RECORD = {"sub": "alice", "aud": ["https://api.example"], "exp": 1_800_000_300}


@pytest.fixture
def redis() -> FickleRedis:
    """Return an empty store."""
    return FickleRedis()


@pytest.fixture
def store(redis: Redis) -> RecordStore:
    """Return a record store on it."""
    return RecordStore(redis, new_record_keys(), SystemClock())


async def test_a_record_comes_back_until_it_is_deleted(store: RecordStore) -> None:
    """The store does what it is for."""
    token = new_access_token()
    assert await store.get(token) is None
    await store.put(token, RECORD, expires_at=SystemClock().now() + 60)
    assert await store.get(token) == RECORD
    await store.delete(token)
    assert await store.get(token) is None


async def test_the_server_sees_neither_token_nor_content(store: RecordStore, redis: Redis) -> None:
    """Who steals the store's disk gets no token that works, and no name of a person."""
    token = new_access_token()
    await store.put(token, RECORD, expires_at=SystemClock().now() + 60)
    [name] = await redis.keys("*")
    box = await redis.get(name)
    assert name.startswith(b"keyturn:record:")
    assert token.encode() not in name
    assert b"alice" not in box
    assert 55_000 < await redis.pttl(name) <= 60_000
    other = RecordStore(redis, new_record_keys(), SystemClock())
    await other.put(token, RECORD, expires_at=SystemClock().now() + 60)
    assert len(await redis.keys("*")) == 2  # Without the pepper nobody can tell which record is a token's.


async def test_a_record_opens_under_its_own_name_and_keys_only(store: RecordStore, redis: Redis) -> None:
    """Who can write to the store cannot make one token another's, nor change a bit: both count as absent."""
    mine, other = new_access_token(), new_access_token()
    for token in (mine, other):
        await store.put(token, {"sub": token[-4:]}, expires_at=SystemClock().now() + 60)
    first, second = await redis.keys("*")
    await redis.copy(first, second, replace=True)
    found = [await store.get(mine), await store.get(other)]
    assert sorted(one is None for one in found) == [False, True]
    for name in (first, second):
        box = bytearray(await redis.get(name))
        box[-1] ^= 1
        await redis.set(name, bytes(box))
    assert [await store.get(mine), await store.get(other)] == [None, None]
    await redis.set(first, b"short")
    assert [await store.get(mine), await store.get(other)] == [None, None]
    assert await RecordStore(redis, new_record_keys(), SystemClock()).get(mine) is None


async def test_two_records_of_one_content_share_no_bytes(store: RecordStore, redis: Redis) -> None:
    """A nonce that repeats would break the seal."""
    token = new_access_token()
    boxes = set()
    for _ in range(8):
        await store.put(token, RECORD, expires_at=SystemClock().now() + 60)
        [name] = await redis.keys("*")
        boxes.add((await redis.get(name))[:12])
    assert len(boxes) == 8


async def test_reads_asked_together_share_one_round_trip_and_tell_the_positions(
    store: RecordStore, redis: FickleRedis
) -> None:
    """A thousand introspections at once do not make a thousand round trips."""
    await redis.execute_command("HSET", head_key(Lane.REVOCATIONS), "position", "1:7:x")
    tokens = [new_access_token() for _ in range(20)]
    for number, token in enumerate(tokens[:10]):
        await store.put(token, {"n": number}, expires_at=SystemClock().now() + 60)
    readings = await asyncio.gather(*(store.read(token) for token in tokens))
    assert [one.record for one in readings] == [{"n": number} for number in range(10)] + [None] * 10
    assert all(one.positions == {Lane.KEYS: None, Lane.REVOCATIONS: b"1:7:x"} for one in readings)
    assert redis.trips == 1
    assert (await store.positions())[Lane.REVOCATIONS] == b"1:7:x"


async def test_a_store_that_is_away_is_unavailable_for_everyone_who_asks(
    store: RecordStore, redis: FickleRedis
) -> None:
    """RFC 9110, 15.6.4: a failure is 503, never an absent record; and a failed batch fails each waiter."""
    redis.away = True
    token = new_access_token()
    for asked in (store.get(token), store.read(token), store.put(token, RECORD, expires_at=2e9), store.delete(token)):
        with pytest.raises(StoreUnavailable):
            await asked
    failures = await asyncio.gather(*(store.read(token) for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in failures] == [StoreUnavailable] * 5
    redis.away = False
    assert (await store.read(token)).record is None


async def test_a_record_has_a_largest_size(redis: Redis) -> None:
    """A limit on everything that grows."""
    store = RecordStore(redis, new_record_keys(), ManualClock())
    with pytest.raises(MalformedInput):
        await store.put(new_access_token(), {"x": "y" * 20_000}, expires_at=2e9)


async def test_records_work_on_a_real_server(valkey: Redis) -> None:
    """The same on the server that production has."""
    store = RecordStore(valkey, new_record_keys(), SystemClock())
    token = new_access_token()
    await store.put(token, RECORD, expires_at=SystemClock().now() + 0.05)
    assert (await store.read(token)).record == RECORD
    await SystemClock().sleep(0.1)
    assert (await store.read(token)).record is None


def test_record_keys_are_read_strictly_and_never_shown() -> None:
    """A key file of another kind must not become a key; a repr ends up in logs."""
    good = {"id": "1", "seal": b64url(bytes(32)), "pepper": b64url(bytes(32))}
    assert RecordKeys.parse(encode_json(good)).id == "1"
    assert "seal" not in repr(RecordKeys.parse(encode_json(good)))
    for bad in ({**good, "seal": b64url(bytes(31))}, {**good, "more": "x"}, {"id": "1"}, {**good, "pepper": 7}):
        with pytest.raises(MalformedInput):
            RecordKeys.parse(encode_json(bad))


@pytest.mark.parametrize("lane", Lane)
async def test_a_head_of_another_type_makes_everything_unknown(store: RecordStore, redis: Redis, lane: Lane) -> None:
    """Somebody else has written there: an answer of 500 would not make a client come back."""
    token = new_access_token()
    await store.put(token, RECORD, expires_at=SystemClock().now() + 60)
    await redis.set(head_key(lane), b"no hash")
    with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
        await store.read(token)


def _rotated(keys: RecordKeys) -> RecordKeys:
    """Return keys with another pepper in front."""
    return RecordKeys("next", keys.seal, entropy.token_bytes(32), (keys, *keys.older))


async def test_a_rotated_pepper_hides_new_records_and_finds_old_ones(redis: FickleRedis) -> None:
    """Who learned the old pepper cannot tell any more which record is a token's; nobody loses a token by that."""
    clock, first = SystemClock(), new_record_keys()
    second = _rotated(first)
    third = _rotated(second)
    old, new = new_access_token(), new_access_token()
    await RecordStore(redis, first, clock).put(old, {"sub": "old"}, expires_at=clock.now() + 60)
    store = RecordStore(redis, third, clock)
    await store.put(new, {"sub": "new"}, expires_at=clock.now() + 60)
    before = redis.trips
    readings = await asyncio.gather(store.read(old), store.read(new), store.read(new_access_token()))
    assert [one.record and one.record["sub"] for one in readings] == ["old", "new", None]
    assert redis.trips - before == 1
    assert await RecordStore(redis, first, clock).get(new) is None  # By the old pepper it cannot be found.
    page = await store.page(0)
    assert sorted(record["sub"] for _, record in page.records) == ["new", "old"]
    await store.delete(old)
    assert await store.get(old) is None


async def test_keys_that_change_under_a_running_service_are_taken_up(redis: FickleRedis) -> None:
    """No restart: the writer looks before it writes, and the reader where it finds nothing."""
    clock, first = SystemClock(), new_record_keys()
    second, offered = _rotated(first), list[RecordKeys]()
    reader = RecordStore(redis, first, clock, renew=lambda: offered.pop() if offered else None)
    token = new_access_token()
    await RecordStore(redis, second, clock).put(token, RECORD, expires_at=clock.now() + 60)
    assert (await reader.read(token)).record is None
    offered.append(second)
    assert (await reader.read(token)).record == RECORD
    writer = RecordStore(redis, first, clock, renew=_once(second))
    other = new_access_token()
    await writer.put(other, RECORD, expires_at=clock.now() + 60)
    assert await RecordStore(redis, first, clock).get(other) is None
    assert await reader.get(other) == RECORD


def _once(keys: RecordKeys) -> Callable[[], RecordKeys | None]:
    told = [keys]
    return lambda: told.pop() if told else None


def test_a_set_of_record_keys_is_read_strictly() -> None:
    """The newest first, at most four, each id once: what is looked for under each costs the store as often."""
    rows = [
        {"id": str(number), "seal": b64url(bytes(32)), "pepper": b64url(bytes([number] * 32))} for number in range(5)
    ]
    keys = RecordKeys.parse(encode_json({"keys": rows[:4]}))
    assert [keys.id, *(one.id for one in keys.older)] == ["0", "1", "2", "3"]
    assert "pepper" not in repr(keys)
    for bad in (rows, [], rows[0], [rows[0], rows[0]], [7]):
        with pytest.raises(MalformedInput):
            RecordKeys.parse(encode_json({"keys": bad}))


def test_a_file_of_record_keys_is_read_again_and_survives_a_bad_hand(tmp_path: Path) -> None:
    """A half-written file must not stop a service that works; a good one is taken up once."""
    path = tmp_path / "records.json"
    row = {"id": "1", "seal": b64url(bytes(32)), "pepper": b64url(bytes(32))}
    write_secret(path, json.dumps(row))
    file = KeysInFile(Secret.read(path))
    assert file.renewed() is None
    for broken in ("", "{", "{}"):
        path.write_text(broken)
        assert file.renewed() is None
    path.write_text(json.dumps({"keys": [{**row, "id": "2"}, row]}))
    renewed = file.renewed()
    assert renewed is not None
    assert (renewed.id, [one.id for one in renewed.older]) == ("2", ["1"])
    assert file.renewed() is None
    path.unlink()
    assert file.renewed() is None


async def test_the_positions_are_read_after_the_records(
    store: RecordStore, redis: FickleRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ADR 0005: what was revoked before a record was read lies behind them; the other way round it could be missed."""
    made, sent = redis.pipeline, list[str]()

    def pipeline(*arguments: object, **options: object) -> object:
        one = made(*arguments, **options)
        execute = one.execute

        async def noting(*given: object, **named: object) -> object:
            sent.extend(command[0][0] for command in one.command_stack)
            return await execute(*given, **named)

        monkeypatch.setattr(one, "execute", noting)
        return one

    monkeypatch.setattr(redis, "pipeline", pipeline)
    await asyncio.gather(store.read(new_access_token()), store.read(new_access_token()), store.positions())
    assert sent == ["GET", "GET", "HGET", "HGET"]


async def test_what_does_not_open_is_on_no_page_and_is_written_down(store: RecordStore, redis: FickleRedis) -> None:
    """Somebody else wrote it: the operator hears so where a token is looked for, and lists nobody's token."""
    token = new_access_token()
    await store.put(token, RECORD, expires_at=SystemClock().now() + 60)
    assert [record for _, record in (await store.page(0)).records] == [RECORD]
    [name] = await redis.keys("*")
    await redis.set(name, b"x" * 64)
    page = await store.page(0)
    assert (page.names, page.records) == (1, [])
    with capture_logs() as logs:
        assert await store.get(token) is None
    assert [one["event"] for one in logs] == [RECORD_UNREADABLE]


async def test_a_record_under_an_older_key_is_named_as_it_stands_and_deleted_there(redis: FickleRedis) -> None:
    """Who replaces a record by the name that it was found under must not write a second one beside it."""
    clock, first = SystemClock(), new_record_keys()
    second = RecordKeys("next", entropy.token_bytes(32), entropy.token_bytes(32), (first,))
    token, before = new_access_token(), RecordStore(redis, first, clock)
    await before.put(token, RECORD, expires_at=clock.now() + 60)
    found = await RecordStore(redis, second, clock).find(token)
    assert (found.name.encode(), found.record) == ((await redis.keys("*"))[0], RECORD)
    deleting = RecordStore(redis, first, clock, renew=_once(second))
    other = new_access_token()
    await RecordStore(redis, second, clock).put(other, RECORD, expires_at=clock.now() + 60)
    await deleting.delete(other)  # It was written by keys that this process has not looked for yet.
    assert await RecordStore(redis, second, clock).get(other) is None


async def test_a_record_of_the_largest_size_fits(store: RecordStore) -> None:
    """A limit that is named is kept to the byte; one more is refused."""
    spare = LARGEST_RECORD_BYTES - len(encode_json({"x": ""}))
    token = new_access_token()
    await store.put(token, {"x": "y" * spare}, expires_at=SystemClock().now() + 60)
    assert await store.get(token) == {"x": "y" * spare}
    with pytest.raises(MalformedInput):
        store.sealed(token, {"x": "y" * (spare + 1)})
    with pytest.raises(MalformedInput):
        RecordKeys.parse(encode_json({"id": "1", "seal": b64url(bytes(32)), "pepper": b64url(bytes(31))}))
    with pytest.raises(MalformedInput):
        RecordKeys.parse(encode_json({"keys": {"id": "1"}}))
