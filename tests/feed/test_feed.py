"""What every feed promises, whatever it is kept in."""

import asyncio
from typing import Any

import pytest

from keyturn.contract import events as e
from keyturn.contract.errors import FeedUnavailable, PositionTaken
from keyturn.contract.positions import Lane, Position, parse_position
from keyturn.contract.revocations import BUCKET_SECONDS, RevocationIndex
from keyturn.contract.selectors import SelectorKind
from keyturn.contract.snapshots import Chunks, pack
from keyturn.feed.log import BATCH, Beside, Doorbell, Listening, Rung
from keyturn.feed.redis import head_key
from tests.feed.conftest import Store
from tests.world import World


def next_event(world: World, after: Position, lane: Lane = Lane.KEYS, **changes: object) -> e.SignedEvent:
    """Return an event that extends a position."""
    place = {
        "epoch": after.epoch, "sequence": after.sequence + 1, "previous": after.hash,
        "at": world.clock.now(), "trust": 1, "id": "an-event",
    } | changes  # fmt: skip
    if lane is Lane.KEYS:
        return e.sign_event(world.roles[lane], e.KeysEvent(changes=(world.new_key("EdDSA"),), **place))  # type: ignore[arg-type]
    entry = world.entry(SelectorKind.JTI, "a-token")
    return e.sign_event(world.roles[lane], e.RevocationsEvent(entries=(entry,), **place))  # type: ignore[arg-type]


def head(world: World, position: Position, *, at: float) -> e.SignedHead:
    """Return a head of the keys lane."""
    place = {"epoch": position.epoch, "sequence": position.sequence, "hash": position.hash}
    return e.sign_head(world.roles[Lane.KEYS], e.KeysHead(at=at, trust=1, **place))  # type: ignore[arg-type]


async def standing(world: World, lane: Lane = Lane.KEYS) -> Position:
    """Return where a lane stands."""
    top = await world.feed.top(lane)
    assert top is not None
    return parse_position(top.position)


async def heard(bell: Doorbell) -> Rung:
    """Return the next word after the subscription stands."""
    word = await bell.next(5)
    while isinstance(word, Listening):
        word = await bell.next(5)
    assert word is not None
    return word


async def test_an_event_is_added_where_the_lane_stands_and_is_the_new_top(world: World) -> None:
    """Stream, position and statement move together, or a reader would see half an event."""
    first = next_event(world, await standing(world))
    await world.feed.append(first, after=await standing(world))
    second = next_event(world, first.position)
    await world.feed.append(second, after=first.position)
    top = await world.feed.top(Lane.KEYS)
    assert top is not None
    assert (top.position, top.statement) == (str(second.position), second.compact)
    assert await world.feed.events(Lane.KEYS, epoch=1, after=0) == [first.compact, second.compact]
    assert await world.feed.events(Lane.KEYS, epoch=1, after=1) == [second.compact]
    assert await world.feed.events(Lane.KEYS, epoch=2, after=0) == []


async def test_the_loser_of_a_race_changes_nothing(world: World) -> None:
    """The second publisher must decide again from what the first one did; nothing of its own may stay behind."""
    start = await standing(world)
    winner, loser = next_event(world, start), next_event(world, start)
    await world.feed.append(winner, after=start)
    async with world.feed.listen() as bell:
        assert await bell.next(5) == Listening()
        with pytest.raises(PositionTaken):
            await world.feed.append(loser, after=start, beside=Beside(sealed={"a-kid": b"box"}))
        assert await bell.next(0.05) is None
    assert await world.feed.events(Lane.KEYS, epoch=1, after=0) == [winner.compact]
    assert await world.feed.sealed_keys() == {}
    assert await standing(world) == winner.position


async def test_of_many_appends_at_once_exactly_one_wins(world: World) -> None:
    """Two workers make one key only because of this."""
    start = await standing(world)
    events = [next_event(world, start) for _ in range(8)]
    outcomes = await asyncio.gather(
        *(world.feed.append(event, after=start) for event in events), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", *["PositionTaken"] * 7]
    assert await world.feed.events(Lane.KEYS, epoch=1, after=0) == [events[outcomes.index(None)].compact]


async def test_positions_are_compared_by_hash_not_by_number(world: World) -> None:
    """After a failover that lost a tail another event stands at the same number: a fork must not be extended."""
    start = await standing(world)
    with pytest.raises(PositionTaken):
        await world.feed.append(next_event(world, start), after=start._replace(hash="x" * len(start.hash)))
    assert await standing(world) == start


async def test_positions_are_compared_as_strings_beyond_what_a_double_can_tell_apart(store: Store) -> None:
    """In Lua 2^53 + 1 equals 2^53 as a number."""
    world = World(feed=store.feed)
    far = world.genesis(Lane.KEYS, sequence=2**53, hash="h" * 43)
    assert await world.feed.open_epoch(far, after=None)
    beyond = Position(1, 2**53 + 1, "h" * 43)
    with pytest.raises(PositionTaken):
        await world.feed.append(next_event(world, beyond), after=beyond)


async def test_a_lane_that_never_began_takes_no_event_and_has_no_top(store: Store) -> None:
    """Only a signed genesis begins a lane: an emptied server must not look like a new one."""
    world = World(feed=store.feed)
    position = world.genesis(Lane.KEYS).position
    with pytest.raises(PositionTaken):
        await world.feed.append(next_event(world, position), after=position)
    assert await world.feed.top(Lane.KEYS) is None
    assert await world.feed.snapshot(Lane.KEYS) is None
    assert await world.feed.events(Lane.KEYS, epoch=1, after=0) == []
    assert not await world.feed.confirm(Lane.KEYS, position)
    assert not await world.feed.beat(head(world, position, at=world.clock.now()), beater="one")
    assert not await world.feed.keep_snapshot(world.genesis(Lane.KEYS, sequence=3, hash="h" * 43))


async def test_lanes_do_not_touch_each_other(world: World) -> None:
    """Each lane has its own publisher."""
    keys, revocations = await standing(world), await standing(world, Lane.REVOCATIONS)
    event = next_event(world, revocations, Lane.REVOCATIONS)
    await world.feed.append(event, after=revocations)
    assert await standing(world) == keys
    assert await standing(world, Lane.REVOCATIONS) == event.position
    assert await world.feed.events(Lane.KEYS, epoch=1, after=0) == []


async def test_sealed_keys_are_written_and_erased_in_the_step_of_their_event(world: World) -> None:
    """A key is persisted before anything signs, and its private half goes with its end."""
    start = await standing(world)
    first = next_event(world, start)
    await world.feed.append(first, after=start, beside=Beside(sealed={"one": b"\x00box", "two": b"\xff"}))
    assert await world.feed.sealed_keys() == {"one": b"\x00box", "two": b"\xff"}
    second = next_event(world, first.position)
    await world.feed.append(
        second, after=first.position, beside=Beside(sealed={"three": b"3", "four": b"4"}, erased=["one", "four"])
    )
    assert await world.feed.sealed_keys() == {"two": b"\xff", "three": b"3"}  # Who ends a key means it.


async def test_a_sealed_key_is_replaced_only_as_it_was_held(world: World) -> None:
    """A key that ended, or was sealed anew by another process meanwhile, must not come back in an older form."""
    start = await standing(world)
    await world.feed.append(next_event(world, start), after=start, beside=Beside(sealed={"one": b"old"}))
    assert not await world.feed.replace_sealed("one", held=b"other", by=b"new")
    assert not await world.feed.replace_sealed("one", held=b"", by=b"new")
    assert await world.feed.replace_sealed("two", held=b"", by=b"new")  # None was there, as it was held to be.
    assert await world.feed.replace_sealed("one", held=b"old", by=b"new")
    assert not await world.feed.replace_sealed("one", held=b"old", by=b"newer")
    assert await world.feed.sealed_keys() == {"one": b"new", "two": b"new"}
    assert not await world.feed.replace_sealed("two", held=b"old", by=b"")
    assert await world.feed.replace_sealed("two", held=b"new", by=b"")
    assert await world.feed.sealed_keys() == {"one": b"new"}


async def test_a_head_is_taken_only_at_the_position_and_only_if_it_is_newer(world: World) -> None:
    """A head that anybody could put back would hide that the publisher fell silent."""
    start, now = await standing(world), world.clock.now()
    newer = head(world, start, at=now + 1)
    assert await world.feed.beat(newer, beater="one")
    top = await world.feed.top(Lane.KEYS)
    assert top is not None
    assert (top.position, top.statement) == (str(start), newer.compact)
    assert not await world.feed.beat(newer, beater="one")
    assert not await world.feed.beat(head(world, start, at=now + 0.5), beater="one")
    assert not await world.feed.beat(head(world, start._replace(hash="x" * 43), at=now + 2), beater="one")
    assert not await world.feed.beat(head(world, start._replace(sequence=1), at=now + 2), beater="one")
    assert await world.feed.top(Lane.KEYS) == top
    assert await world.feed.beat(
        head(world, start, at=now + 10.25), beater="one"
    )  # One digit more in front of the point.
    assert not await world.feed.beat(head(world, start, at=now + 9.75), beater="one")


async def test_one_replica_of_a_publisher_beats_until_it_falls_silent(world: World) -> None:
    """Two that beat in turn would make every verifier check twice the signatures, for nothing."""
    start, now = await standing(world), world.clock.now()
    assert await world.feed.beat(head(world, start, at=now + 1), beater="one")
    assert not await world.feed.beat(head(world, start, at=now + 2), beater="two")
    assert await world.feed.beat(head(world, start, at=now + 2), beater="one")
    assert not await world.feed.beat(head(world, start, at=now + 4.4), beater="two")
    assert await world.feed.beat(head(world, start, at=now + 4.6), beater="two")
    assert not await world.feed.beat(head(world, start, at=now + 5.6), beater="one")  # It comes back, and waits.


async def test_an_event_can_be_confirmed_only_where_the_lane_stands(world: World) -> None:
    """A signer's lease hangs on this write."""
    start = await standing(world)
    assert await world.feed.confirm(Lane.KEYS, start)
    assert not await world.feed.confirm(Lane.KEYS, start._replace(hash="x" * 43))
    event = next_event(world, start)
    await world.feed.append(event, after=start)
    assert not await world.feed.confirm(Lane.KEYS, start)
    assert await world.feed.confirm(Lane.KEYS, event.position)


async def test_a_lane_begins_once(world: World) -> None:
    """A second genesis would wipe every key and every revocation."""
    start = await standing(world)
    assert not await world.feed.open_epoch(world.genesis(Lane.KEYS, at=world.clock.now() + 1), after=None)
    assert await standing(world) == start


async def test_an_epoch_opens_only_from_the_position_that_its_publisher_saw(world: World) -> None:
    """Two publishers that both recover must not both open one."""
    start = await standing(world)
    event = next_event(world, start)
    await world.feed.append(event, after=start)
    second = world.genesis(Lane.KEYS, epoch=2)
    assert not await world.feed.open_epoch(second, after=str(start))
    assert await world.feed.open_epoch(second, after=str(event.position))
    assert not await world.feed.open_epoch(world.genesis(Lane.KEYS, epoch=2, trust=2), after=str(event.position))
    assert await standing(world) == second.position
    assert await world.feed.snapshot(Lane.KEYS) == second.compact
    assert await world.feed.events(Lane.KEYS, epoch=2, after=0) == []
    following = next_event(world, second.position)
    await world.feed.append(following, after=second.position)
    assert await world.feed.events(Lane.KEYS, epoch=2, after=0) == [following.compact]
    assert await world.feed.events(Lane.KEYS, epoch=1, after=0) == [event.compact]  # What was, stays readable.


async def test_a_snapshot_replaces_only_an_older_one_of_the_running_epoch(world: World) -> None:
    """A late writer must not put an old snapshot back, before which the stream may already be trimmed."""
    genesis = await world.feed.snapshot(Lane.KEYS)
    fifth = world.genesis(Lane.KEYS, sequence=5, hash="h" * 43)
    assert await world.feed.keep_snapshot(fifth)
    assert not await world.feed.keep_snapshot(world.genesis(Lane.KEYS, sequence=4, hash="h" * 43))
    assert not await world.feed.keep_snapshot(world.genesis(Lane.KEYS, sequence=5, hash="i" * 43))
    assert not await world.feed.keep_snapshot(world.genesis(Lane.KEYS, epoch=2, sequence=9, hash="h" * 43))
    assert await world.feed.snapshot(Lane.KEYS) == fifth.compact != genesis
    assert await world.feed.keep_snapshot(world.genesis(Lane.KEYS, sequence=10, hash="h" * 43))


async def test_a_long_stream_is_read_in_order_and_in_bounded_pieces(world: World) -> None:
    """One read of everything would cost the server its memory."""
    position, written = await standing(world, Lane.REVOCATIONS), []
    for _ in range(BATCH + 3):
        event = next_event(world, position, Lane.REVOCATIONS)
        await world.feed.append(event, after=position)
        written.append(event.compact)
        position = event.position
    assert await world.feed.events(Lane.REVOCATIONS, epoch=1, after=0) == written[:BATCH]
    assert await world.feed.events(Lane.REVOCATIONS, epoch=1, after=BATCH) == written[BATCH:]


async def test_the_trust_document_is_kept_as_it_is(world: World) -> None:
    """Its bytes are what the root signed."""
    newer = world.trust_bytes(version=2)
    await world.feed.keep_trust(newer)
    assert await world.feed.trust() == newer


async def test_a_trust_document_replaces_only_the_one_that_was_looked_at(world: World) -> None:
    """Between look and write somebody may have put a newer one there."""
    first, second, third = (world.trust_bytes(version=version) for version in (1, 2, 3))
    await world.feed.keep_trust(first)
    assert not await world.feed.keep_trust(third, over=b"")
    assert not await world.feed.keep_trust(third, over=second)
    assert await world.feed.trust() == first
    assert await world.feed.keep_trust(third, over=first)
    assert await world.feed.trust() == third
    assert not await world.feed.keep_trust(second, over=first)


async def test_the_tops_of_all_lanes_are_told_together(world: World, store: Store) -> None:
    """Who comes back after a cut asks once for both; a lane that somebody overwrote does not hide the other."""
    revocations = await world.feed.top(Lane.REVOCATIONS)
    assert await world.feed.all_tops() == {Lane.KEYS: await world.feed.top(Lane.KEYS), Lane.REVOCATIONS: revocations}
    if store.redis is not None:
        await store.redis.delete(head_key(Lane.KEYS))
        assert await world.feed.all_tops() == {Lane.KEYS: None, Lane.REVOCATIONS: revocations}
        await store.redis.set(head_key(Lane.KEYS), "something else")
        assert await world.feed.all_tops() == {Lane.KEYS: None, Lane.REVOCATIONS: revocations}


async def test_the_doorbell_says_that_it_listens_and_then_carries_each_statement(world: World) -> None:
    """The event itself rings, so that nobody has to read it before obeying it."""
    async with world.feed.listen() as bell:
        assert await bell.next(5) == Listening()
        start = await standing(world)
        event = next_event(world, start)
        await world.feed.append(event, after=start)
        assert await heard(bell) == Rung(Lane.KEYS, event.compact)
        beat = head(world, event.position, at=world.clock.now() + 1)
        await world.feed.beat(beat, beater="one")
        assert await heard(bell) == Rung(Lane.KEYS, beat.compact)
        other = next_event(world, await standing(world, Lane.REVOCATIONS), Lane.REVOCATIONS)
        await world.feed.append(other, after=await standing(world, Lane.REVOCATIONS))
        assert await heard(bell) == Rung(Lane.REVOCATIONS, other.compact)
        second = world.genesis(Lane.KEYS, epoch=2)
        await world.feed.open_epoch(second, after=str(event.position))
        assert await heard(bell) == Rung(Lane.KEYS, second.compact)
        assert await bell.next(0.02) is None


@pytest.mark.parametrize("store", ["memory", "valkey"], indirect=True)
async def test_a_cut_subscription_raises_even_under_a_waiting_reader_and_a_new_one_listens(
    world: World, store: Store
) -> None:
    """What rang meanwhile was missed: only an error, and `Listening` once more, tell the follower to read."""
    async with world.feed.listen() as bell:
        assert await bell.next(5) == Listening()
        waiting = asyncio.ensure_future(bell.next(30))
        for _ in range(3):
            await world.clock.sleep(0)  # Lets the reader begin to wait.
        await store.cut()
        with pytest.raises(FeedUnavailable):
            await asyncio.wait_for(waiting, 5)
    async with world.feed.listen() as bell:
        assert await bell.next(5) == Listening()


async def test_subscriptions_that_ended_give_their_connections_back(world: World, store: Store) -> None:
    """A follower reconnects for years; a connection lost each time would one day be the last."""
    if store.pubsub is not None:
        store.pubsub.connection_pool.max_connections = 4
    kept = []
    for _ in range(12):
        async with world.feed.listen() as bell:
            assert await bell.next(5) == Listening()
            kept.append(bell)  # Not left to the garbage collector.


async def test_trimming_forgets_up_to_a_place_and_readers_go_on_behind_it(world: World) -> None:
    """Streams must not grow for ever; whoever is too far behind sees a gap, and loads a snapshot."""
    position, written = await standing(world, Lane.REVOCATIONS), []
    for _ in range(6):
        event = next_event(world, position, Lane.REVOCATIONS)
        await world.feed.append(event, after=position)
        written.append(event.compact)
        position = event.position
    for up_to in (2, 2, 4, 3):
        await world.feed.trim(Lane.REVOCATIONS, epoch=1, up_to=up_to)
    assert await world.feed.events(Lane.REVOCATIONS, epoch=1, after=0) == written[4:]
    assert await world.feed.events(Lane.REVOCATIONS, epoch=1, after=5) == written[5:]
    await world.feed.trim(Lane.REVOCATIONS, epoch=1, up_to=100)
    assert await world.feed.events(Lane.REVOCATIONS, epoch=1, after=0) == []
    following = next_event(world, position, Lane.REVOCATIONS)
    await world.feed.append(following, after=position)
    assert await world.feed.events(Lane.REVOCATIONS, epoch=1, after=6) == [following.compact]


def holding(world: World, sequence: int, *values: str, **changes: Any) -> tuple[e.SignedSnapshot, Chunks]:
    """Return a snapshot of the revocations lane that names these tokens, one chunk each, and the chunks."""
    index = RevocationIndex(world.hash_key)
    for number, value in enumerate(values):
        index.add(world.entry(SelectorKind.JTI, value, until_seconds=3600 + number * 2 * BUCKET_SECONDS))
    packed = pack([index])
    place = {"sequence": sequence, "hash": "h" * 43} | changes
    return world.genesis(Lane.REVOCATIONS, sections=packed.sections, **place), packed.chunks


async def stored(world: World, *snapshots: e.SignedSnapshot) -> set[str]:
    """Return which of the chunks of these snapshots are stored."""
    return {name for one in snapshots for name in await world.feed.chunks(Lane.REVOCATIONS, one.digests)}


async def test_a_snapshots_chunks_are_kept_as_they_are(world: World) -> None:
    """Their digests are what is signed."""
    snapshot, chunks = holding(world, 5, "a", "b", "c")
    assert len(chunks) == 3
    assert await world.feed.keep_snapshot(snapshot, chunks)
    assert await world.feed.chunks(Lane.REVOCATIONS, [*chunks, "x" * 43]) == chunks
    assert await world.feed.chunks(Lane.KEYS, list(chunks)) == {}
    assert await world.feed.chunks(Lane.REVOCATIONS, []) == {}


async def test_chunks_that_neither_the_newest_nor_the_previous_snapshot_names_are_forgotten(world: World) -> None:
    """Whoever has just read the previous one still reads its chunks; older ones would fill the store."""
    kept = [holding(world, sequence, "all", f"t{sequence}") for sequence in (5, 6, 7)]
    signed = [snapshot for snapshot, _ in kept]
    common = set.intersection(*(set(chunks) for _, chunks in kept))
    assert len(common) == 1
    for snapshot, chunks in kept:
        assert await world.feed.keep_snapshot(snapshot, chunks)
    assert await stored(world, *signed) == {*signed[1].digests, *signed[2].digests}
    assert common < await stored(world, *signed)


async def test_a_snapshot_that_is_not_taken_takes_no_chunk_away(world: World) -> None:
    """A late writer must not sweep what the newer one needs."""
    newer, chunks = holding(world, 9, "a", "b")
    assert await world.feed.keep_snapshot(newer, chunks)
    for sequence, place in ((8, {}), (9, {}), (20, {"epoch": 2})):
        older, others = holding(world, sequence, "c", **place)
        assert not await world.feed.keep_snapshot(older, others)
        assert not await world.feed.mend_snapshot(older, others)
    assert await stored(world, newer) == set(newer.digests)
    assert await world.feed.snapshot(Lane.REVOCATIONS) == newer.compact


async def test_an_epoch_opens_with_its_chunks(world: World) -> None:
    """The union that opens it is all that a new follower gets."""
    start = await standing(world, Lane.REVOCATIONS)
    before, chunks_before = holding(world, 5, "old")
    assert await world.feed.keep_snapshot(before, chunks_before)
    opening, chunks = holding(world, 0, "a", "b", epoch=2, hash="")
    assert await world.feed.open_epoch(opening, after=str(start), chunks=chunks)
    assert await stored(world, opening) == set(chunks)
    assert await stored(world, before) == set(chunks_before)  # Named by the previous snapshot.
