"""Readers of one format beside publishers of the next: nothing changes until the root says so, then nobody guesses.

Today's code knows one format. So the publishers of the version to come are today's, told that they know one more;
the readers of the version before are today's as they are.
"""

from collections.abc import Awaitable, Callable

import pytest

from keyturn.contract import events as e
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.feed import publisher as publishing
from keyturn.feed.memory import MemoryFeed
from keyturn.process.following import unready
from keyturn.verifier.freshness import State
from tests.clocks import ManualClock
from tests.verifier.followed import as_time_passes, revoked, state
from tests.waiting import eventually
from tests.world import Member, World

KEYS, REVOCATIONS = Lane
NEXT = e.FORMAT + 1


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Begin a world whose publishers are a version ahead of its readers."""
    monkeypatch.setattr(publishing, "FORMATS", (*e.FORMATS, NEXT))
    return await World(feed=MemoryFeed(), clock=ManualClock()).begin()


def clock_of(world: World) -> ManualClock:
    """Return the clock that stands still."""
    assert isinstance(world.clock, ManualClock)
    return world.clock


async def publishers(world: World) -> tuple[Member, Callable[[], Awaitable[None]]]:
    """Return the publishers' replica, and what lets both lanes' hearts beat a second later."""
    member = await world.caught_up()
    voices = [world.publisher(lane, member) for lane in Lane]

    async def beat() -> None:
        clock_of(world).advance(1)
        for voice in voices:
            await voice.beat()

    return member, beat


async def switch(world: World, *members: Member) -> None:
    """Let the root say that publishers write the next format, and the publishers hear of it."""
    await world.feed.keep_trust(world.trust_bytes(version=2, feed_format=NEXT))
    for member in members:
        assert member.replica.adopt_trust(world.trust(version=2, feed_format=NEXT))


async def test_an_old_reader_follows_a_new_publisher_until_the_root_switches_and_then_expires_and_says_why(
    world: World,
) -> None:
    """An upgrade in two steps: first every reader, then the word of the root; whoever was forgotten is loud."""
    clock, (author, beat) = clock_of(world), await publishers(world)
    async with world.following() as old:
        await world.publisher(REVOCATIONS, author).append([world.entry(SelectorKind.JTI, "before")])
        await eventually(lambda: revoked(old, "before"))
        assert (state(old, clock), unready(old.replica, clock)) == (State.FRESH, None)

        await switch(world, author)
        await world.publisher(REVOCATIONS, author).append([world.entry(SelectorKind.JTI, "after")])
        await eventually(lambda: state(old, clock) is State.EXPIRED)
        assert not revoked(old, "after"), "it could not read that: so it must not vouch for anything"
        reason = f"feed format {NEXT}; this version reads {e.FORMAT}"
        assert reason in (unready(old.replica, clock) or "")
        noted = [facts["reason"] for event, facts in old.noted if event == "statement_unreadable"]
        assert reason in noted[0]

        for _ in range(3):
            await beat()
        assert state(old, clock) is State.EXPIRED, "heads must not make it fresh again"


async def test_a_heartbeat_alone_makes_an_old_reader_expire_after_the_switch(world: World) -> None:
    """The bound is a second, even where nothing is published."""
    author, beat = await publishers(world)
    async with world.following() as old:
        await beat()
        await eventually(lambda: state(old, clock_of(world)) is State.FRESH)
        await switch(world, author)
        await beat()
        await eventually(lambda: state(old, clock_of(world)) is State.EXPIRED)


async def test_an_old_reader_that_starts_after_the_switch_never_becomes_fresh(world: World) -> None:
    """From the snapshot of the old format on: it reads that, and nothing that came later."""
    author, _ = await publishers(world)
    await switch(world, author)
    await world.publisher(KEYS, author).append(world.first_key())
    late = await world.caught_up()
    assert state(late, clock_of(world)) is State.EXPIRED
    assert "feed format" in (unready(late.replica, clock_of(world)) or "")


async def test_a_new_reader_follows_across_the_switch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both formats stand in one chain: a reader of the next version knows both."""
    author, _ = await publishers(world)
    monkeypatch.setattr(e, "FORMATS", (*e.FORMATS, NEXT))
    async with world.following() as new:
        publisher = world.publisher(REVOCATIONS, author)
        await publisher.append([world.entry(SelectorKind.JTI, "before")])
        await switch(world, author)
        signed = await publisher.append([world.entry(SelectorKind.JTI, "after")])
        assert signed.event.format == NEXT
        await as_time_passes(clock_of(world), 0.1, lambda: revoked(new, "before") and revoked(new, "after"))
        assert new.replica.unreadable == {}
    late = await world.caught_up()
    assert revoked(late, "before")
    assert revoked(late, "after")


async def test_an_old_publisher_says_nothing_once_the_root_has_switched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not write what the root has ended, and must not call a revocation accepted that it cannot write."""
    monkeypatch.setattr(publishing, "FORMATS", e.FORMATS)
    author, beat = await publishers(world)
    await switch(world, author)
    before = await world.feed.top(KEYS)
    with pytest.raises(FeedUnavailable, match=f"write feed format {NEXT}, and this version knows {e.FORMAT}"):
        await world.publisher(KEYS, author).append(world.first_key())
    with pytest.raises(FeedUnavailable):
        await beat()
    assert await world.feed.top(KEYS) == before
    assert f"write feed format {NEXT}" in (unready(author.replica, clock_of(world)) or "")


def test_a_document_that_names_no_format_means_the_first_one_for_ever() -> None:
    """Else an upgrade of the readers' code would change what old documents say."""
    world = World()
    assert world.trust().document.feed_format == 1
    assert b"feed_format" not in world.trust_bytes()
