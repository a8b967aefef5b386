"""A follower through everything that a store, or who holds it, can do to it."""

import asyncio

import pytest

from keyturn.contract import events as e
from keyturn.contract import keys as k
from keyturn.contract.positions import Lane, Position
from keyturn.contract.selectors import SelectorKind
from keyturn.contract.snapshots import pack
from keyturn.feed.log import BATCH, Rung, Top
from keyturn.verifier import follower as following
from keyturn.verifier.freshness import State
from tests.clocks import ManualClock
from tests.verifier.followed import KEYS, REVOCATIONS, as_time_passes, revoke, revoked, state
from tests.verifier.twisted import TwistedFeed
from tests.waiting import eventually
from tests.world import World, new_statement_key


async def test_an_event_from_the_doorbell_is_obeyed_without_reading_the_store(world: World, feed: TwistedFeed) -> None:
    """That is what makes a revocation take milliseconds."""
    publisher = await world.caught_up()
    async with world.following() as member:
        reads = feed.reads
        await revoke(world, publisher, "stolen")
        await eventually(lambda: revoked(member, "stolen"))
        assert feed.reads == reads


async def test_a_forged_event_from_the_doorbell_is_noted_and_changes_nothing(world: World, feed: TwistedFeed) -> None:
    """Who can publish on the channel can ring, and no more."""
    publisher = await world.caught_up()
    async with world.following() as member:
        event = world.event(REVOCATIONS, publisher, [world.entry(SelectorKind.JTI, "forged")])
        for key in (new_statement_key(), world.roles[KEYS]):
            feed.ring(Rung(REVOCATIONS, e.sign_event(key, event).compact))
        feed.ring(Rung(KEYS, b"\xff not a statement"))
        feed.ring(Rung(KEYS, b"a" * 100_000))
        await eventually(lambda: member.follower.refused == 4)
        assert member.events()[1:] == ["statement_refused"] * 4
        assert not revoked(member, "forged")
        await revoke(world, publisher, "real")
        await eventually(lambda: revoked(member, "real"))


async def test_a_forged_event_in_the_stream_stops_the_reader_there(world: World, feed: TwistedFeed) -> None:
    """Nothing behind it is believed either, and the age of the replica tells on it."""
    publisher = await world.caught_up()
    await revoke(world, publisher, "one", "two")
    events = feed.stream(REVOCATIONS)
    forged = world.event(REVOCATIONS, publisher, [world.entry(SelectorKind.JTI, "forged")], sequence=1)
    events[0] = e.sign_event(new_statement_key(), forged).compact
    member = await world.caught_up()
    assert member.replica.place(REVOCATIONS) == (1, 0)
    assert "cannot_catch_up" in member.events()
    assert not any(revoked(member, jti) for jti in ("one", "two", "forged"))


async def test_a_message_that_got_lost_is_read_from_the_stream_at_the_next_one(world: World, feed: TwistedFeed) -> None:
    """Pub/sub forgets: a gap in the numbers says so."""
    publisher = await world.caught_up()
    async with world.following() as member:
        feed.deaf = True
        await revoke(world, publisher, "lost-1", "lost-2")
        feed.deaf = False
        await revoke(world, publisher, "heard")
        await eventually(lambda: all(revoked(member, jti) for jti in ("lost-1", "lost-2", "heard")))


async def test_a_message_that_got_lost_is_found_at_the_next_heartbeat(
    world: World, feed: TwistedFeed, clock: ManualClock
) -> None:
    """The last event before a pause has no successor that would show the gap."""
    publisher = await world.caught_up()
    async with world.following() as member:
        feed.deaf = True
        await revoke(world, publisher, "lost")
        feed.deaf = False
        clock.advance(1)
        await world.publisher(REVOCATIONS, publisher).beat()
        await eventually(lambda: revoked(member, "lost"))


async def test_a_deaf_doorbell_is_noticed_by_the_head_and_a_new_one_taken(
    world: World, feed: TwistedFeed, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen or half-open connection gives no error, ever; the store moves on without ringing."""
    monkeypatch.setattr(following, "SILENCE_SECONDS", 0.02)
    publisher = await world.caught_up()
    async with world.following() as member:
        first = feed.subscriptions
        feed.deaf = True
        clock.advance(1)
        await revoke(world, publisher, "lost")
        await eventually(lambda: revoked(member, "lost"))
        await eventually(lambda: "feed_lost" in member.events())
        feed.deaf = False
        await as_time_passes(clock, 1, lambda: feed.subscriptions > first)


async def test_a_lane_that_alone_fell_silent_is_looked_at(world: World, feed: TwistedFeed, clock: ManualClock) -> None:
    """While the other lane rings, nobody would ask why this one does not."""
    publisher = await world.caught_up()
    async with world.following() as member:
        feed.deaf_lanes = {REVOCATIONS}
        await revoke(world, publisher, "lost")
        for _ in range(4):
            clock.advance(1)
            for lane in Lane:
                await world.publisher(lane, publisher).beat()
            await clock.sleep(0)
            await clock.sleep(0)
        await eventually(lambda: revoked(member, "lost"))
        assert state(member, clock) is State.FRESH
        assert "feed_lost" not in member.events()


async def test_a_lost_subscription_is_taken_anew_and_what_was_missed_is_read(
    world: World, feed: TwistedFeed, clock: ManualClock
) -> None:
    """Every confirmation means: read the stream."""
    publisher = await world.caught_up()
    async with world.following() as member:
        feed.cut()
        feed.deaf = True
        await eventually(lambda: "feed_lost" in member.events())
        await revoke(world, publisher, "lost")
        feed.deaf = False
        await as_time_passes(clock, 0.1, lambda: revoked(member, "lost"))


async def test_a_store_that_is_away_for_long_is_waited_for(world: World, feed: TwistedFeed, clock: ManualClock) -> None:
    """With growing pauses; and nothing but the age of the replica changes meanwhile."""
    async with world.following() as member:
        feed.reachable = False
        feed.cut()
        await as_time_passes(clock, 1, lambda: member.events().count("feed_lost") > 8)
        assert state(member, clock) is State.STALE
        feed.reachable = True
        publisher = await world.caught_up()
        await world.publisher(KEYS, publisher).beat()
        await world.publisher(REVOCATIONS, publisher).beat()
        await as_time_passes(clock, 0.2, lambda: state(member, clock) is State.FRESH)


async def test_a_trimmed_stream_is_bridged_by_the_snapshot(world: World, feed: TwistedFeed) -> None:
    """Whoever comes late begins there and reads the rest."""
    publisher = await world.caught_up()
    await revoke(world, publisher, *(f"t{number}" for number in range(6)))
    place = publisher.replica.position(REVOCATIONS)
    assert place is not None
    packed = pack(publisher.replica.indexes)
    snapshot = world.genesis(REVOCATIONS, sequence=6, hash=place.hash, sections=packed.sections)
    assert await feed.keep_snapshot(snapshot, packed.chunks)
    await revoke(world, publisher, "t6")
    feed.trimmed[REVOCATIONS] = 6
    member = await world.caught_up()
    assert member.replica.position(REVOCATIONS) == publisher.replica.position(REVOCATIONS)
    assert all(revoked(member, f"t{number}") for number in range(7))


async def test_a_follower_far_behind_reads_on_over_many_batches(world: World) -> None:
    """One read is bounded; a catch-up is many of them."""
    publisher, late = await world.caught_up(), await world.caught_up()
    await revoke(world, publisher, *(f"t{number}" for number in range(2 * BATCH + 3)))
    await late.follower.catch_up()
    assert late.replica.place(REVOCATIONS) == (1, 2 * BATCH + 3)
    assert revoked(late, "t0")
    assert revoked(late, f"t{2 * BATCH + 2}")


async def test_a_new_epoch_is_followed_from_its_ring(world: World, feed: TwistedFeed) -> None:
    """The signed snapshot that opens it rings; own revocations stay."""
    publisher = await world.caught_up()
    async with world.following() as member:
        await revoke(world, publisher, "ours")
        await eventually(lambda: revoked(member, "ours"))
        second = world.genesis(REVOCATIONS, epoch=2, hash_key=b"the second epoch's")
        assert await feed.open_epoch(second, after=str(publisher.replica.position(REVOCATIONS)))
        await eventually(lambda: member.replica.position(REVOCATIONS) == second.position)
        assert revoked(member, "ours")


async def test_a_fork_is_not_followed_by_a_publisher_of_the_lane_until_an_epoch_ends_it(
    world: World, feed: TwistedFeed, clock: ManualClock
) -> None:
    """After a failover that lost a tail, the store tells another history: it is refused, and the age shows it.

    Who does not publish leaves his branch after a while: tests/verifier/test_lost_branches.py.
    """
    publisher, forked = await world.caught_up(), await world.caught_up()
    async with world.following() as member:
        await revoke(world, publisher, "ours")
        await eventually(lambda: revoked(member, "ours"))
        member.follower.publishes.add(REVOCATIONS)
        feed.forget_events(REVOCATIONS)
        await revoke(world, forked, "theirs-1", "theirs-2")
        await eventually(lambda: "statement_refused" in member.events())
        clock.advance(6)
        await world.publisher(REVOCATIONS, forked).beat()
        await world.publisher(KEYS, forked).beat()
        await eventually(lambda: member.replica.silence(KEYS, clock.boottime()) == 0)
        assert state(member, clock) is State.STALE
        assert (revoked(member, "ours"), revoked(member, "theirs-1")) == (True, False)
        for _ in publisher.replica.absorb(forked.replica.indexes):
            pass
        union = pack(publisher.replica.indexes)
        opening = world.genesis(REVOCATIONS, epoch=2, sections=union.sections)
        held = str(forked.replica.position(REVOCATIONS))
        assert await feed.open_epoch(opening, after=held, chunks=union.chunks)
        await eventually(lambda: revoked(member, "theirs-1"))
        assert state(member, clock) is State.FRESH


@pytest.mark.parametrize("position", ["", "1", "x:y:z", "1:1:", "\u0661:1:h", "9" * 5000 + ":1:h", "1:5:h\n2:9:h"])
async def test_a_head_that_is_no_position_is_refused_and_the_follower_lives(
    world: World, feed: TwistedFeed, position: str
) -> None:
    """Who can write to the store may withhold, but not crash."""
    publisher = await world.caught_up()
    async with world.following() as member:
        feed.false_tops[REVOCATIONS] = Top(position, b"no statement")
        before = feed.tops
        feed.ring(Rung(REVOCATIONS, b"no statement"))
        await eventually(lambda: feed.tops > before)
        feed.false_tops.clear()
        await revoke(world, publisher, "real")
        await eventually(lambda: revoked(member, "real"))


@pytest.mark.parametrize("junk", ["nobody signed it", "an old head", "an old event"])
async def test_a_flood_on_the_doorbell_does_not_become_a_flood_of_reads(
    world: World, feed: TwistedFeed, clock: ManualClock, junk: str
) -> None:
    """One thief who rings would else have every verifier read the store as often as he likes."""
    publisher = await world.caught_up()
    async with world.following() as member:
        await revoke(world, publisher, "first")
        clock.advance(1)
        await world.publisher(REVOCATIONS, publisher).beat()
        top = await feed.top(REVOCATIONS)
        assert top is not None
        words = {"nobody signed it": b"junk", "an old head": top.statement, "an old event": feed.stream(REVOCATIONS)[0]}
        await revoke(world, publisher, "second")
        await eventually(lambda: revoked(member, "second"))
        before = feed.reads
        for _ in range(500):
            feed.ring(Rung(REVOCATIONS, words[junk]))
        await revoke(world, publisher, "third")
        await eventually(lambda: revoked(member, "third"))
        assert feed.reads - before <= 5


async def test_a_false_top_far_ahead_costs_a_bounded_number_of_reads(world: World, feed: TwistedFeed) -> None:
    """A promise of a million events must not make the follower ask a million times."""
    feed.false_tops[REVOCATIONS] = Top(str(Position(1, 10**15, "h" * 43)), b"no statement")
    before = feed.reads
    member = await world.caught_up()
    assert feed.reads - before < 20
    assert "cannot_catch_up" in member.events()


async def test_callbacks_run_after_each_step_forward(world: World) -> None:
    """Reports and readiness hang on them."""
    publisher = await world.caught_up()
    async with world.following() as member:
        places: list[tuple[int, int]] = []
        member.follower.on_change.append(lambda: places.append(member.replica.place(KEYS)))
        await world.publisher(KEYS, publisher).append([world.new_key()])
        await eventually(lambda: (1, 1) in places)


async def test_a_follower_that_came_before_the_lanes_began_becomes_ready(feed: TwistedFeed, clock: ManualClock) -> None:
    """Processes start in any order."""
    world = World(feed=feed, clock=clock)
    member = world.member()
    task = asyncio.create_task(member.follower.run())
    await eventually(lambda: feed.subscriptions == 1)
    await world.begin()
    await asyncio.wait_for(member.follower.ready(), 5)
    assert state(member, clock) is State.FRESH
    task.cancel()


async def test_replayed_old_rings_change_nothing(world: World, feed: TwistedFeed) -> None:
    """Heads, events and the genesis of yesterday, rung again."""
    publisher = await world.caught_up()
    heard: list[bytes] = []
    async with feed.listen() as bell, world.following() as member:
        await world.publisher(KEYS, publisher).append([published := world.new_key()])
        await world.publisher(KEYS, publisher).append([k.Revoked(kid=published.kid)])
        while len(heard) < 2:
            word = await bell.next(5)
            if isinstance(word, Rung):
                heard.append(word.statement)
        await eventually(lambda: member.replica.place(KEYS) == (1, 2))
        generation = member.replica.generation
        genesis = await feed.snapshot(KEYS)
        assert genesis is not None
        for statement in (heard[0], genesis, heard[1]):
            feed.ring(Rung(KEYS, statement))
        await revoke(world, publisher, "last")
        await eventually(lambda: revoked(member, "last"))
        assert member.replica.generation == generation + 1
        assert [key.phase for key in member.replica.keys] == ["revoked"]
