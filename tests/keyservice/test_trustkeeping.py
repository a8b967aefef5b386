"""The newest document of file and store is in force and in the store, and nobody puts an older one back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from keyservice.trustkeeping import DOCUMENT_REFUSED, LOOK_SECONDS, STORE_REFUSED, TRUST_PUBLISHED, TrustKeeper
from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.roots import Bundle, sign_step
from keyturn.contract.trust import sign_trust
from keyturn.verifier.freshness import State
from tests.building import FickleRedis, Standing, standing
from tests.clocks import ManualClock
from tests.waiting import eventually
from tests.world import World, new_statement_key


@dataclass
class Desk:
    """A keeper's file and store."""

    one: Standing
    clock: ManualClock
    file: Path
    steps: list[bytes] = field(default_factory=list)

    @property
    def world(self) -> World:
        """Return the issuer."""
        return self.one.world

    def bundle(self, version: int, *, root: StatementKey | None = None, **changes: Any) -> bytes:
        """Return a document of that version by the newest root, and the way to it."""
        document = self.world.document(version=version, **changes)
        return Bundle(self.steps, sign_trust(root or self.world.root, document)).join()

    def rotate_root(self) -> StatementKey:
        """Let the root hand over to a new one; return the old."""
        old, self.world.root = self.world.root, new_statement_key()
        self.steps.append(sign_step(old=old, new=self.world.root, at=self.clock.now()))
        return old

    async def keeper(self) -> TrustKeeper:
        """Begin with what the file holds."""
        keeper = TrustKeeper(self.file, self.one.parts)
        await keeper.begin()
        return keeper

    async def stored(self) -> bytes | None:
        """Return the store's document."""
        return await self.one.parts.feed.trust()

    @property
    def version(self) -> int:
        """Return the version in force here."""
        return self.one.parts.replica.trust.version


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Begin with version 1 in store and file."""
    clock = ManualClock()
    async with standing(FickleRedis(), clock=clock, deaf=True) as one:
        desk = Desk(one, clock, tmp_path / "trust.jws")
        desk.file.write_bytes(desk.bundle(1))
        yield desk


async def test_a_newer_file_is_taken_up_while_running(desk: Desk) -> None:
    """Nobody has to restart the service that signs for everybody."""
    keeper = await desk.keeper()
    running = asyncio.create_task(keeper.run())
    await eventually(lambda: desk.clock.sleepers == 1)
    newer = desk.bundle(2)
    desk.file.write_bytes(newer + b"\n")  # As an editor leaves it.
    with capture_logs() as logs:
        desk.clock.advance(LOOK_SECONDS)
        await eventually(lambda: desk.version == 2)
        await eventually(lambda: desk.clock.sleepers == 1)
    assert await desk.stored() == newer
    assert [line["event"] for line in logs] == ["trust_adopted", TRUST_PUBLISHED]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_store_that_is_away_is_no_reason_to_end(desk: Desk) -> None:
    """The document goes out when the store is back."""
    keeper = await desk.keeper()
    running = asyncio.create_task(keeper.run())
    await eventually(lambda: desk.clock.sleepers == 1)
    redis = desk.one.redis
    assert isinstance(redis, FickleRedis)
    redis.away, newer = True, desk.bundle(2)
    desk.file.write_bytes(newer)
    desk.clock.advance(LOOK_SECONDS)
    await eventually(lambda: desk.version == 2)
    await eventually(lambda: desk.clock.sleepers == 1)
    redis.away = False
    desk.clock.advance(LOOK_SECONDS)
    await eventually(lambda: desk.clock.sleepers == 1)
    assert await desk.stored() == newer
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("when", ["at start", "while running"])
async def test_a_newer_document_in_the_store_is_adopted_and_stays(desk: Desk, when: str) -> None:
    """Somebody else brought it; this file is simply the older one, and heads must name the newer."""
    newer = desk.bundle(3)
    keeper = await desk.keeper() if when == "while running" else None
    await desk.one.parts.feed.keep_trust(newer)
    if keeper is None:
        keeper = await desk.keeper()
    await keeper.look()
    assert (desk.version, await desk.stored()) == (3, newer)


@pytest.mark.parametrize(
    "stored", ["older", "garbage", "nothing", "of a stranger", "of another issuer", "of a role", "dev", "huge"]
)
async def test_what_must_not_stand_in_the_store_is_replaced_while_running(desk: Desk, stored: str) -> None:
    """Who can write to the store may put yesterday's document there, for processes that start now."""
    desk.file.write_bytes(desk.bundle(2))
    keeper = await desk.keeper()
    role = next(iter(desk.world.roles.values()))
    put = {
        "older": desk.bundle(1),
        "garbage": b"x",
        "nothing": b"",
        "of a stranger": desk.bundle(9, root=new_statement_key()),
        "of another issuer": desk.bundle(9, issuer="https://other.example"),
        "of a role": desk.bundle(9, root=role),
        "dev": desk.bundle(9, dev=True),
        "huge": desk.bundle(9) + b"\n" * (2 << 20),
    }[stored]
    await desk.one.parts.feed.keep_trust(put)
    with capture_logs() as logs:
        await keeper.look()
        await keeper.look()
    assert (desk.version, await desk.stored()) == (2, desk.bundle(2))
    refused = [line for line in logs if line["event"] == STORE_REFUSED]
    assert len(refused) == (stored != "older")


async def test_a_newer_document_that_has_expired_is_neither_adopted_nor_replaced_by_an_older_one(desk: Desk) -> None:
    """The older one may name the very role that the newer took from a thief; only the root can end this."""
    keeper = await desk.keeper()
    expired = desk.bundle(9, expires_at=desk.clock.now() - 1)
    await desk.one.parts.feed.keep_trust(expired)
    with capture_logs() as logs:
        await keeper.look()
        desk.clock.advance(60)
        await keeper.look()
    assert (desk.version, await desk.stored()) == (1, expired)
    assert [line["event"] for line in logs] == [STORE_REFUSED]
    newest = desk.bundle(10)
    desk.file.write_bytes(newest)
    await keeper.look()
    assert (desk.version, await desk.stored()) == (10, newest)


@pytest.mark.parametrize("why", ["older", "stranger", "expired", "other issuer", "dev", "garbage", "gone", "huge"])
async def test_a_file_that_cannot_be_taken_is_said_once_and_changes_nothing(desk: Desk, why: str) -> None:
    """A slip of the operator's hand must not take trust away from everybody."""
    desk.file.write_bytes(desk.bundle(2))
    keeper = await desk.keeper()
    if why == "gone":
        desk.file.unlink()
    else:
        desk.file.write_bytes({
            "older": desk.bundle(1),
            "stranger": desk.bundle(3, root=new_statement_key()),
            "expired": desk.bundle(3, expires_at=desk.clock.now() - 1),
            "other issuer": desk.bundle(3, issuer="https://other.example"),
            "dev": desk.bundle(3, dev=True),
            "garbage": b"not a document",
            "huge": b"x" * (2 << 20),
        }[why])  # fmt: skip
    with capture_logs() as logs:
        await keeper.look()
        await keeper.look()
    assert [line["event"] for line in logs] == [DOCUMENT_REFUSED]
    assert (desk.version, await desk.stored()) == (2, desk.bundle(2))
    desk.file.write_bytes(desk.bundle(3))
    await keeper.look()
    assert desk.version == 3


@pytest.mark.parametrize("content", ["expired", "dev", "stranger", "gone"])
async def test_a_start_with_a_file_that_cannot_be_taken_is_refused(desk: Desk, content: str) -> None:
    """Then somebody is looking, and can mend it."""
    documents = {
        "expired": desk.bundle(1, expires_at=desk.clock.now()), "dev": desk.bundle(1, dev=True),
        "stranger": desk.bundle(1, root=new_statement_key()),
    }  # fmt: skip
    desk.file.unlink()
    if content != "gone":
        desk.file.write_bytes(documents[content])
    with pytest.raises(ConfigurationError, match=r"keyservice\.trust_document"):
        TrustKeeper(desk.file, desk.one.parts)


async def test_two_files_of_one_version_do_not_fight(desk: Desk) -> None:
    """The root signed twice by mistake: which one stands matters less than that it stands still."""
    keeper = await desk.keeper()
    other = desk.bundle(1, expires_at=desk.clock.now() + 5)
    await desk.one.parts.feed.keep_trust(other)
    await keeper.look()
    assert await desk.stored() == other


async def test_who_loses_the_race_for_the_store_leaves_the_newer_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between look and write another key service put version 3 there; ours is version 2."""
    keeper = await desk.keeper()
    desk.file.write_bytes(desk.bundle(2))
    feed, newest = desk.one.parts.feed, desk.bundle(3)
    looked = feed.trust

    async def slow() -> bytes | None:
        found = await looked()
        await feed.keep_trust(newest)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(feed, "trust", slow)
        await keeper.look()
    assert (desk.version, await desk.stored()) == (2, newest)
    await keeper.look()
    assert desk.version == 3


async def test_a_rotated_root_is_followed_from_the_file_and_the_old_one_is_done(desk: Desk) -> None:
    """The thief of the old root signs version 99: neither file nor store brings it in."""
    keeper = await desk.keeper()
    old = desk.rotate_root()
    desk.file.write_bytes(desk.bundle(2))
    await keeper.look()
    assert desk.version == 2
    for forged in (sign_trust(old, desk.world.document(version=99)), desk.bundle(99, root=old)):
        desk.file.write_bytes(forged)
        await desk.one.parts.feed.keep_trust(forged)
        await keeper.look()
        assert (desk.version, await desk.stored()) == (2, desk.bundle(2))


async def test_a_key_service_that_pins_the_new_root_takes_over_a_store_of_the_old_one(desk: Desk) -> None:
    """It was down while the root was rotated; this is its own store all the same."""
    before = desk.bundle(1)
    desk.rotate_root()
    desk.file.write_bytes(desk.bundle(2))
    pinned = World(root=desk.world.root, roles=desk.world.roles, feed=desk.world.feed, clock=desk.clock)
    async with standing(FickleRedis(), clock=desk.clock, deaf=True, root=pinned.root) as fresh:
        assert fresh.parts.pinned.root == desk.world.root.public
        await fresh.parts.feed.keep_trust(before)
        # A process that has adopted nothing yet.
        fresh.parts.replica.trust = World(clock=desk.clock).member().replica.trust
        keeper = TrustKeeper(desk.file, fresh.parts)
        await keeper.begin()
        assert await fresh.parts.feed.trust() == desk.bundle(2)


async def test_a_strangers_store_is_refused_at_start(desk: Desk) -> None:
    """A setting that points at somebody else's store must not take that one's trust away."""
    theirs = World(clock=desk.clock).trust_bytes()
    await desk.one.parts.feed.keep_trust(theirs)
    with pytest.raises(ConfigurationError, match="not signed by this root"):
        await desk.keeper()
    assert await desk.stored() == theirs


async def test_what_the_keeper_brings_in_drops_a_role_at_once(desk: Desk) -> None:
    """From the file to the state of this process in one look."""
    keeper = await desk.keeper()
    replica = desk.one.parts.replica
    desk.file.write_bytes(desk.bundle(2, lowest_epoch={"keys": 2, "revocations": 1}))
    await keeper.look()
    assert replica.state(desk.clock.now(), desk.clock.boottime()) is State.EXPIRED
