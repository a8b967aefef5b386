"""A lane's voice: it signs only what its own replica holds, and says only what the store accepted."""

import asyncio

import pytest

from keyturn.contract import events as e
from keyturn.contract import keys as k
from keyturn.contract.errors import BrokenChain, FeedUnavailable, ForgedSignature, PositionTaken
from keyturn.contract.positions import Lane, Position
from keyturn.contract.selectors import SelectorKind
from keyturn.feed import publisher as publishing
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.publisher import Publisher, bootstrap
from tests.clocks import ManualClock
from tests.waiting import eventually
from tests.world import World, new_statement_key

KEYS, REVOCATIONS = Lane


@pytest.fixture
async def world() -> World:
    """Return a world in memory whose lanes have begun."""
    return await World(feed=MemoryFeed(), clock=ManualClock()).begin()


async def test_what_is_appended_stands_in_the_feed_and_in_the_own_replica(world: World) -> None:
    """On return it is durable, and whoever asks this process sees it."""
    member = await world.caught_up()
    publisher = world.publisher(KEYS, member)
    published = world.new_key()
    signed = await publisher.append([published], report=True)
    assert member.replica.position(KEYS) == signed.position
    assert member.replica.keys.get(published.kid) is not None
    assert signed.event.report
    other = await world.caught_up()
    assert other.replica.position(KEYS) == signed.position


async def test_the_loser_of_a_race_keeps_its_replica_as_it_was(world: World) -> None:
    """It must read what the winner did before it decides again."""
    one, two = await world.caught_up(), await world.caught_up()
    await world.publisher(KEYS, one).append([world.new_key()])
    with pytest.raises(PositionTaken):
        await world.publisher(KEYS, two).append([world.new_key()])
    assert two.replica.place(KEYS) == (1, 0)
    await two.follower.catch_up()
    await world.publisher(KEYS, two).append([world.new_key()])
    assert two.replica.place(KEYS) == (1, 2)


async def test_a_step_that_no_key_can_take_is_never_signed(world: World) -> None:
    """Once in the feed it would stop every reader."""
    member = await world.caught_up()
    with pytest.raises(BrokenChain):
        await world.publisher(KEYS, member).append([k.Retired(kid="no-such-kid")])
    assert await world.feed.events(KEYS, epoch=1, after=0) == []


async def test_a_publisher_that_has_read_nothing_says_nothing(world: World) -> None:
    """Neither events nor heads."""
    member = world.member()
    publisher = world.publisher(KEYS, member)
    with pytest.raises(FeedUnavailable):
        await publisher.append([world.new_key()])
    assert not await publisher.beat()
    assert not await publisher.keep_snapshot()


async def test_a_store_that_is_away_confirms_nothing(world: World) -> None:
    """A signer's lease hangs on it."""
    member = await world.caught_up()
    publisher = world.publisher(KEYS, member)
    assert publisher.confirmed_boottime == float("-inf")
    assert await publisher.beat()
    confirmed = publisher.confirmed_boottime
    assert confirmed == world.clock.boottime()
    assert isinstance(world.feed, MemoryFeed)
    assert isinstance(world.clock, ManualClock)
    world.feed.reachable = False
    world.clock.advance(1)
    with pytest.raises(FeedUnavailable):
        await publisher.beat()
    assert publisher.confirmed_boottime == confirmed


async def test_a_publisher_that_was_overtaken_does_not_beat(world: World) -> None:
    """Its head would vouch for a place that is not the newest."""
    one, two = await world.caught_up(), await world.caught_up()
    late = world.publisher(KEYS, two)
    await world.publisher(KEYS, one).append([world.new_key()])
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(1)
    assert not await late.beat()
    assert late.confirmed_boottime == float("-inf")


async def test_two_replicas_of_a_publisher_beat_and_both_are_confirmed(world: World) -> None:
    """The second finds a head as new as its own; its position holds all the same."""
    one, two = [world.publisher(KEYS, await world.caught_up()) for _ in range(2)]
    assert await one.beat()
    assert await two.beat()
    assert two.confirmed_boottime == world.clock.boottime()


@pytest.mark.parametrize("lane", Lane)
async def test_a_snapshot_is_kept_after_enough_events_and_holds_all(
    world: World, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new follower begins there; what it lacks would be lost."""
    monkeypatch.setattr(publishing, "SNAPSHOT_EVERY_EVENTS", 3)
    member = await world.caught_up()
    publisher = world.publisher(lane, member)
    for number in range(7):
        entry = world.entry(SelectorKind.SUBJECT, f"s{number}", before=world.clock.now())
        content = [world.new_key("EdDSA")] if lane is KEYS else [entry]
        await publisher.append(content)
        assert await publisher.keep_snapshot() is (number in (2, 5))
    compact = await world.feed.snapshot(lane)
    assert compact is not None
    snapshot = e.open_snapshot(compact, lane, world.trust().role(lane)).snapshot
    assert snapshot.sequence == 6
    late = await world.caught_up()
    assert late.replica.position(lane) == member.replica.position(lane)
    assert list(late.replica.keys) == list(member.replica.keys)
    assert sorted(late.replica.indexes[0].rows()) == sorted(member.replica.indexes[0].rows())


@pytest.mark.parametrize("lane", Lane)
async def test_a_snapshot_is_kept_after_a_time_if_anything_happened(world: World, lane: Lane) -> None:
    """A quiet lane's new followers must not read hours of events, and an idle one needs no new snapshot."""
    member, clock = await world.caught_up(), world.clock
    assert isinstance(clock, ManualClock)
    publisher = world.publisher(lane, member)
    clock.advance(publishing.SNAPSHOT_EVERY_SECONDS)
    assert not await publisher.keep_snapshot()
    for number in range(2):
        entry = world.entry(SelectorKind.JTI, f"t{number}")
        await publisher.append([world.new_key("EdDSA")] if lane is KEYS else [entry])
        assert await publisher.keep_snapshot() is (number == 0)
        compact = await world.feed.snapshot(lane)
        assert compact is not None
        assert e.open_snapshot(compact, lane, world.trust().role(lane)).position.sequence == 1
    clock.advance(publishing.SNAPSHOT_EVERY_SECONDS - 1)
    assert not await publisher.keep_snapshot()
    clock.advance(1)
    assert await publisher.keep_snapshot()
    clock.advance(10 * publishing.SNAPSHOT_EVERY_SECONDS)
    assert not await publisher.keep_snapshot()


async def test_a_snapshot_that_could_not_be_stored_is_tried_again_and_a_new_epoch_counts_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad moment of the store must not put it off by another five hundred events."""
    monkeypatch.setattr(publishing, "SNAPSHOT_EVERY_EVENTS", 3)
    member = await world.caught_up()
    publisher = world.publisher(REVOCATIONS, member)
    feed = world.feed
    assert isinstance(feed, MemoryFeed)
    for number in range(3):
        await publisher.append([world.entry(SelectorKind.JTI, f"t{number}")])
    feed.reachable = False
    with pytest.raises(FeedUnavailable):
        await publisher.keep_snapshot()
    feed.reachable = True
    assert await publisher.keep_snapshot()
    assert await feed.open_epoch(world.genesis(REVOCATIONS, epoch=2), after=str(member.replica.position(REVOCATIONS)))
    await member.follower.catch_up()
    for number in range(3):
        await publisher.append([world.entry(SelectorKind.JTI, f"u{number}")])
    assert await publisher.keep_snapshot()


async def test_the_events_of_epochs_long_ago_are_forgotten(world: World) -> None:
    """Who makes us open epochs must not fill the store with the streams of all of them."""
    member = await world.caught_up()
    publisher = world.publisher(REVOCATIONS, member)
    for epoch in (2, 3, 4, 5):
        await publisher.append([world.entry(SelectorKind.JTI, f"t{epoch}")])
        assert await publisher.open_epoch(epoch, after=str(member.replica.position(REVOCATIONS)))
    left = [len(await world.feed.events(REVOCATIONS, epoch=epoch, after=0)) for epoch in (1, 2, 3, 4, 5)]
    assert left == [0, 0, 1, 1, 0]


async def test_only_a_genesis_of_the_right_role_begins_a_lane_and_only_once() -> None:
    """The keys role must not begin the revocations lane."""
    world = World()
    swapped = e.sign_snapshot(world.roles[KEYS], world.genesis(REVOCATIONS).snapshot)
    with pytest.raises(ForgedSignature):
        await bootstrap(world.feed, swapped.compact, world.trust(), REVOCATIONS)
    assert await bootstrap(world.feed, world.genesis(KEYS).compact, world.trust(), KEYS)
    assert not await bootstrap(world.feed, world.genesis(KEYS).compact, world.trust(), KEYS)


async def test_a_running_publisher_beats_each_second_and_catches_up_where_it_was_overtaken(world: World) -> None:
    """Through losses of the store, too."""
    feed, clock = world.feed, world.clock
    assert isinstance(feed, MemoryFeed)
    assert isinstance(clock, ManualClock)
    member, other = await world.caught_up(), await world.caught_up()
    publisher = world.publisher(KEYS, member)
    task = asyncio.create_task(publisher.run(member.follower.catch_up, world.recovery(publisher, member).mend))
    await eventually(lambda: clock.sleepers == 1)
    await world.publisher(KEYS, other).append([world.new_key()])

    def look(seconds: float = 0.25) -> bool:
        clock.advance(seconds)
        return member.replica.place(KEYS) == (1, 1)

    await eventually(look)
    feed.reachable = False
    clock.advance(3)
    await clock.sleep(0)
    feed.reachable = True
    before = publisher.confirmed_boottime

    def beats() -> bool:
        clock.advance(0.25)
        return publisher.confirmed_boottime > before

    await eventually(beats)
    task.cancel()


async def test_a_stream_is_trimmed_behind_an_old_snapshot_and_nobody_loses_anything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that only grew would fill the store; one that was cut too early would strand those who lag a little."""
    monkeypatch.setattr(publishing, "SNAPSHOT_EVERY_EVENTS", 3)
    member, behind = await world.caught_up(), await world.caught_up()
    publisher, clock = world.publisher(REVOCATIONS, member), world.clock
    assert isinstance(clock, ManualClock)

    async def left() -> int:
        return len(await world.feed.events(REVOCATIONS, epoch=1, after=0))

    for number in range(12):
        await publisher.append([world.entry(SelectorKind.JTI, f"t{number}")])
        await publisher.keep_snapshot()
        clock.advance(60)
        await publisher.beat()
    assert await left() == 12, "snapshots of 3, 6, 9 and 12 minutes: none is ten minutes old and followed by another"
    for number in range(12, 18):
        await publisher.append([world.entry(SelectorKind.JTI, f"t{number}")])
        await publisher.keep_snapshot()
        clock.advance(60)
        await publisher.beat()
    assert 0 < await left() < 18
    for late in (behind, await world.caught_up()):
        await late.follower.catch_up()
        assert late.replica.position(REVOCATIONS) == member.replica.position(REVOCATIONS)
        assert len(late.replica.indexes[0]) == 18


async def test_events_are_kept_for_who_has_still_to_read_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver of security events that is away must find them when it is back."""
    monkeypatch.setattr(publishing, "SNAPSHOT_EVERY_EVENTS", 3)
    member, read = await world.caught_up(), 4

    async def needed(position: Position, seconds: float) -> bool:
        assert seconds >= publishing.TRIM_AFTER_SECONDS
        return position.sequence > read

    clock = world.clock
    publisher = Publisher(REVOCATIONS, world.roles[REVOCATIONS], world.feed, member.replica, clock, needed=needed)
    assert isinstance(clock, ManualClock)
    for number in range(30):
        await publisher.append([world.entry(SelectorKind.JTI, f"t{number}")])
        await publisher.keep_snapshot()
        clock.advance(60)
        await publisher.beat()
    assert len(await world.feed.events(REVOCATIONS, epoch=1, after=0)) == 27, "a snapshot stands at 3 and the next at 6"


async def test_a_publisher_whose_role_was_taken_writes_nothing_more(world: World) -> None:
    """An event that nobody believes would end the chain for all, and its receipt would be a lie."""
    member = await world.caught_up()
    publisher = world.publisher(KEYS, member)
    assert publisher.is_trusted()
    top, stored = await world.feed.top(KEYS), await world.feed.snapshot(KEYS)
    member.replica.adopt_trust(world.trust(version=2, roles={"keys": (new_statement_key().public,), "revocations": ()}))
    assert not publisher.is_trusted()
    with pytest.raises(FeedUnavailable, match="role"):
        await publisher.append([world.new_key()])
    assert not await publisher.beat()
    assert not await publisher.keep_snapshot()
    assert not await publisher.mend_snapshot()
    assert top is not None
    assert not await publisher.open_epoch(2, after=top.position)
    assert (await world.feed.top(KEYS), await world.feed.snapshot(KEYS)) == (top, stored)


async def test_a_new_role_key_signs_the_snapshot_anew_before_the_old_key_is_dropped(world: World) -> None:
    """Once the root has dropped the old key, what it signed cannot be read: new followers begin at the snapshot."""
    old = world.roles[KEYS]
    await world.publisher(KEYS, await world.caught_up()).append([world.new_key()])
    world.roles[KEYS] = new_statement_key()
    both = {
        "roles": {"keys": (old.public, world.roles[KEYS].public), "revocations": (world.roles[REVOCATIONS].public,)}
    }
    await world.feed.keep_trust(world.trust_bytes(version=2, **both))
    member = await world.caught_up()
    assert member.replica.place(KEYS) == (1, 1)
    assert await world.publisher(KEYS, member).mend_snapshot()
    await world.feed.keep_trust(world.trust_bytes(version=3))
    late = await world.caught_up()
    assert late.replica.place(KEYS) == (1, 1)
    assert len(late.replica.keys) == 1
