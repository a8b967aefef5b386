"""What a process keeps on its disk: enough to begin with, never fresher than it is, and nothing that is not signed."""

import asyncio
from pathlib import Path

import pytest

from keyturn.contract.errors import ConfigurationError
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.feed import publisher as publishing
from keyturn.verifier import keeping
from keyturn.verifier.freshness import State
from keyturn.verifier.keeping import Keeper
from keyturn.verifier.statefiles import StateDirectory
from tests.clocks import ManualClock
from tests.world import Member, World

KEYS, REVOCATIONS = Lane


@pytest.fixture
async def world() -> World:
    """Return a world in memory whose lanes have begun."""
    return await World(clock=ManualClock()).begin()


def keeper(world: World, member: Member, files: StateDirectory) -> Keeper:
    """Return what keeps that member's files."""
    return Keeper(
        files, member.replica, world.feed, world.clock,
        note=lambda event, **facts: member.noted.append((event, facts)),
    )  # fmt: skip


def restored(world: World, directory: Path) -> Member:
    """Return a process that has begun with those files and read nothing else."""
    member = world.member()
    with StateDirectory(directory) as files:
        keeper(world, member, files).restore(root=world.root.public, allow_dev=False)
    return member


async def kept(world: World, directory: Path, *names: str) -> Member:
    """Return a process that has revoked tokens of these names, published a key, and kept it all."""
    member = await world.caught_up()
    with StateDirectory(directory) as files:
        keeps = keeper(world, member, files)
        for lane in Lane:
            await keeps.keep(lane)
        await world.publisher(KEYS, member).append(world.first_key("EdDSA"))
        for name in names:
            await world.publisher(REVOCATIONS, member).append([world.entry(SelectorKind.JTI, name)])
        for lane in Lane:
            await keeps.keep(lane)
        await keeps._keep_word()
    return member


def state(world: World, member: Member) -> State:
    """Return what the member's replica may be used for."""
    return member.replica.state(world.clock.now(), world.clock.boottime())


def revoked(world: World, member: Member, name: str) -> bool:
    """Say whether a token is revoked for that member."""
    return member.replica.revokes(member.replica.names(world.claims(jti=name)))


def advance(world: World, seconds: float) -> None:
    """Let time pass."""
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(seconds)


async def test_a_restart_begins_where_it_stood_and_serves_marked_as_stale(world: World, tmp_path: Path) -> None:
    """A sidecar that restarts while the store is away must answer; and must say that it may have missed something."""
    before = await kept(world, tmp_path, "a", "b")
    after = restored(world, tmp_path)
    for lane in Lane:
        assert after.replica.position(lane) == before.replica.position(lane)
    assert list(after.replica.keys) == list(before.replica.keys)
    assert revoked(world, after, "a")
    assert revoked(world, after, "b")
    assert state(world, after) is State.EXPIRED, "while the store may still answer, nothing rests on the files alone"
    advance(world, world.freshness.stale_after_seconds)
    assert state(world, after) is State.STALE
    advance(world, world.freshness.expired_after_seconds)
    assert state(world, after) is State.EXPIRED


async def test_what_was_revoked_while_a_process_was_down_is_known_before_it_answers(
    world: World, tmp_path: Path
) -> None:
    """Its files know nothing of it, and a receipt did not wait for who was not there."""
    before = await kept(world, tmp_path, "a")
    await world.publisher(REVOCATIONS, before).append([world.entry(SelectorKind.JTI, "meanwhile")])
    after = restored(world, tmp_path)
    assert not revoked(world, after, "meanwhile")
    assert state(world, after) is State.EXPIRED
    await after.follower._read_all()
    assert revoked(world, after, "meanwhile")
    assert state(world, after) is not State.EXPIRED


async def test_a_live_head_makes_what_was_restored_fresh(world: World, tmp_path: Path) -> None:
    """As soon as the publisher is heard, and not before."""
    before = await kept(world, tmp_path, "a")
    after = restored(world, tmp_path)
    advance(world, 1)
    await after.follower._read_all()
    assert state(world, after) is State.STALE, "the store holds nothing newer than the files"
    for lane in Lane:
        assert await world.publisher(lane, before).beat()
    await after.follower._read_all()
    assert state(world, after) is State.FRESH


async def test_files_from_long_ago_are_expired_and_a_clock_that_was_set_back_makes_them_stale_at_best(
    world: World, tmp_path: Path
) -> None:
    """A disk, or a clock, in a thief's hands must not make an old truth a fresh one."""
    await kept(world, tmp_path, "a")
    advance(world, world.freshness.expired_after_seconds + 1)
    assert state(world, restored(world, tmp_path)) is State.EXPIRED
    assert isinstance(world.clock, ManualClock)
    world.clock.set_wall(world.clock.now() - world.freshness.expired_after_seconds - 1)
    after = restored(world, tmp_path)
    advance(world, world.freshness.stale_after_seconds)
    assert state(world, after) is State.STALE


async def test_what_is_accepted_is_on_the_disk_before_the_caller_hears_of_it(world: World, tmp_path: Path) -> None:
    """The store may lose its tail in the very next moment."""
    member = await world.caught_up()
    with StateDirectory(tmp_path) as files:
        keeps = keeper(world, member, files)
        publisher = world.publisher(REVOCATIONS, member)
        publisher._keep = keeps.keep
        await publisher.append([world.entry(SelectorKind.JTI, "a")])
        await keeps._keep_word()
        signed = await publisher.append([world.entry(SelectorKind.JTI, "b")])
        assert files.lanes[REVOCATIONS].read().events[-1:] == [signed.compact]
    after = restored(world, tmp_path)
    assert after.replica.position(REVOCATIONS) == signed.position
    assert after.replica.tails[REVOCATIONS].after(1) == [signed.compact]


async def test_a_crash_in_the_middle_of_a_line_costs_that_line_alone(world: World, tmp_path: Path) -> None:
    """And what is appended after it must not be glued to it."""
    await kept(world, tmp_path, "a", "b")
    path = tmp_path / "revocations.events"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    after = restored(world, tmp_path)
    first = after.replica.position(REVOCATIONS)
    assert first is not None
    assert first.place == (1, 1)
    await after.follower._read_all()
    with StateDirectory(tmp_path) as files:
        keeps = keeper(world, after, files)
        keeps._kept[REVOCATIONS] = first
        await keeps.keep(REVOCATIONS)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("spoil", ["flip", "blank line", "lost line"])
async def test_what_is_kept_after_a_spoiled_line_is_read_at_the_next_start(
    world: World, tmp_path: Path, spoil: str
) -> None:
    """One flipped bit once made all later events unreadable: on the disk, called accepted, and forgotten."""
    await kept(world, tmp_path, "a", "b", "c")
    path = tmp_path / "revocations.events"
    lines = path.read_bytes().split(b"\n")
    lines[1:2] = {"flip": [lines[1][:-2] + b"--"], "blank line": [b"", lines[1]], "lost line": []}[spoil]
    path.write_bytes(b"\n".join(lines))
    after = world.member()
    with StateDirectory(tmp_path) as files:
        keeps = keeper(world, after, files)
        keeps.restore(root=world.root.public, allow_dev=False)
        assert after.replica.place(REVOCATIONS) == (1, 1)
        await after.follower._read_all()
        publisher = world.publisher(REVOCATIONS, after)
        publisher._keep = keeps.keep
        await publisher.append([world.entry(SelectorKind.JTI, "d")])
    again = restored(world, tmp_path)
    assert again.replica.place(REVOCATIONS) == (1, 4)
    assert all(revoked(world, again, name) for name in "abcd")


async def test_events_stay_on_the_disk_where_no_snapshot_leads_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large events outrun the tail that is held: files that are due to begin anew go on until that can be."""
    monkeypatch.setattr(keeping, "MOST_BYTES", 2000)
    member = await world.caught_up()
    with StateDirectory(tmp_path) as files:
        keeps = keeper(world, member, files)
        publisher = world.publisher(REVOCATIONS, member)
        publisher._keep = keeps.keep
        for number in range(12):
            await publisher.append([world.entry(SelectorKind.JTI, f"t{number}")])
            while len(member.replica.tails[REVOCATIONS]._events) > 2:
                member.replica.tails[REVOCATIONS]._events.popleft()  # As if there were no more room.
        assert keeps.trouble is None
        assert len(files.lanes[REVOCATIONS].read().events) == 12
        await keeps._keep_word()
    assert restored(world, tmp_path).replica.place(REVOCATIONS) == (1, 12)


async def test_one_lanes_trouble_is_not_hidden_by_the_other(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said each second, and between two lanes it was said that all is well."""
    member = await world.caught_up()
    with StateDirectory(tmp_path) as files:
        keeps = keeper(world, member, files)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files.lanes[KEYS], "begin", full)
        for _ in range(3):
            for lane in Lane:
                await keeps.keep(lane)
            assert keeps.trouble is not None
    assert member.events().count("state_not_kept") == 1


async def test_files_begin_anew_from_a_snapshot_before_they_grow_without_an_end(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A year of revocations must not be read at each start."""
    monkeypatch.setattr(keeping, "MOST_EVENTS", 4)
    monkeypatch.setattr(publishing, "SNAPSHOT_EVERY_EVENTS", 4)
    member = await world.caught_up()
    publisher = world.publisher(REVOCATIONS, member)
    with StateDirectory(tmp_path) as files:
        keeps = keeper(world, member, files)
        for number in range(10):
            await publisher.append([world.entry(SelectorKind.JTI, f"t{number}")])
            await publisher.keep_snapshot()
            await keeps.keep(REVOCATIONS)
            assert len(files.lanes[REVOCATIONS].read().events) <= 4
        await keeps._keep_word()
    assert len(list((tmp_path / "chunks").iterdir())) == 1, "those of older snapshots are forgotten"
    after = restored(world, tmp_path)
    assert after.replica.position(REVOCATIONS) == member.replica.position(REVOCATIONS)
    assert all(revoked(world, after, f"t{number}") for number in range(10))
    for path in (tmp_path / "chunks").iterdir():
        path.write_bytes(b"another chunk")
    assert restored(world, tmp_path).replica.position(REVOCATIONS) is None


@pytest.mark.parametrize("name", ["trust.jws", "keys.snapshot", "revocations.events", "keys.head"])
async def test_a_file_that_somebody_wrote_to_is_refused_and_the_feed_still_read(
    world: World, tmp_path: Path, name: str
) -> None:
    """Nothing on the disk is believed that is not signed; and nothing there keeps a process from starting."""
    await kept(world, tmp_path, "a")
    (tmp_path / name).write_bytes(b"forged.by.hand\n")
    after = restored(world, tmp_path)
    assert "state_refused" in after.events()
    await after.follower._read_all()
    assert revoked(world, after, "a")
    assert len(after.replica.keys) == 1


async def test_a_full_disk_is_said_once_and_stops_nobody(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has the event; that our second copy is missing is the operator's to know."""
    member = await world.caught_up()
    with StateDirectory(tmp_path) as files:
        keeps = keeper(world, member, files)
        publisher = world.publisher(REVOCATIONS, member)
        publisher._keep = keeps.keep
        await publisher.append([world.entry(SelectorKind.JTI, "a")])

        def full(_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(files.lanes[REVOCATIONS], "append", full)
            for name in ("b", "c"):
                await publisher.append([world.entry(SelectorKind.JTI, name)])
            assert member.events().count("state_not_kept") == 1
            assert keeps.trouble is not None
        await publisher.append([world.entry(SelectorKind.JTI, "d")])
        assert keeps.trouble is None
        await keeps._keep_word()
    assert restored(world, tmp_path).replica.place(REVOCATIONS) == (1, 4)


async def test_files_that_somebody_removed_begin_anew(world: World, tmp_path: Path) -> None:
    """A cleaning script must not end the keeping until the next restart."""
    member = await world.caught_up()
    with StateDirectory(tmp_path) as files:
        keeps, publisher = keeper(world, member, files), world.publisher(REVOCATIONS, member)
        await keeps.keep(REVOCATIONS)
        (tmp_path / "revocations.events").unlink()
        await publisher.append([world.entry(SelectorKind.JTI, "a")])
        for _ in range(2):
            await keeps.keep(REVOCATIONS)
        assert keeps.trouble is None
        await keeps._keep_word()
    assert restored(world, tmp_path).replica.place(REVOCATIONS) == (1, 1)


async def test_a_directory_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    """Two that write one file would leave neither's."""
    with StateDirectory(tmp_path), pytest.raises(ConfigurationError, match="belongs to a process"):
        StateDirectory(tmp_path)
    with StateDirectory(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        StateDirectory(tmp_path / "file" / "inside")


async def test_a_running_keeper_follows_along(world: World, tmp_path: Path) -> None:
    """Verifiers keep what they hear in the background: no request waits for a disk."""
    member = await world.caught_up()
    with StateDirectory(tmp_path) as files:
        keeps = keeper(world, member, files)
        running = asyncio.create_task(keeps.run())
        await world.publisher(REVOCATIONS, member).append([world.entry(SelectorKind.JTI, "a")])
        async with asyncio.timeout(5):
            while restored_place(files) != 1:
                advance(world, keeping.KEEP_EVERY_SECONDS)
                await asyncio.to_thread(int)
        running.cancel()


async def test_a_first_head_that_comes_while_another_is_written_ends_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both lanes are heard for the first time in the moment in which a process starts."""
    member = await world.caught_up()
    heads = member.replica.heads
    heads.clear()
    heads[KEYS] = b"keys"
    with StateDirectory(tmp_path) as files:
        monkeypatch.setattr(files.lanes[KEYS], "keep_head", lambda _head: heads.setdefault(REVOCATIONS, b"revocations"))
        keeps = keeper(world, member, files)
        for _ in range(2):
            await keeps._keep_word()
        assert files.lanes[REVOCATIONS].read().head == b"revocations"


def restored_place(files: StateDirectory) -> int:
    """Count the events of the revocations lane on the disk."""
    return len(files.lanes[REVOCATIONS].read().events)
