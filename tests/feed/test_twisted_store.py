"""What a feed does where somebody else has written to its store."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from keyturn.contract.envelope import StatementType
from keyturn.contract.errors import FeedUnavailable, PositionTaken
from keyturn.contract.positions import Lane
from keyturn.contract.revocations import BUCKET_SECONDS
from keyturn.contract.selectors import SelectorKind
from keyturn.contract.snapshots import pack
from keyturn.feed.log import Beside
from keyturn.feed.publisher import LOOK_AT_SNAPSHOT_SECONDS, SNAPSHOT_EVERY_SECONDS, Publisher
from keyturn.feed.redis import SEALED_KEY, RedisFeed, head_key, stream_key
from keyturn.feed.snapshots import RedisSnapshots, chunks_key, snapshot_key
from tests.clocks import ManualClock
from tests.feed.conftest import Store
from tests.feed.test_feed import head, holding, next_event, standing
from tests.world import Member, World

REVOCATIONS = Lane.REVOCATIONS


async def test_a_stored_moment_that_is_no_honest_one_silences_no_publisher(world: World, store: Store) -> None:
    """One field written once by a thief, or a clock that was put right, must not take the heartbeat for ever."""
    start, now = await standing(world), world.clock.now()
    assert await world.feed.beat(head(world, start, at=now + 3600), beater="one")
    assert not await world.feed.beat(head(world, start, at=now + 3599), beater="one")
    assert await world.feed.beat(head(world, start, at=now + 1), beater="one")
    if store.redis is None:
        return
    key = head_key(Lane.KEYS)
    for count, at in enumerate(("9" * 20, "", "z", "9" * 30, None), start=2):
        twist = store.redis.hdel(key, "at") if at is None else store.redis.hset(key, "at", at)
        await cast("Awaitable[int]", twist)
        assert await world.feed.beat(head(world, start, at=now + count), beater="one"), at


@pytest.mark.parametrize("lane", Lane)
async def test_a_snapshot_that_was_destroyed_or_put_back_is_replaced(world: World, store: Store, lane: Lane) -> None:
    """One write once kept every new verifier from starting for ever, and nobody who ran noticed."""
    if store.redis is None:
        return
    assert isinstance(world.clock, ManualClock)
    member, key = await world.caught_up(), snapshot_key(lane)
    publisher = world.publisher(lane, member)
    assert not await publisher.mend_snapshot()
    genesis = await world.feed.snapshot(lane)
    assert genesis is not None
    content = [world.new_key("EdDSA")] if lane is Lane.KEYS else [world.entry(SelectorKind.JTI, "a-token")]
    await publisher.append(content)
    forged = world.roles[Lane.KEYS if lane is Lane.REVOCATIONS else Lane.REVOCATIONS].sign(
        StatementType.SNAPSHOT, b"{}"
    )
    for twisted in (b"junk", forged, genesis, None):
        if twisted is None:
            await store.redis.delete(key)
        else:
            fields = {"snapshot": twisted, "position": "1:999:x"}
            await cast("Awaitable[int]", store.redis.hset(key, mapping=fields))
        world.clock.advance(LOOK_AT_SNAPSHOT_SECONDS)
        assert await publisher.mend_snapshot(), twisted
        late = await world.caught_up()
        assert late.replica.position(lane) == member.replica.position(lane)


@pytest.mark.parametrize("deleted", [[1], [2], [1, 2, 3]])
async def test_events_that_were_deleted_keep_nobody_from_beginning(
    world: World, store: Store, deleted: list[int]
) -> None:
    """Who followed already noticed nothing; who began could not catch up until the next snapshot was due."""
    if store.redis is None:
        return
    assert isinstance(world.clock, ManualClock)
    member, lane = await world.caught_up(), Lane.REVOCATIONS
    publisher = world.publisher(lane, member)
    for name in ("one", "two", "three"):
        await publisher.append([world.entry(SelectorKind.JTI, name)])
    assert not await publisher.mend_snapshot()
    await store.redis.xdel(stream_key(lane, 1), *(f"{sequence}-0" for sequence in deleted))
    assert (await world.caught_up()).replica.position(lane) != member.replica.position(lane)
    world.clock.advance(LOOK_AT_SNAPSHOT_SECONDS)
    assert await publisher.mend_snapshot()
    assert (await world.caught_up()).replica.position(lane) == member.replica.position(lane)
    await publisher.append([world.entry(SelectorKind.JTI, "four")])
    world.clock.advance(LOOK_AT_SNAPSHOT_SECONDS)
    assert not await publisher.mend_snapshot()


async def test_an_append_that_fails_half_way_has_done_nothing(world: World, store: Store) -> None:
    """A key that stands in the feed without its private half would be let sign, and could not."""
    if store.redis is None:
        return
    start = await standing(world)
    await store.redis.set(SEALED_KEY, b"no hash")
    with pytest.raises(FeedUnavailable):
        await world.feed.append(next_event(world, start), after=start, beside=Beside(sealed={"one": b"box"}))
    assert await standing(world) == start
    assert await world.feed.events(Lane.KEYS, epoch=1, after=0) == []


async def revoked_world(world: World) -> tuple[Publisher, Member]:
    """Return the voice of the revocations lane and its replica, with a snapshot of several chunks in the store."""
    assert isinstance(world.clock, ManualClock)
    member = await world.caught_up()
    publisher = world.publisher(REVOCATIONS, member)
    for number in range(3):
        entry = world.entry(SelectorKind.JTI, f"t{number}", until_seconds=3600 + 2 * number * BUCKET_SECONDS)
        await publisher.append([entry])
    state = pack(member.replica.indexes)
    assert len(state.chunks) == 3
    held = member.replica.position(REVOCATIONS)
    assert held is not None
    snapshot = world.genesis(REVOCATIONS, sequence=3, hash=held.hash, sections=state.sections)
    assert await world.feed.mend_snapshot(snapshot, state.chunks)
    assert not await publisher.mend_snapshot()
    return publisher, member


@pytest.mark.parametrize("twist", ["delete one", "delete all", "replace one"])
async def test_chunks_that_were_destroyed_or_replaced_are_put_back(world: World, store: Store, twist: str) -> None:
    """Nobody who follows already would notice, and nobody else could begin."""
    if store.redis is None:
        return
    assert isinstance(world.clock, ManualClock)
    publisher, member = await revoked_world(world)
    await world.feed.trim(REVOCATIONS, epoch=1, up_to=3)
    key = chunks_key(REVOCATIONS)
    one = (await store.redis.hkeys(key))[1]  # type: ignore[misc]
    if twist == "delete all":
        await store.redis.delete(key)
    elif twist == "delete one":
        await store.redis.hdel(key, one)  # type: ignore[misc]
    else:
        await store.redis.hset(key, one, b"\0" * 8)  # type: ignore[misc,arg-type]
    late = await world.caught_up()
    assert late.replica.position(REVOCATIONS) is None
    assert {"statement_refused" if twist == "replace one" else "chunk_missing"} <= set(late.events())
    assert not await publisher.mend_snapshot()  # It has just looked.
    world.clock.advance(LOOK_AT_SNAPSHOT_SECONDS)
    assert await publisher.mend_snapshot()
    await late.follower.catch_up()
    assert late.replica.position(REVOCATIONS) == member.replica.position(REVOCATIONS)
    assert sorted(late.replica.indexes[0].rows()) == sorted(member.replica.indexes[0].rows())


async def test_what_a_publisher_left_behind_that_died_half_way_is_swept_by_the_next(world: World, store: Store) -> None:
    """Garbage must not pile up with each crash."""
    if store.redis is None:
        return
    publisher, member = await revoked_world(world)
    key = chunks_key(REVOCATIONS)
    await store.redis.hset(key, mapping={f"left-{number}": b"x" for number in range(5)})  # type: ignore[misc]
    await publisher.append([world.entry(SelectorKind.JTI, "another")])
    state, held = pack(member.replica.indexes), member.replica.position(REVOCATIONS)
    assert held is not None
    snapshot = world.genesis(REVOCATIONS, sequence=4, hash=held.hash, sections=state.sections)
    assert await world.feed.keep_snapshot(snapshot, state.chunks)
    names = {name.decode() for name in await store.redis.hkeys(key)}  # type: ignore[misc]
    assert names >= set(state.chunks)
    assert not any(name.startswith("left-") for name in names)


async def test_a_chunk_that_another_publisher_swept_meanwhile_is_stored_again(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its snapshot is stored a chunk looks like garbage; a snapshot that names a missing one must not stand."""
    if store.redis is None:
        return
    await revoked_world(world)
    assert isinstance(world.feed, RedisFeed)
    put, key = RedisSnapshots._put, chunks_key(REVOCATIONS)
    swept: list[int] = []
    snapshot, chunks = holding(world, 9, "a", "b")

    async def put_and_lose(self: RedisSnapshots, *arguments: Any, **choices: Any) -> None:
        await put(self, *arguments, **choices)
        if len(swept) < losses:
            swept.append(await store.redis.hdel(key, *chunks))  # type: ignore[misc,union-attr]

    monkeypatch.setattr(RedisSnapshots, "_put", put_and_lose)
    losses = 3
    assert not await world.feed.keep_snapshot(snapshot, chunks)
    assert await world.feed.snapshot(REVOCATIONS) != snapshot.compact
    swept.clear()
    losses = 2
    assert await world.feed.keep_snapshot(snapshot, chunks)
    assert len(swept) == 2
    assert await world.feed.chunks(REVOCATIONS, list(chunks)) == chunks


@pytest.mark.parametrize("stored", [b"junk", b"\xff\n1:2", b"\xc3\xbf:1:x", b"9:9:\x00"])
async def test_an_epoch_opens_over_whatever_stands_in_the_place_of_a_position(
    world: World, store: Store, stored: bytes
) -> None:
    """Three bytes that are no text once kept the publishers from ever mending their lane."""
    if store.redis is None:
        return
    await standing(world)
    await cast("Awaitable[int]", store.redis.hset(head_key(Lane.KEYS), mapping={"position": stored}))
    top = await world.feed.top(Lane.KEYS)
    assert top is not None
    assert await world.feed.open_epoch(world.genesis(Lane.KEYS, epoch=2), after=top.position)
    top = await world.feed.top(Lane.KEYS)
    assert top is not None
    assert top.position.startswith("2:0:")


async def test_a_head_of_another_type_is_a_lane_that_stands_nowhere(world: World, store: Store) -> None:
    """It once failed each heartbeat, so that the publisher never came to mending it."""
    if store.redis is None:
        return
    start = await standing(world)
    await store.redis.set(head_key(Lane.KEYS), b"no hash")
    assert not await world.feed.beat(head(world, start, at=world.clock.now() + 1), beater="one")
    assert not await world.feed.confirm(Lane.KEYS, start)
    with pytest.raises(PositionTaken):
        await world.feed.append(next_event(world, start), after=start)
    assert await world.feed.open_epoch(world.genesis(Lane.KEYS, epoch=2), after=None)
    assert (await standing(world)).epoch == 2


@pytest.mark.parametrize("name", [chunks_key, snapshot_key])
async def test_a_key_of_another_type_is_replaced(world: World, store: Store, name: Callable[[Lane], str]) -> None:
    """One write would else keep every later snapshot out."""
    if store.redis is None:
        return
    assert isinstance(world.clock, ManualClock)
    publisher, member = await revoked_world(world)
    await store.redis.set(name(REVOCATIONS), b"no hash")
    await publisher.append([world.entry(SelectorKind.JTI, "another")])
    world.clock.advance(SNAPSHOT_EVERY_SECONDS)
    assert await publisher.keep_snapshot() is (name is chunks_key)  # Raises nothing: else the mending is not reached.
    await store.redis.set(name(REVOCATIONS), b"no hash")
    world.clock.advance(LOOK_AT_SNAPSHOT_SECONDS)
    assert await publisher.mend_snapshot()
    await world.feed.trim(REVOCATIONS, epoch=1, up_to=4)
    late = await world.caught_up()
    assert late.replica.position(REVOCATIONS) == member.replica.position(REVOCATIONS)
