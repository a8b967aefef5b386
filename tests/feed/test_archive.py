"""Events are in the archive, whole and chained, before the store forgets them; else it does not forget them."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from keyturn.contract import events as e
from keyturn.contract.errors import ArchiveFailed, ConfigurationError
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.feed import publisher as publishing
from keyturn.feed.archive import Archive, segments
from keyturn.feed.audit import Audit
from keyturn.feed.lines import Line, claims_of, parse_line
from keyturn.feed.log import BATCH
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.publisher import Publisher
from keyturn.verifier.follower import unnoted
from tests.clocks import ManualClock
from tests.world import Member, World, new_statement_key

KEYS, REVOCATIONS = Lane


@dataclass
class Busy:
    """A publisher of revocations that snapshots every third event and archives what it trims."""

    world: World
    member: Member
    directory: Path
    noted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.genesis = self.world.genesis(REVOCATIONS)
        self.publisher = self.another(self.archive)

    @property
    def archive(self) -> Archive:
        """Return an archive over the directory."""
        return Archive(self.directory, note=lambda event, **facts: self.noted.append((event, facts)))

    @property
    def feed(self) -> MemoryFeed:
        """Return the store."""
        assert isinstance(self.world.feed, MemoryFeed)
        return self.world.feed

    def another(self, archive: Archive) -> Publisher:
        """Return one more voice of the lane, on the same replica."""
        return Publisher(
            REVOCATIONS, self.world.roles[REVOCATIONS], self.feed, self.member.replica, self.world.clock,
            archive=archive,
        )  # fmt: skip

    async def publish(self, count: int, *, minutes: float = 1.0) -> None:
        """Publish so many revocations, that many minutes apart."""
        clock = self.world.clock
        assert isinstance(clock, ManualClock)
        for _ in range(count):
            self.count += 1
            await self.publisher.append([self.world.entry(SelectorKind.JTI, f"t{self.count}")])
            await self.publisher.keep_snapshot()
            clock.advance(minutes * 60)
            await self.publisher.beat()

    async def left(self) -> list[int]:
        """Return the sequences that the store still has."""
        return [parse_event(one) for one in await self.feed.events(REVOCATIONS, epoch=1, after=0)]

    def names(self) -> list[str]:
        """Return the names of the segments."""
        return [one.path.name for one in segments(self.directory)]

    def lines(self) -> list[Line]:
        """Return all that the archive holds, in order."""
        return [parse_line(raw) for one in segments(self.directory) for raw in one.path.read_bytes().splitlines()]

    def events(self) -> list[str]:
        """Return the names of what was noted."""
        return [event for event, _ in self.noted]


def parse_event(compact: bytes) -> int:
    """Return the sequence of an event."""
    return claims_of(compact).sequence


@pytest.fixture
async def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Busy:
    """Begin a world in memory, with a busy publisher."""
    monkeypatch.setattr(publishing, "SNAPSHOT_EVERY_EVENTS", 3)
    world = await World(feed=MemoryFeed(), clock=ManualClock()).begin()
    directory = tmp_path / "archive"
    directory.mkdir()
    return Busy(world, await world.caught_up(), directory)


async def test_what_the_store_forgets_is_in_the_archive_and_holds(busy: Busy) -> None:
    """Archive and stream together are the whole lane, from the genesis on, without a gap."""
    await busy.publish(24)
    left = await busy.left()
    assert left[0] > 1, "the stream was never trimmed"
    assert busy.names() == ["revocations-1-1-3.ndjson", "revocations-1-4-6.ndjson", "revocations-1-7-9.ndjson",
                            "revocations-1-10-12.ndjson"]  # fmt: skip
    audit = Audit([busy.world.trust()])
    audit.take(Line(REVOCATIONS, 1, 0, busy.genesis.compact))
    stream = [Line(REVOCATIONS, 1, parse_event(one), one) for one in
              await busy.feed.events(REVOCATIONS, epoch=1, after=0)]  # fmt: skip
    for line in [*busy.lines(), *stream]:
        audit.take(line)
    (stretch,) = audit.lanes[REVOCATIONS].stretches
    assert (stretch.begins_with, stretch.last, stretch.events) == ("genesis", 24, 24)
    assert [facts["events"] for event, facts in busy.noted if event == "feed_archived"] == [3, 3, 3, 3]
    assert {one.path.stat().st_mode & 0o777 for one in segments(busy.directory)} == {0o640}


async def test_nothing_is_forgotten_while_the_archive_cannot_be_written(busy: Busy) -> None:
    """A full disk must cost space in the store, and not the record; afterwards all is made up for."""
    gone = busy.directory.with_name("gone")
    busy.directory.rename(gone)
    await busy.publish(24)
    assert await busy.left() == list(range(1, 25))
    assert set(busy.events()) == {"feed_archive_failed"}
    gone.rename(busy.directory)
    await busy.publish(3)
    left = await busy.left()
    assert left[0] > 1
    assert [line.sequence for line in busy.lines()] == list(range(1, left[0]))


def spoil(feed: MemoryFeed, how: str, world: World) -> None:
    """Do what somebody with the store in his hands could."""
    stream = feed._chains[REVOCATIONS].events[1]
    if how == "noise":
        stream[4] = b"\xff nonsense"
    elif how == "removed":
        del stream[4]
    elif how == "swapped":
        stream[4], stream[5] = stream[5], stream[4]
    else:
        event = e.open_event(stream[4], REVOCATIONS, world.trust().role(REVOCATIONS)).event
        stream[4] = e.sign_event(new_statement_key() if how == "forged" else world.roles[REVOCATIONS], event).compact
        if how != "forged":  # By a thief of the role key, who can sign but not find another chain to our hashes.
            changed = e.RevocationsEvent(
                epoch=1, sequence=5, at=event.at, trust=1, previous=event.previous, id="other", entries=()
            )
            signed = e.sign_event(world.roles[REVOCATIONS], changed)
            stream[4] = signed.compact
            if how == "rechained":
                changed = e.RevocationsEvent(
                    epoch=1, sequence=6, at=event.at, trust=1, previous=signed.hash, id="another", entries=()
                )
                stream[5] = e.sign_event(world.roles[REVOCATIONS], changed).compact


@pytest.mark.parametrize("how", ["noise", "removed", "swapped", "forged", "forked", "rechained"])
async def test_a_stream_that_is_not_the_publishers_own_chain_is_neither_archived_nor_forgotten(
    busy: Busy, how: str
) -> None:
    """What came between is evidence; and a false event must not stand in the archive as if it were archived history."""
    await busy.publish(6, minutes=0)
    spoil(busy.feed, how, busy.world)
    before = len(await busy.feed.events(REVOCATIONS, epoch=1, after=0))
    await busy.publish(12)
    assert len(await busy.feed.events(REVOCATIONS, epoch=1, after=0)) == before + 12
    assert busy.names() == ["revocations-1-1-3.ndjson"]
    assert busy.events().count("feed_archive_failed") >= 1
    assert list(busy.directory.glob(".*")) == [], "half a segment is not left behind"


async def test_what_stands_behind_the_position_is_not_looked_at(busy: Busy) -> None:
    """Noise at the end of a stream must not keep good events from the archive."""
    await busy.publish(3, minutes=0)
    place = busy.member.replica.position(REVOCATIONS)
    assert place is not None
    busy.feed._chains[REVOCATIONS].events[1].append(b"\xff nonsense")
    assert await busy.archive.keep(busy.feed, REVOCATIONS, place)
    assert busy.names() == ["revocations-1-1-3.ndjson"]


async def test_two_publishers_share_an_archive(busy: Busy) -> None:
    """Each may find that the other was first; the same bytes are the same segment."""
    await busy.publish(6, minutes=0)
    place = busy.member.replica.position(REVOCATIONS)
    assert place is not None
    kept = await asyncio.gather(*(busy.archive.keep(busy.feed, REVOCATIONS, place) for _ in range(8)))
    assert (kept, busy.names()) == ([True] * 8, ["revocations-1-1-6.ndjson"])
    assert await busy.archive.keep(busy.feed, REVOCATIONS, place)
    assert busy.names() == ["revocations-1-1-6.ndjson"]


async def test_an_archive_that_was_changed_stops_the_trimming(busy: Busy) -> None:
    """Its last line is what the next segment must follow."""
    await busy.publish(18)
    newest = segments(busy.directory)[-1]
    for spoilt in (b"", b"nonsense\n", newest.path.read_bytes().splitlines(keepends=True)[0]):
        newest.path.write_bytes(spoilt)
        before = await busy.left()
        await busy.publish(3)
        assert (await busy.left())[: len(before)] == before
        assert busy.events()[-1] == "feed_archive_failed"


async def test_a_gap_that_nobody_can_close_is_said_once(busy: Busy) -> None:
    """Another publisher trimmed without this archive: what is left is kept, and what is not is named."""
    await busy.publish(6, minutes=0)
    place = busy.member.replica.position(REVOCATIONS)
    assert place is not None
    assert await busy.archive.keep(busy.feed, REVOCATIONS, place)
    await busy.publish(6, minutes=0)
    await busy.feed.trim(REVOCATIONS, epoch=1, up_to=9)
    newer = busy.member.replica.position(REVOCATIONS)
    assert newer is not None
    assert await busy.archive.keep(busy.feed, REVOCATIONS, newer)
    assert busy.names() == ["revocations-1-1-6.ndjson", "revocations-1-10-12.ndjson"]
    assert [facts for event, facts in busy.noted if event == "feed_archive_gap"] == [
        {"lane": "revocations", "epoch": 1, "first": 7, "last": 9}
    ]
    await busy.archive.keep(busy.feed, REVOCATIONS, newer)
    assert busy.events().count("feed_archive_gap") == 1


async def test_a_segment_is_never_written_over(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may have put a file of the next name there."""
    await busy.publish(3, minutes=0)
    place = busy.member.replica.position(REVOCATIONS)
    assert place is not None
    planted = busy.directory / "revocations-1-1-3.ndjson"
    monkeypatch.setattr(Archive, "_newest", lambda *_: planted.write_text("mine") and None)  # After we have looked.
    assert not await busy.archive.keep(busy.feed, REVOCATIONS, place)
    assert planted.read_text() == "mine"
    assert "with other contents" in busy.noted[-1][1]["reason"]


async def test_an_epoch_is_archived_for_itself(busy: Busy) -> None:
    """The first event of the next one follows its opening, and no event of the last."""
    await busy.publish(6, minutes=0)
    before = busy.member.replica.position(REVOCATIONS)
    assert before is not None
    assert await busy.archive.keep(busy.feed, REVOCATIONS, before)
    assert await busy.feed.open_epoch(busy.world.genesis(REVOCATIONS, epoch=2), after=str(before))
    await busy.member.follower._read_all()
    await busy.publish(2, minutes=0)
    after = busy.member.replica.position(REVOCATIONS)
    assert after is not None
    assert await busy.archive.keep(busy.feed, REVOCATIONS, after)
    assert busy.names() == ["revocations-1-1-6.ndjson", "revocations-2-1-2.ndjson"]


async def test_every_store_is_archived_in_several_reads_and_trimmed(world: World, tmp_path: Path) -> None:
    """In memory, on fakeredis and on a real Valkey; more events than one read of a stream brings."""
    member = await world.caught_up()
    publisher = world.publisher(REVOCATIONS, member)
    for number in range(BATCH + 44):
        await publisher.append([world.entry(SelectorKind.JTI, f"t{number}")])
    place = member.replica.position(REVOCATIONS)
    assert place is not None
    assert await Archive(tmp_path, note=unnoted).keep(world.feed, REVOCATIONS, place)
    await world.feed.trim(REVOCATIONS, epoch=1, up_to=place.sequence)
    assert await world.feed.events(REVOCATIONS, epoch=1, after=0) == []
    (segment,) = segments(tmp_path)
    assert (segment.first, segment.last, segment.end()) == (1, BATCH + 44, place)
    audit = Audit([world.trust()])
    for raw in segment.path.read_bytes().splitlines():
        audit.take(parse_line(raw))
    assert audit.lanes[REVOCATIONS].stretches[0].events == BATCH + 44


def test_a_directory_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    """Found at the first trimming, it would be found at night."""
    nowhere = Archive(tmp_path / "missing", note=print)
    with pytest.raises(ConfigurationError, match=r"feed\.archive"):
        nowhere.require_writable()
    Archive(tmp_path, note=print).require_writable()
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """Only names that we write are segments, and they sort by number."""
    for name in ("keys-1-10-12.ndjson", "keys-1-2-9.ndjson", "keys-x-1-2.ndjson", "notes.txt", ".abc.part",
                 "keys-1-2-9.ndjson.gz", "revocations-2-1-1.ndjson"):  # fmt: skip
        (tmp_path / name).touch()
    assert [(one.lane, one.first) for one in segments(tmp_path)] == [(KEYS, 2), (KEYS, 10), (REVOCATIONS, 1)]
    with pytest.raises(ArchiveFailed, match="damaged"):
        segments(tmp_path)[0].end()
