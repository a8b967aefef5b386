"""A store that lost, changed or replaced what it had accepted, and its publishers: nothing is forgotten."""

import asyncio
import copy
from typing import Any, cast

import pytest

from keyturn.contract import events as e
from keyturn.contract import keys as k
from keyturn.contract.positions import Lane, Position
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.publisher import Publisher
from keyturn.feed.recovery import EPOCH_EVERY_SECONDS, PATIENCE_SECONDS, Recovery, Step, decide
from keyturn.feed.redis import head_key, stream_key
from keyturn.feed.tail import Tail
from keyturn.verifier.freshness import State
from tests.clocks import HastyClock
from tests.feed.conftest import Store
from tests.world import Member, World, new_statement_key

KEYS, REVOCATIONS = Lane


@pytest.fixture
async def world(store: Store) -> World:
    """Return a world whose lanes have begun on that store, and in which waiting takes no time."""
    return await World(feed=store.feed, clock=HastyClock()).begin()


class Backup:
    """All that a store held once; put back, it is a restore from backup, or a failover that lost a tail."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._memory: Any = None
        self._dumps: dict[bytes, bytes] = {}

    async def take(self) -> "Backup":
        """Copy the store's content."""
        feed, redis = self._store.feed, self._store.redis
        if redis is None:
            assert isinstance(feed, MemoryFeed)
            self._memory = copy.deepcopy((feed._chains, feed._sealed))
        else:
            self._dumps = {key: cast("bytes", await redis.dump(key)) for key in await redis.keys()}
        return self

    async def put_back(self) -> None:
        """Make the store what it was."""
        feed, redis = self._store.feed, self._store.redis
        if redis is None:
            assert isinstance(feed, MemoryFeed)
            feed._chains, feed._sealed = copy.deepcopy(self._memory)
        else:
            await redis.flushall()
            for key, dump in self._dumps.items():
                await redis.restore(key, 0, dump)


class Voice:
    """A replica of a lane's publisher, with what mends it."""

    def __init__(self, world: World, member: Member, lane: Lane, *, genesis: bytes = b"") -> None:
        self.world, self.member, self.lane = world, member, lane
        self.publisher: Publisher = world.publisher(lane, member)
        self.recovery: Recovery = world.recovery(self.publisher, member, genesis=genesis)

    async def says(self, *names: str) -> e.SignedEvent:
        """Revoke tokens of these names, or publish as many keys."""
        if self.lane is KEYS:
            return await self.publisher.append([self.world.new_key("EdDSA") for _ in names])
        return await self.publisher.append([self.world.entry(SelectorKind.JTI, name) for name in names])

    async def looks(self) -> None:
        """Do once what a running publisher does each second."""
        await self.world.clock.sleep(1.0)
        if not await self.publisher.beat():
            await self.member.follower.catch_up()
            await self.recovery.mend()
        elif self.publisher.spoiled or self.lane in self.member.replica.lost:
            await self.recovery.mend()

    def noted(self) -> list[str]:
        """Return what it told the operator of its mending."""
        return [event for event in self.member.events() if event in ("events_appended_again", "epoch_opened")]


async def voice(world: World, lane: Lane, **choices: Any) -> Voice:
    """Return a publisher that has read the store."""
    return Voice(world, await world.caught_up(), lane, **choices)


def revoked(world: World, member: Member, *names: str) -> bool:
    """Say whether all these tokens are revoked for that member."""
    return all(member.replica.revokes(member.replica.names(world.claims(jti=name))) for name in names)


async def stands_at(world: World, member: Member, lane: Lane) -> bool:
    """Say whether the store's lane stands where that member does."""
    top = await world.feed.top(lane)
    return top is not None and top.position == str(member.replica.position(lane))


@pytest.mark.parametrize("lane", Lane)
async def test_what_the_store_lost_is_appended_again_byte_for_byte(world: World, store: Store, lane: Lane) -> None:
    """A failover lost an acknowledged tail; who follows already holds it and must find the same hashes."""
    one, late = await voice(world, lane), await world.caught_up()
    await one.says("a")
    backup = await Backup(store).take()
    for name in ("b", "c"):
        await one.says(name)
    events = await world.feed.events(lane, epoch=1, after=0)
    await backup.put_back()
    await one.looks()
    assert await world.feed.events(lane, epoch=1, after=0) == events
    assert await stands_at(world, one.member, lane)
    assert one.noted() == ["events_appended_again"]
    await one.looks()
    await late.follower.catch_up()
    assert late.replica.position(lane) == one.member.replica.position(lane)
    assert one.noted() == ["events_appended_again"]


async def test_two_branches_become_one_epoch_that_knows_what_both_knew(world: World, store: Store) -> None:
    """Both were acknowledged: neither may be forgotten, and each follower comes along, whichever it had read."""
    one, two = await voice(world, REVOCATIONS), await voice(world, REVOCATIONS)
    backup = await Backup(store).take()
    await one.says("a", "b")
    follower_of_one = await world.caught_up()
    await backup.put_back()
    await two.says("c")
    follower_of_two = await world.caught_up()
    await one.looks()
    await one.looks()
    assert one.noted() == ["epoch_opened"]
    await two.looks()
    assert two.noted() == []
    for member in (one.member, two.member, follower_of_one, follower_of_two, await world.caught_up()):
        await member.follower.catch_up()
        assert member.replica.place(REVOCATIONS) == (2, 0)
        assert revoked(world, member, "a", "b", "c")
        assert member.replica.lost == {}
    await two.says("d")
    await one.member.follower.catch_up()
    assert revoked(world, one.member, "d")


async def test_branches_of_the_keys_lane_keep_each_key_and_each_tombstone(world: World, store: Store) -> None:
    """A key that one branch published must not vanish, and one that the other has revoked must not come back."""
    one = await voice(world, KEYS)
    common = world.new_key("EdDSA")
    await one.publisher.append([common])
    two = await voice(world, KEYS)
    backup = await Backup(store).take()
    await one.says("one")
    await backup.put_back()
    await two.publisher.append([k.Revoked(kid=common.kid)])
    await two.says("two")
    await one.looks()
    for _ in range(4):
        await one.looks()
    assert await stands_at(world, one.member, KEYS)
    late = await world.caught_up()
    phases = [key.phase for key in late.replica.keys]
    assert sorted(phases) == ["published", "published", "revoked"]
    assert late.replica.verification[common.kid].record.phase == "revoked"
    waiting = [key for key in late.replica.keys if key.phase == "published"]
    assert {key.published_place for key in waiting} == {(2, 0)}, "verifiers have to adopt them anew"


@pytest.mark.parametrize("lane", Lane)
async def test_an_emptied_store_gets_all_of_it_back(world: World, store: Store, lane: Lane) -> None:
    """FLUSHALL, or a server that came back without its disk: one second later the lane stands again."""
    one = await voice(world, lane)
    await one.says("a", "b")
    held = list(one.member.replica.keys)
    empty = Backup(store)
    empty._memory = ({}, {})
    await empty.put_back()
    await one.looks()
    assert one.noted() == ["epoch_opened"]
    await world.feed.keep_trust(world.trust_bytes())
    late = await world.caught_up()
    assert late.replica.place(lane) == (2, 0)
    assert revoked(world, late, "a", "b") is (lane is REVOCATIONS)
    assert [key.kid for key in late.replica.keys] == [key.kid for key in held]
    assert len(held) == (2 if lane is KEYS else 0)


async def test_a_backup_of_an_earlier_epoch_is_left_behind(world: World, store: Store) -> None:
    """What stood there when it was taken is a past that nobody goes back to."""
    one = await voice(world, REVOCATIONS)
    await one.says("a")
    backup = await Backup(store).take()
    assert await one.publisher.open_epoch(2, after=str(one.member.replica.position(REVOCATIONS)))
    await one.says("b")
    await backup.put_back()
    await one.looks()
    late = await world.caught_up()
    assert late.replica.place(REVOCATIONS) == (3, 0)
    assert revoked(world, late, "a", "b")


async def test_a_publisher_whose_tail_another_left_out_opens_the_next_epoch(world: World, store: Store) -> None:
    """The other one could not know; who does know must not keep it to itself."""
    one, two = await voice(world, REVOCATIONS), await voice(world, REVOCATIONS)
    backup = await Backup(store).take()
    await one.says("a")
    await backup.put_back()
    assert await two.publisher.open_epoch(2, after=str(two.member.replica.position(REVOCATIONS)))
    await one.looks()
    assert await stands_at(world, one.member, REVOCATIONS)
    late = await world.caught_up()
    assert late.replica.place(REVOCATIONS) == (3, 0)
    assert revoked(world, late, "a")
    await two.looks()
    assert two.noted() == []
    assert revoked(world, two.member, "a")


@pytest.mark.parametrize("store", ["fakeredis", "valkey"], indirect=True)
@pytest.mark.parametrize("forged", ["9:9:" + "x" * 43, "1:999:" + "x" * 43, "no position", ""])
async def test_a_forged_position_holds_a_lane_up_for_a_moment_only(world: World, store: Store, forged: str) -> None:
    """One HSET by a thief once needed an operator."""
    assert store.redis is not None
    one = await voice(world, REVOCATIONS)
    await one.says("a")
    await store.redis.hset(head_key(REVOCATIONS), "position", forged)  # type: ignore[misc]
    for _ in range(int(PATIENCE_SECONDS) + 2):
        await one.looks()
    assert await stands_at(world, one.member, REVOCATIONS)
    late = await world.caught_up()
    assert late.replica.place(REVOCATIONS) == (2, 0)
    assert revoked(world, late, "a")


async def test_patience_begins_anew_once_what_was_waited_for_has_been_read(world: World) -> None:
    """Else every race that is lost later would end in an epoch that nobody needs."""
    one, two = await voice(world, REVOCATIONS), await voice(world, REVOCATIONS)
    for name in ("a", "b"):
        await one.says(name)
        await two.recovery.mend()  # The store is ahead of it, by something that it is about to read.
        await two.member.follower.catch_up()
        await world.clock.sleep(2 * PATIENCE_SECONDS)
    await one.says("c")
    await two.recovery.mend()
    assert two.noted() == []
    assert await stands_at(world, one.member, REVOCATIONS)


async def test_what_the_root_drops_while_the_store_is_read_does_not_come_back_by_a_new_epoch(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lane's thief has branched it; while the publisher reads his branch the root takes the lane from him."""
    one = await voice(world, REVOCATIONS)
    backup = await Backup(store).take()
    thief = await voice(world, REVOCATIONS)
    await thief.says("of a thief", "another of his")
    his = thief.member.replica.indexes
    await backup.put_back()
    await one.says("b")
    read_anew = one.member.follower.read_anew
    raised = world.trust(version=2, lowest_epoch={"keys": 1, "revocations": 9})

    async def slowly() -> Any:
        read = await read_anew()
        list(read.absorb(his))
        assert one.member.replica.adopt_trust(raised)
        return read

    monkeypatch.setattr(one.member.follower, "read_anew", slowly)
    recovery = world.recovery(one.publisher, one.member)
    one.publisher.spoiled = True
    await recovery.mend()
    assert not revoked(world, one.member, "of a thief")
    top = await world.feed.top(REVOCATIONS)
    assert top is not None
    assert top.position.startswith("1:"), "no epoch was opened"


async def test_an_epoch_that_the_root_drops_while_it_is_opened_does_not_end_the_publisher(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store took it, our replica may not any more: the error once ended the whole service."""
    one = await voice(world, REVOCATIONS)
    raised = world.trust(version=2, lowest_epoch={"keys": 1, "revocations": 9})
    opens, looks = world.feed.open_epoch, asyncio.Semaphore(0)

    async def slowly(*arguments: Any, **named: Any) -> bool:
        opened = await opens(*arguments, **named)
        one.member.replica.adopt_trust(raised)
        return opened

    async def mend() -> None:
        looks.release()
        await one.recovery.mend()

    monkeypatch.setattr(world.feed, "open_epoch", slowly)
    one.publisher.spoiled = True
    running = asyncio.create_task(one.publisher.run(one.member.follower.catch_up, mend))
    async with asyncio.timeout(5):
        for _ in range(3):
            await looks.acquire()
    assert not running.done()
    assert one.member.replica.trust.version == 2
    running.cancel()


async def test_requests_are_answered_while_two_large_branches_are_united(world: World) -> None:
    """A million on each side once stopped the event loop for ten seconds, and with it every heartbeat."""
    one, other = await voice(world, REVOCATIONS), await voice(world, REVOCATIONS)
    names = [f"t{number}" for number in range(5_000)]
    for name in names:
        other.member.replica.indexes[0].add(world.entry(SelectorKind.JTI, name))
    steps = sum(1 for _ in one.member.replica.absorb(other.member.replica.indexes))
    assert steps >= 5
    assert revoked(world, one.member, *names)


@pytest.mark.parametrize("store", ["valkey"], indirect=True)
async def test_a_spoiled_stream_is_left_for_a_new_epoch(world: World, store: Store) -> None:
    """An entry far ahead makes the server refuse every honest one after it."""
    assert store.redis is not None
    one = await voice(world, REVOCATIONS)
    await one.says("a")
    for epoch in (1, 2):
        await store.redis.xadd(stream_key(REVOCATIONS, epoch), {"event": b"forged"}, id="999-0")
    with pytest.raises(Exception, match="somebody else"):
        await one.says("b")
    await one.looks()
    await one.says("b")
    late = await world.caught_up()
    assert late.replica.place(REVOCATIONS) == (2, 1)
    assert revoked(world, late, "a", "b")


async def test_epochs_are_not_opened_faster_than_anybody_could_follow(world: World, store: Store) -> None:
    """Who writes nonsense each millisecond must not make us sign a snapshot each millisecond."""
    one = await voice(world, REVOCATIONS)
    opened = 0
    for _ in range(5):
        await Backup(store).put_back() if store.redis is not None else store.feed._chains.clear()  # type: ignore[union-attr]
        await one.recovery.mend()
        opened += await world.feed.top(REVOCATIONS) is not None
    assert opened == 1
    await world.clock.sleep(EPOCH_EVERY_SECONDS)
    await one.recovery.mend()
    assert await stands_at(world, one.member, REVOCATIONS)


@pytest.mark.parametrize("lane", Lane)
async def test_a_lane_whose_epochs_the_root_has_dropped_begins_as_the_root_says(world: World, lane: Lane) -> None:
    """After a theft of the role's key: the new publisher begins with the genesis that was made beside the document."""
    thief = await voice(world, lane)
    await thief.says("a", "b")
    lowest = {one.value: 2 if one is lane else 1 for one in Lane}
    await world.feed.keep_trust(world.trust_bytes(version=2, lowest_epoch=lowest))
    old, new = world.genesis(lane), world.genesis(lane, epoch=2, trust=2)
    for genesis, begins in ((old, False), (new, True)):
        heir = await voice(world, lane, genesis=genesis.compact)
        assert heir.member.replica.position(lane) is None
        await heir.looks()
        await heir.member.follower.catch_up()
        assert (heir.member.replica.place(lane) == (2, 0)) is begins
    late = await world.caught_up()
    assert not revoked(world, late, "a")
    assert len(late.replica.keys) == 0
    assert late.replica.state(world.clock.now(), world.clock.boottime()) is State.FRESH


async def begin_again(world: World, lane: Lane) -> tuple[dict[str, Any], e.SignedSnapshot]:
    """Give the role another key and raise the lowest epoch; return what the document says, and the new genesis."""
    world.roles[lane] = new_statement_key()
    changes = {"version": 2, "lowest_epoch": {one.value: 2 if one is lane else 1 for one in Lane}}
    await world.feed.keep_trust(world.trust_bytes(**changes))
    return changes, world.genesis(lane, epoch=2, trust=2)


@pytest.mark.parametrize("lane", Lane)
async def test_a_thief_who_has_opened_a_far_epoch_does_not_keep_the_lane(world: World, lane: Lane) -> None:
    """The root says 2, the stolen key said 9: a publisher with the new key begins as the root says."""
    thief = await voice(world, lane)
    top = await world.feed.top(lane)
    assert top is not None
    assert await thief.publisher.open_epoch(9, after=top.position)
    changes, genesis = await begin_again(world, lane)
    heir = Voice(world, world.member(), lane, genesis=genesis.compact)
    heir.member.replica.adopt_trust(world.trust(**changes))
    for _ in range(3):
        await heir.recovery.mend()
        await world.clock.sleep(PATIENCE_SECONDS)
    late = await world.caught_up()
    assert late.replica.place(lane) == (2, 0)


@pytest.mark.parametrize("lane", Lane)
async def test_a_lane_that_has_begun_again_is_not_begun_once_more(world: World, lane: Lane) -> None:
    """A publisher that starts slowly must not take a lane back to its genesis, and what was revoked with it."""
    top = await world.feed.top(lane)
    assert top is not None
    changes, genesis = await begin_again(world, lane)
    assert await world.feed.open_epoch(genesis, after=top.position)
    one = await voice(world, lane)
    await one.says("a")
    slow = Voice(world, world.member(), lane, genesis=genesis.compact)
    slow.member.replica.adopt_trust(world.trust(**changes))
    for _ in range(4):
        await slow.recovery.mend()
        await world.clock.sleep(PATIENCE_SECONDS)
    assert slow.noted() == []
    assert await stands_at(world, one.member, lane)


async def test_a_publisher_that_knows_nothing_does_not_begin_an_empty_store(world: World, store: Store) -> None:
    """Nobody could tell it from one that has lost everything, revocations above all."""
    empty = Backup(store)
    empty._memory = ({}, {})
    await empty.put_back()
    new = Voice(world, world.member(), REVOCATIONS, genesis=world.genesis(REVOCATIONS).compact)
    await new.recovery.mend()
    assert await world.feed.top(REVOCATIONS) is None


Case = tuple[Position, str | None, Step]
HERE = Position(3, 7, "seven")
CASES: list[Case] = [
    (HERE, str(HERE), Step.NOTHING),
    (HERE, None, Step.OPEN),
    (HERE, "nonsense", Step.OPEN),
    (HERE, "3:5:five", Step.APPEND_AGAIN),
    (HERE, "3:5:another", Step.OPEN),
    (HERE, "3:2:two", Step.OPEN),  # So far back that we do not know whether it is ours.
    (HERE, "3:7:another", Step.OPEN),
    (HERE, "3:8:eight", Step.WAIT),
    (HERE, "4:0:zero", Step.WAIT),
    (HERE, "2:9:nine", Step.OPEN),
]


@pytest.mark.parametrize(("mine", "stored", "step"), CASES)
async def test_each_place_of_the_store_asks_for_one_step(mine: Position, stored: str | None, step: Step) -> None:
    """The decision alone, without a store."""
    names = {4: "four", 5: "five", 6: "six"}
    world, tail = World(), Tail()
    for sequence in (5, 6, 7):
        place = {"epoch": 3, "sequence": sequence, "previous": names[sequence - 1], "at": 1.0, "trust": 1, "id": "i"}
        event = e.RevocationsEvent(entries=(), **place)  # type: ignore[arg-type]
        tail.add(e.sign_event(world.roles[REVOCATIONS], event))
    assert decide(mine, stored, tail) is step
