"""A snapshot of revocations on its way into a replica: what is asked for, what is refused, and what stays."""

import struct
from typing import Any

import msgspec
import pytest

from keyturn.contract import events as e
from keyturn.contract.encoding import digest, encode_json
from keyturn.contract.envelope import StatementType
from keyturn.contract.errors import ForgedSignature, UnknownKind
from keyturn.contract.positions import Lane
from keyturn.contract.revocations import BUCKET_SECONDS, RevocationIndex
from keyturn.contract.selectors import SelectorKind
from keyturn.contract.snapshots import Chunk, Chunks, Section, pack
from keyturn.feed.memory import MemoryFeed
from keyturn.verifier.freshness import State
from keyturn.verifier.replica import Admission
from tests.verifier.bench import REVOCATIONS, Bench
from tests.world import World

PLACE: dict[str, Any] = {"sequence": 9, "hash": "h" * 43}


def index_of(world: World, *values: str, key: bytes | None = None) -> RevocationIndex:
    """Return an index of these tokens, each in a bucket of its own."""
    index = RevocationIndex(key or world.hash_key)
    for number, value in enumerate(values):
        index.add(world.entry(SelectorKind.JTI, value, until_seconds=3600 + number * BUCKET_SECONDS))
    return index


def snapshot_of(world: World, *indexes: RevocationIndex, **place: Any) -> tuple[e.SignedSnapshot, Chunks]:
    """Return a signed snapshot of these indexes, and its chunks."""
    packed = pack(indexes)
    return world.genesis(REVOCATIONS, sections=packed.sections, **(place or PLACE)), packed.chunks


def admit(bench: Bench, snapshot: e.SignedSnapshot, chunks: Chunks) -> Admission:
    """Put a snapshot and its chunks before the replica."""
    now, boottime = bench.clock.now(), bench.clock.boottime()
    return bench.replica.admit_snapshot(REVOCATIONS, snapshot.compact, now=now, boottime=boottime, chunks=chunks)


def test_a_snapshot_is_adopted_with_all_of_its_chunks_and_never_with_fewer(bench: Bench) -> None:
    """A chunk that is withheld must not take its revocations back."""
    snapshot, chunks = snapshot_of(bench.world, index_of(bench.world, "a", "b", "c"))
    held = bench.replica.position(REVOCATIONS)
    for withheld in chunks:
        assert admit(bench, snapshot, {name: raw for name, raw in chunks.items() if name != withheld}) is (
            Admission.BEHIND
        )
        assert bench.replica.position(REVOCATIONS) == held
    assert bench.admit(REVOCATIONS, snapshot.compact) is Admission.BEHIND
    assert admit(bench, snapshot, chunks) is Admission.APPLIED
    assert bench.replica.position(REVOCATIONS) == snapshot.position
    assert all(bench.revoked(value) for value in "abc")


def test_a_chunk_that_is_another_than_the_manifest_names_is_refused_and_nothing_expires(bench: Bench) -> None:
    """Who can write to the store must not be able to stop every verifier for good."""
    snapshot, chunks = snapshot_of(bench.world, index_of(bench.world, "a", "b"))
    one, other = chunks
    for spoilt in ({one: chunks[other], other: chunks[one]}, {**chunks, one: b""}, {**chunks, other: chunks[one]}):
        with pytest.raises(ForgedSignature):
            admit(bench, snapshot, spoilt)
    assert bench.state() is State.FRESH
    assert bench.replica.place(REVOCATIONS) == (1, 0)
    assert admit(bench, snapshot, chunks) is Admission.APPLIED


def test_a_signed_chunk_that_cannot_be_read_expires_the_replica(bench: Bench) -> None:
    """Passing over it could hide a revocation."""
    raw = struct.pack("<QQ", 2, 1)
    section = Section(hash_key=bench.world.hash_key, exact=(Chunk(digest=digest(raw), bucket=2**30, count=2),))
    snapshot = bench.world.genesis(REVOCATIONS, sections=(section,), **PLACE)
    with pytest.raises(UnknownKind):
        admit(bench, snapshot, {digest(raw): raw})
    assert bench.state() is State.EXPIRED


@pytest.mark.parametrize("spoil", [{"rows": []}, {"format": 2}, {"sections": []}, {"sections": None}])
def test_a_snapshot_of_another_format_expires_its_reader(bench: Bench, spoil: dict[str, Any]) -> None:
    """So does this one to a reader of the format before, whose snapshots were in one piece."""
    members = msgspec.to_builtins(snapshot_of(bench.world, index_of(bench.world, "a"))[0].snapshot) | spoil
    compact = bench.world.roles[REVOCATIONS].sign(StatementType.SNAPSHOT, encode_json(members))
    with pytest.raises(UnknownKind):
        bench.admit(REVOCATIONS, compact)
    assert bench.state() is State.EXPIRED


def test_only_chunks_that_are_not_held_are_asked_for(bench: Bench) -> None:
    """A follower that was cut off for long reads what is new, and spares the store the rest."""
    values = [f"t{number}" for number in range(8)]
    snapshot, chunks = snapshot_of(bench.world, index_of(bench.world, *values))
    loading = bench.replica.begin_snapshot(REVOCATIONS, snapshot.compact)
    assert loading is not None
    assert loading.missing == list(chunks)
    assert admit(bench, snapshot, chunks) is Admission.APPLIED
    later = index_of(bench.world, *values, "new")
    further, more = snapshot_of(bench.world, later, sequence=20, hash="i" * 43)
    loading = bench.replica.begin_snapshot(REVOCATIONS, further.compact)
    assert loading is not None
    assert loading.missing == list(more.keys() - chunks.keys())
    assert len(loading.missing) == 1
    assert admit(bench, further, more) is Admission.APPLIED
    assert all(bench.revoked(value) for value in (*values, "new"))
    assert len(bench.replica.indexes[0]) == 9


def test_a_chunk_that_is_held_in_another_bucket_is_asked_for(bench: Bench) -> None:
    """The same tokens, revoked for longer: what goes with the earlier bucket must not be gone with it."""
    index = index_of(bench.world, "a")
    snapshot, chunks = snapshot_of(bench.world, index)
    assert admit(bench, snapshot, chunks) is Admission.APPLIED
    longer = RevocationIndex(bench.world.hash_key)
    longer.add(bench.world.entry(SelectorKind.JTI, "a", until_seconds=7200))
    further, more = snapshot_of(bench.world, longer, sequence=20, hash="i" * 43)
    assert more.keys() == chunks.keys()
    assert bench.admit(REVOCATIONS, further.compact) is Admission.BEHIND
    assert admit(bench, further, more) is Admission.APPLIED
    assert len(bench.replica.indexes[0]) == 1
    bench.clock.advance(5000)
    bench.admit(REVOCATIONS, bench.head(REVOCATIONS))
    bench.replica.forget_expired(bench.clock.now())
    assert bench.revoked("a")


def test_a_snapshot_under_two_keys_brings_both(bench: Bench) -> None:
    """A publisher that came through a recovery holds the revocations of two epochs, and must lose neither."""
    first, second = index_of(bench.world, "old", key=b"the first epoch's key"), index_of(bench.world, "new")
    snapshot, chunks = snapshot_of(bench.world, second, first)
    assert admit(bench, snapshot, chunks) is Admission.APPLIED
    assert (bench.revoked("old"), bench.revoked("new"), bench.revoked("other")) == (True, True, False)
    bench.admit(REVOCATIONS, bench.revocation("next").compact)
    assert bench.revoked("next")
    again = pack(bench.replica.indexes)
    assert [section.hash_key for section in again.sections] == [second.key, first.key]


def test_trust_that_changes_while_a_snapshot_loads_begins_it_anew(bench: Bench) -> None:
    """The newer document may have dropped the epoch whose revocations it was merged into."""
    snapshot, chunks = snapshot_of(bench.world, index_of(bench.world, "a"))
    loading = bench.replica.begin_snapshot(REVOCATIONS, snapshot.compact)
    assert loading is not None
    for name, raw in chunks.items():
        bench.replica.take_chunk(loading, name, raw)
    for _ in loading.steps():
        pass
    bench.replica.adopt_trust(bench.world.trust(version=2, lowest_epoch={"keys": 1, "revocations": 2}))
    now, boottime = bench.clock.now(), bench.clock.boottime()
    assert bench.replica.adopt_snapshot(loading, now=now, boottime=boottime) is Admission.BEHIND
    assert bench.replica.position(REVOCATIONS) is None
    assert not bench.revoked("a")


def test_what_comes_by_event_while_a_snapshot_loads_is_not_lost(bench: Bench) -> None:
    """The merging takes several steps, and the doorbell rings between them."""
    for key in (bench.world.hash_key, b"the key of a new epoch"):
        snapshot, chunks = snapshot_of(bench.world, index_of(bench.world, "a", "b", key=key), epoch=len(key), **PLACE)
        loading = bench.replica.begin_snapshot(REVOCATIONS, snapshot.compact)
        assert loading is not None
        for name, raw in chunks.items():
            bench.replica.take_chunk(loading, name, raw)
        steps = loading.steps()
        next(steps)
        bench.admit(REVOCATIONS, bench.revocation(f"by event {len(key)}").compact)
        list(steps)
        now, boottime = bench.clock.now(), bench.clock.boottime()
        assert bench.replica.adopt_snapshot(loading, now=now, boottime=boottime) is Admission.APPLIED
        assert all(bench.revoked(value) for value in ("a", "b", f"by event {len(key)}"))
    assert bench.revoked(f"by event {len(bench.world.hash_key)}")


class SlowFeed(MemoryFeed):
    """Memory in which a newer snapshot replaces the one that is just being read."""

    def __init__(self) -> None:
        super().__init__()
        self.replacements: list[tuple[e.SignedSnapshot, Chunks]] = []
        self.asked: list[str] = []

    async def chunks(self, lane: Lane, digests: Any) -> dict[str, bytes]:
        """Return chunks, after the next two replacements if there are any."""
        for snapshot, chunks in self.replacements[:2]:
            assert await self.keep_snapshot(snapshot, chunks)
        del self.replacements[:2]
        self.asked += digests
        return await super().chunks(lane, digests)


async def test_a_snapshot_that_gives_way_while_it_is_read_is_read_anew() -> None:
    """Its chunks are forgotten with the second one after it; what was read already is not read twice."""
    feed = SlowFeed()
    world = await World(feed=feed).begin()
    first, chunks = snapshot_of(world, index_of(world, "a"))
    assert await feed.keep_snapshot(first, chunks)
    feed.replacements = [
        snapshot_of(world, index_of(world, "x", number), sequence=10 + order, hash="h" * 43)
        for order, number in enumerate("bc")
    ]
    member = world.member()
    member.replica.adopt_trust(world.trust())
    assert await member.follower._read_snapshot(REVOCATIONS)
    assert member.replica.place(REVOCATIONS) == (1, 11)
    assert member.events() == ["chunk_missing"]
    assert len(feed.asked) == len(set(feed.asked))


@pytest.mark.parametrize("more", ["a name", "a longer time", "a later cutoff"])
def test_a_snapshot_that_lacks_what_is_held_is_told_from_one_that_does_not(bench: Bench, more: str) -> None:
    """A publisher opens an epoch with the union only where something would else be lost, and never for nothing."""
    world, (client, other) = bench.world, ("a client", "another client")
    entries = [
        world.entry(SelectorKind.JTI, "a"),
        world.entry(SelectorKind.CLIENT, client, before=bench.clock.now()),
        world.entry(SelectorKind.JTI, "soon gone", until_seconds=400),
    ]
    bench.admit(REVOCATIONS, bench.signed(REVOCATIONS, entries).compact)
    theirs = RevocationIndex(world.hash_key)
    for entry in (
        *entries,
        world.entry(SelectorKind.JTI, "new"),
        world.entry(SelectorKind.CLIENT, other, before=1),
    ):
        theirs.add(entry)
    bench.clock.advance(1000)  # Who is pruned later holds more, and that is no loss.
    snapshot, chunks = snapshot_of(world, theirs)
    assert admit(bench, snapshot, chunks) is Admission.APPLIED
    assert REVOCATIONS not in bench.replica.lost
    held = {
        "a name": world.entry(SelectorKind.GRANT, "ours"),
        "a longer time": world.entry(SelectorKind.JTI, "new", until_seconds=9000),
        "a later cutoff": world.entry(SelectorKind.CLIENT, other, before=2, until_seconds=2600),
    }[more]
    bench.admit(REVOCATIONS, bench.signed(REVOCATIONS, [held]).compact)
    theirs.add(world.entry(SelectorKind.JTI, "newer"))
    further, more_chunks = snapshot_of(world, theirs, sequence=20, hash="i" * 43)
    assert admit(bench, further, more_chunks) is Admission.APPLIED
    assert REVOCATIONS in bench.replica.lost
    assert bench.revoked("newer")


def test_one_hash_key_has_one_section(bench: Bench) -> None:
    """What such a snapshot lacks could not be told; no publisher makes one."""
    index = index_of(bench.world, "a")
    snapshot, chunks = snapshot_of(bench.world, index, index)
    with pytest.raises(UnknownKind):
        admit(bench, snapshot, chunks)


async def test_while_one_chunk_is_bad_the_others_are_read_once() -> None:
    """A follower tries again every two seconds, and there are hundreds: one bad chunk must not become a flood."""
    feed = SlowFeed()
    world = await World(feed=feed).begin()
    snapshot, chunks = snapshot_of(world, index_of(world, *(f"t{number}" for number in range(20))))
    bad = list(chunks)[-1]
    assert await feed.keep_snapshot(snapshot, {**chunks, bad: b"\0" * 8})
    member = world.member()
    member.replica.adopt_trust(world.trust())
    for _ in range(4):
        assert not await member.follower._read_snapshot(REVOCATIONS)
    assert member.events() == ["statement_refused"] * 4
    assert {feed.asked.count(digest) for digest in chunks if digest != bad} == {1}
    assert feed.asked.count(bad) == 4
    feed._chains[REVOCATIONS].chunks[bad] = chunks[bad]
    assert await member.follower._read_snapshot(REVOCATIONS)
    assert member.replica.position(REVOCATIONS) == snapshot.position
    assert member.follower._chunks == {}
