"""What a service stands on: its own user of the store, and a replica that reaches what the store just told it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.contract.errors import FeedUnavailable, ReplicaExpired, StoreUnavailable
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.process.redis import connect
from keyturn.process.settings import Settings
from keyturn.process.values import Secret
from keyturn.verifier.freshness import State
from serving.parts import open_parts
from serving.records import RecordStore
from serving.settings import record_store
from stack.server import EmbeddedServer
from tests.building import Standing, new_access_token, new_record_keys, standing
from tests.waiting import eventually


@pytest.fixture
async def stage() -> AsyncIterator[Standing]:
    """Begin a world; the replica hears nothing by itself."""
    async with standing(FakeAsyncRedis(), deaf=True) as one:
        yield one


async def revoke_elsewhere(stage: Standing) -> None:
    """Append a revocation that this replica has not heard of."""
    await stage.revoke(stage.world.entry(SelectorKind.SUBJECT, "alice", before=1.0), elsewhere=True)


async def test_the_replica_reaches_the_position_that_the_store_tells(stage: Standing) -> None:
    """What was revoked before the store was read is known before anything is said."""
    for count in (1, 2, 3):
        await revoke_elsewhere(stage)
        positions = await stage.records.positions()
        assert stage.parts.replica.place(Lane.REVOCATIONS) == (1, count - 1)
        await stage.parts.reach(positions)
        assert stage.parts.replica.place(Lane.REVOCATIONS) == (1, count)
        await stage.parts.reach(positions)


async def test_a_position_that_cannot_be_reached_or_read_is_unavailable(stage: Standing) -> None:
    """A store that promises more than it has, or nothing, or nonsense, cannot be answered from."""
    good = await stage.records.positions()
    for position in (b"1:99:abc", b"7:1:abc", b"nonsense", b"\xff", b"", None):
        with pytest.raises(FeedUnavailable):
            await stage.parts.reach({**good, Lane.REVOCATIONS: position})


async def test_the_doorbell_wakes_who_waits_without_a_read(valkey: Redis) -> None:
    """Mostly the event is on its way already: waiting for it costs a millisecond, not a tenth of a second."""
    async with standing(valkey) as stage:
        clock = SystemClock()
        await stage.parts.follower.catch_up()  # The next one may begin only after 100 ms.
        await revoke_elsewhere(stage)
        began = clock.boottime()
        await stage.parts.reach(await stage.records.positions())
        assert clock.boottime() - began < 0.09


async def test_a_replica_that_expired_is_never_relied_on(stage: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers from it would miss what was revoked since."""
    stage.parts.require_replica()
    assert stage.parts.unready() is None
    boottime = stage.parts.clock.boottime()
    monkeypatch.setattr(stage.parts.clock, "boottime", lambda: boottime + 1000)
    with pytest.raises(ReplicaExpired):
        stage.parts.require_replica()
    assert stage.parts.unready()


async def test_a_frozen_store_is_unavailable_within_seconds(own_valkey: EmbeddedServer) -> None:
    """R2: a frozen server gives no error by itself; the question must end all the same."""
    clock, redis = SystemClock(), connect(own_valkey.url(), client_name="tests", answer_seconds=0.3)
    store = RecordStore(redis, new_record_keys(), clock)
    assert (await store.read(new_access_token())).record is None
    own_valkey.freeze()
    began = clock.boottime()
    with pytest.raises(StoreUnavailable):
        await store.read(new_access_token())
    assert clock.boottime() - began < 3
    own_valkey.thaw()
    assert (await store.read(new_access_token())).record is None
    await redis.aclose()


@pytest.fixture
async def provisioned(tmp_path: Path) -> AsyncIterator[Path]:
    """Provision a directory, and run a Valkey with its users; give the directory."""
    directory = tmp_path / "keyturn"
    provision(directory, Plan(issuer="http://127.0.0.1:8400", dev=True), now=SystemClock().now())
    password = Secret.read(directory / "redis" / "default.password")
    acl = directory / "redis" / "users.acl"
    async with EmbeddedServer(tmp_path / "server", aclfile=acl, user="default", password=password) as server:
        (directory / "url").write_text(server.url())
        yield directory


@pytest.mark.parametrize(("user", "writes"), [("authorization", True), ("introspection", False)])
async def test_a_service_is_its_own_user_with_no_more_rights_than_it_needs(
    provisioned: Path, user: str, writes: bool
) -> None:
    """A hole in introspection must not write records, and neither who writes them nor who reads them touches the feed.

    Who writes them reads them, too: the sign-in page proves itself to authorization by an opaque token.
    """
    environ = {"KEYTURN_REDIS__URL": (provisioned / "url").read_text()}
    settings = Settings.read(provisioned / "keyturn.toml", environ=environ)
    clock = SystemClock()
    async with open_parts(settings, user=user, clock=clock) as parts:
        store = record_store(settings, parts.redis, clock)
        reading = await store.read(new_access_token())
        assert reading.record is None
        assert reading.positions == {Lane.KEYS: None, Lane.REVOCATIONS: None}
        assert parts.unready() == "no trust document has been read"
        await parts.follower.catch_up()
        put = parts.redis.set("keyturn:record:x", b"x")
        if writes:
            await put
        else:
            with pytest.raises(NoPermissionError):
                await put
        for forbidden in (
            parts.redis.set("keyturn:trust", b"x"),
            parts.redis.publish("keyturn:keys:bell", b"x"),
            parts.redis.hgetall("keyturn:sealed-keys"),
        ):
            with pytest.raises(NoPermissionError):
                await forbidden  # type: ignore[misc]


async def test_each_waits_for_the_place_that_he_was_told(stage: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever read the store later must not be let go with those who read it before: a revocation lies between.

    One who goes away meanwhile takes none of those along who wait for the same place.
    """
    good = await stage.records.positions()
    for _ in range(2):
        await revoke_elsewhere(stage)
    later = await stage.records.positions()
    earlier = {**good, Lane.REVOCATIONS: b"1:1:" + b"x" * 43}
    replica, gate = stage.parts.replica, asyncio.Event()
    catch_up = stage.parts.follower.catch_up

    async def slow() -> None:
        await gate.wait()
        await catch_up()

    monkeypatch.setattr(stage.parts.follower, "catch_up", slow)

    async def place_reached(positions: Mapping[Lane, bytes | None]) -> tuple[int, int]:
        await stage.parts.reach(positions)
        return replica.place(Lane.REVOCATIONS)

    asked = [asyncio.ensure_future(place_reached(one)) for one in (earlier, later, later)]
    await eventually(lambda: len(stage.parts._waiting) == 2)  # Two places, of which one is waited for twice.
    asked[1].cancel()
    await asyncio.wait([asked[1]])
    gate.set()
    assert (await asked[0])[1] >= 1
    assert await asked[2] == (1, 2)
    assert not stage.parts._flights
    assert not stage.parts._waiting


async def test_a_stale_replica_is_relied_on_still_and_time_does_not_go_back(
    stage: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`stale` is served and marked; and an order is dated by the publishers' word where our clock was set back."""
    clock = stage.parts.clock
    boottime, now = clock.boottime(), clock.now()
    monkeypatch.setattr(clock, "boottime", lambda: boottime + 10)
    assert stage.parts.state() is State.STALE
    stage.parts.require_replica()
    monkeypatch.setattr(clock, "now", lambda: now - 3600)
    assert stage.parts.now() > now - 60
