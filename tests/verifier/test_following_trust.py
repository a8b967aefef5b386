"""A follower and the trust document: newer, stolen, foreign, expired, unreadable."""

from functools import partial

import pytest

from keyturn.contract.envelope import StatementType
from keyturn.contract.positions import Lane
from keyturn.contract.roots import Bundle, sign_step
from keyturn.contract.trust import open_trust, sign_trust
from keyturn.feed.log import Rung
from keyturn.verifier.freshness import State
from tests.clocks import ManualClock
from tests.verifier.followed import KEYS, REVOCATIONS, as_time_passes, revoke, revoked, state
from tests.verifier.twisted import TwistedFeed
from tests.waiting import eventually
from tests.world import Member, World, new_statement_key


async def test_newer_trust_is_fetched_when_a_head_names_it(world: World, feed: TwistedFeed, clock: ManualClock) -> None:
    """And until it is here the lane is not fresh."""
    publisher = await world.caught_up()
    async with world.following() as member:
        second = world.trust(version=2)
        publisher.replica.adopt_trust(second)
        clock.advance(6)
        for lane in Lane:
            await world.publisher(lane, publisher).beat()
        await eventually(lambda: feed.trust_reads >= 2)
        assert state(member, clock) is State.STALE
        assert member.replica.trust.version == 1
        await feed.keep_trust(second.compact)
        clock.advance(1.5)
        for lane in Lane:
            await world.publisher(lane, publisher).beat()
        await eventually(lambda: state(member, clock) is State.FRESH)
        assert member.replica.trust.version == 2


async def test_a_new_role_key_is_found_by_the_statement_that_nobody_known_signed(
    world: World, feed: TwistedFeed, clock: ManualClock
) -> None:
    """After a role changed hands the old document cannot read the head that would name the new one."""
    publisher = await world.caught_up()
    async with world.following() as member:
        world.roles[REVOCATIONS] = new_statement_key()
        await feed.keep_trust(world.trust_bytes(version=2))
        publisher.replica.adopt_trust(world.trust(version=2))
        clock.advance(1.5)
        await revoke(world, publisher, "under-the-new-key")
        await as_time_passes(clock, 0.3, lambda: revoked(member, "under-the-new-key"))
        assert member.replica.trust.version == 2


async def test_a_raised_lowest_epoch_leaves_nothing_of_the_thief(world: World, feed: TwistedFeed) -> None:
    """End to end: stolen role, new document, new epoch."""
    publisher = await world.caught_up()
    async with world.following() as member:
        await world.publisher(KEYS, publisher).append([world.new_key()])
        await eventually(lambda: len(member.replica.keys) == 1)
        world.roles[KEYS] = new_statement_key()
        await feed.keep_trust(world.trust_bytes(version=2, lowest_epoch={"keys": 2, "revocations": 1}))
        opening = world.genesis(KEYS, epoch=2, trust=2)
        assert await feed.open_epoch(opening, after=str(publisher.replica.position(KEYS)))
        clock = world.clock
        assert isinstance(clock, ManualClock)
        await as_time_passes(clock, 0.3, lambda: member.replica.position(KEYS) == opening.position)
        assert len(member.replica.keys) == 0


async def test_a_follower_that_pins_an_old_root_walks_to_the_newest(world: World, feed: TwistedFeed) -> None:
    """Root rotation reaches the fleet without a visit: those that run, and those that start with yesterday's pin."""
    old, clock = world.root, world.clock
    assert isinstance(clock, ManualClock)
    publisher = await world.caught_up()
    async with world.following() as member:
        world.root = new_statement_key()
        step = sign_step(old=old, new=world.root, at=clock.now())
        bundle = Bundle([step], world.trust_bytes(version=2)).join()
        await feed.keep_trust(bundle)
        publisher.replica.adopt_trust(open_trust(bundle, root=old.public, allow_dev=False))
        clock.advance(1.5)
        await world.publisher(KEYS, publisher).beat()
        await eventually(lambda: member.replica.trust.version == 2)
        assert member.replica.trust.root == world.root.public
        # From here on the pinned root is history: what it signs counts no more, and the step need not be shown again.
        forged = sign_trust(old, world.document(version=99))
        for stored, version in ((forged, 2), (world.trust_bytes(version=3), 3)):
            await feed.keep_trust(stored)
            await member.follower._read_trust()
            assert member.replica.trust.version == version
        assert member.events().count("trust_refused") == 1
    await feed.keep_trust(bundle)
    for pinned in (old, world.root):
        late = await world.caught_up(root=pinned.public)
        assert late.replica.trust.version == 2


def is_in(member: Member, clock: ManualClock, expected: State) -> bool:
    """Say whether a process is fresh, stale or expired now."""
    return state(member, clock) is expected


async def test_a_replayed_document_takes_nothing_back_and_who_cannot_fetch_the_new_one_expires(
    world: World, feed: TwistedFeed, clock: ManualClock
) -> None:
    """The heads name version 2; the store, in the attacker's hands, offers version 1 for ever."""
    publisher = await world.caught_up()
    publisher.replica.adopt_trust(world.trust(version=2))
    async with world.following() as member:
        for seconds, expected in ((6, State.STALE), (world.freshness.expired_after_seconds, State.EXPIRED)):
            clock.advance(seconds)
            for lane in Lane:
                await world.publisher(lane, publisher).beat()
            await eventually(partial(is_in, member, clock, expected))
        assert member.replica.trust.version == 1


@pytest.mark.parametrize("why", ["another root", "another issuer", "expired", "dev", "garbage", "absent"])
async def test_trust_that_cannot_be_believed_leaves_a_new_follower_with_nothing(
    feed: TwistedFeed, clock: ManualClock, why: str
) -> None:
    """It trusts nobody, reads nothing, and says why."""
    world = await World(feed=feed, clock=clock).begin()
    stored = {
        "another root": World(clock=clock).trust_bytes(),
        "another issuer": world.trust_bytes(issuer="https://other.example"),
        "expired": world.trust_bytes(expires_at=clock.now()),
        "dev": world.trust_bytes(dev=True),
        "garbage": b"not a document",
        "absent": None,
    }[why]
    feed.put_trust(stored)
    member = await world.caught_up()
    assert member.replica.trust.version == 0
    assert state(member, clock) is State.EXPIRED
    assert member.replica.position(KEYS) is None
    assert ("trust_refused" in member.events()) is (why != "absent")
    if why == "dev":
        allowed = await world.caught_up(allow_dev=True)
        assert state(allowed, clock) is State.FRESH


async def test_an_unreadable_event_expires_a_follower_and_is_said(world: World, clock: ManualClock) -> None:
    """An old reader must stop rather than skip what a newer publisher says."""
    compact = world.roles[REVOCATIONS].sign(StatementType.EVENT, b'{"lane":"revocations","kind":"of the future"}')
    async with world.following() as member:
        assert isinstance(world.feed, TwistedFeed)
        world.feed.ring(Rung(REVOCATIONS, compact))
        await eventually(lambda: "statement_unreadable" in member.events())
        assert state(member, clock) is State.EXPIRED
