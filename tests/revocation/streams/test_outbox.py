"""The feed as an outbox: what the store holds is told only where it leads on from what was told before."""

from typing import Any

import pytest

from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.events import RevocationsEvent, SignedEvent, sign_event
from keyturn.contract.positions import Lane, Position
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.log import Top
from revocation.streams import outbox as reading
from revocation.streams.outbox import EPOCH_ENDED, LANE, Gap, Outbox, Reading
from revocation.streams.progress import Progress, at
from tests.world import Member, World

BEGINNING = Progress(1, 0, "")


class Bench:
    """A world in memory whose lane holds three events, and an outbox that reads it."""

    def __init__(self, world: World, member: Member) -> None:
        self.world, self.member = world, member
        self.publisher = world.publisher(LANE, member)
        self.outbox = Outbox(world.feed, member.replica, frozenset(SelectorKind))
        self.signed: list[SignedEvent] = []

    async def revoke(self, *names: str) -> None:
        """Revoke each in an event of its own."""
        for name in names:
            self.signed.append(await self.publisher.append([self.world.entry(SelectorKind.SUBJECT, name)]))

    async def open_epoch(self, epoch: int) -> None:
        """Begin another epoch."""
        stands = self.member.replica.position(LANE)
        assert await self.publisher.open_epoch(epoch, after=str(stands))

    def forged(self, *, sequence: int, previous: str, by: Lane = LANE, epoch: int = 1) -> bytes:
        """Return an event that leads on from somewhere else, or is by another lane's role."""
        event = RevocationsEvent(
            epoch=epoch, sequence=sequence, at=self.world.clock.now(), trust=1, previous=previous, id="x",
            entries=(self.world.entry(SelectorKind.SUBJECT, "nobody"),),
        )  # fmt: skip
        return sign_event(self.world.roles[by], event).compact

    def hold(self, patch: pytest.MonkeyPatch, *events: bytes) -> None:
        """Let the store hold these, whoever put them there."""

        async def held(*_arguments: object, **_named: object) -> list[bytes]:
            return list(events)

        patch.setattr(self.world.feed, "events", held)


@pytest.fixture
async def bench() -> Bench:
    """Begin with three events."""
    world = await World().begin()
    bench = Bench(world, await world.caught_up())
    await bench.revoke("alice", "bob", "carol")
    return bench


def told(reading: Reading) -> list[str]:
    """Return whose revocations are told."""
    return [one.entry.selector.value for page in reading.pages for one in page.tellings]


async def test_what_lies_behind_a_progress_is_read_wherever_that_is(bench: Bench) -> None:
    """Progress may be set back, by another replica or by whoever owns the store: nothing read before may stand in."""
    after_two = at(bench.signed[1].position)
    assert told(await bench.outbox.read(BEGINNING)) == ["alice", "bob", "carol"]
    assert told(await bench.outbox.read(after_two)) == ["carol"]
    assert told(await bench.outbox.read(BEGINNING)) == ["alice", "bob", "carol"]


async def test_another_history_in_the_running_epoch_is_told_to_nobody(bench: Bench) -> None:
    """After a failover the store may hold what nobody has agreed to yet: its publisher mends that, and we wait."""
    with pytest.raises(FeedUnavailable, match="another history"):
        await bench.outbox.read(Progress(1, 1, "h" * 43))


async def test_another_history_in_an_epoch_that_is_over_is_a_gap_and_is_told(bench: Bench) -> None:
    """RFC 8936, 1: which of the two the receiver was told nobody knows any more, and it must not hold up the rest."""
    await bench.open_epoch(2)
    gone_on = await bench.outbox.read(Progress(1, 1, "h" * 43))
    assert gone_on.gap == Gap(1, 1, 1, "branched")
    assert gone_on.onward is not None
    assert told(await bench.outbox.read(gone_on.onward)) == ["bob", "carol"]
    ended = await bench.outbox.read(at(bench.signed[2].position))
    assert (ended.onward, ended.gap) == (Progress(2, 0, ""), Gap(1, 4, None, EPOCH_ENDED))


@pytest.mark.parametrize("break_off", ["hash", "number", "epoch"])
async def test_what_does_not_lead_on_is_not_told_with_what_does(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, break_off: str
) -> None:
    """Each event carries the hash of the one before: genuine ones of another chain must not be mixed in."""
    first = bench.signed[0]
    odd = {
        "hash": bench.forged(sequence=2, previous="h" * 43),
        "number": bench.forged(sequence=3, previous=first.hash),
        "epoch": bench.forged(sequence=2, previous=first.hash, epoch=7),
    }[break_off]
    bench.hold(monkeypatch, first.compact, odd)
    assert told(await bench.outbox.read(BEGINNING)) == ["alice"]


@pytest.mark.parametrize("by", list(Lane))
async def test_what_its_role_did_not_sign_for_this_place_is_no_reason_to_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, by: Lane
) -> None:
    """Who has stolen another role's key, or has an old event, and can write the store, must not have us tell it."""
    epoch = 7 if by is LANE else 1
    bench.hold(monkeypatch, bench.forged(sequence=1, previous="h" * 43, by=by, epoch=epoch))
    with pytest.raises(FeedUnavailable, match="cannot be told"):
        await bench.outbox.read(BEGINNING)


async def test_no_more_is_read_than_may_be_told_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checklist, every endpoint: a receiver that never acknowledges must not have all of the feed in our memory."""
    monkeypatch.setattr(reading, "MOST_OPEN", 2)
    assert told(await bench.outbox.read(BEGINNING)) == ["alice", "bob"]


async def test_what_the_store_is_ahead_by_is_not_called_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our replica is a moment behind, or they came meanwhile: a gap that is none would have a receiver start anew."""
    done, top = at(bench.signed[0].position), bench.world.feed.top
    bench.hold(monkeypatch)
    lost = await bench.outbox.read(done)
    assert lost.gap == Gap(1, 2, 3, "trimmed")

    async def ahead(lane: Lane) -> Top:
        found = await top(lane)
        assert found is not None
        return Top(str(Position(1, 9, "h" * 43)), found.statement)

    with monkeypatch.context() as patch:
        patch.setattr(bench.world.feed, "top", ahead)
        assert await bench.outbox.read(done) == Reading()
    answers = iter([[], [one.compact for one in bench.signed[1:]]])

    async def events(*_arguments: Any, **_named: Any) -> list[bytes]:
        return next(answers)

    monkeypatch.setattr(bench.world.feed, "events", events)
    assert await bench.outbox.read(done) == Reading()
