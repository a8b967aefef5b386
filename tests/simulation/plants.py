"""Bugs to put into the production code on purpose, and the invariants by which each of them must be found."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest

from keyturn.contract import snapshots
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.events import RevocationsEvent, SignedEvent, sign_event
from keyturn.contract.keys import Phase
from keyturn.contract.positions import Lane
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import Entry
from keyturn.contract.snapshots import Packed
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.presence import Adopters, PresenceWatch
from keyturn.feed.publisher import Publisher
from keyturn.feed.recovery import Recovery, Step
from keyturn.verifier.replica import Admission, Replica
from keyturn.verifier.reporter import Reporter
from keyturn.verifier.verifier import TokenVerifier
from revocation.writer import RevocationWriter, Written
from tests.rotation.facts import Broken
from tests.rotation.test_planted_bugs import appends_anywhere, signs_without_a_lease
from tests.simulation.checkers import acknowledgements, exposure, liveness, positions, receipts, tombstones
from tests.simulation.plan import plan_of
from tests.simulation.world import run

FIRST_SEED = 10_000
MOST_SEEDS = 200
Plant = Callable[[pytest.MonkeyPatch], None]
_APPEND = Publisher.append
_LEASE = "nothing is signed without a lease"
_NOT_ACTIVE = "nothing is signed by a key that is not active"


def believes_a_higher_head(patch: pytest.MonkeyPatch) -> None:
    """Take a head beyond what the replica holds for word of the publisher: fresh, but behind."""
    confirm = Replica._confirm

    def believing(self: Replica, head: Any, position: Any, now: float, boottime: float) -> Admission:
        found = confirm(self, head, position, now, boottime)
        return self._note(head.lane, head, boottime, now) if found is Admission.BEHIND else found

    patch.setattr(Replica, "_confirm", believing)


def asks_the_cache_alone(patch: pytest.MonkeyPatch) -> None:
    """Leave a cached verdict as it is when the replica has moved."""
    judge = TokenVerifier.judge

    def cached(self: TokenVerifier, token: bytes, policy: Any) -> Any:
        checked = self._cache.get(token)
        if checked is not None:
            checked.generation = self.replica.generation
        return judge(self, token, policy)

    patch.setattr(TokenVerifier, "judge", cached)


def reports_too_much(patch: pytest.MonkeyPatch) -> None:
    """Report the place that comes next, not the one that is held."""
    places = Reporter._places

    def ahead(self: Reporter) -> Any:
        return tuple((epoch, sequence + 1) for epoch, sequence in places(self))

    patch.setattr(Reporter, "_places", ahead)


def counts_laggards_as_adopters(patch: pytest.MonkeyPatch) -> None:
    """Count every live verifier in a receipt, whatever it holds."""
    adopters = PresenceWatch.adopters

    def all_of_them(self: PresenceWatch, lane: Lane, place: tuple[int, int]) -> Adopters:
        found = adopters(self, lane, place)
        return Adopters({**found.boottimes, **dict.fromkeys(found.laggards, 0.0)}, laggards=())

    patch.setattr(PresenceWatch, "adopters", all_of_them)


def acknowledges_before_it_appends(patch: pytest.MonkeyPatch) -> None:
    """Tell a client that its revocation is durable while it still waits in the queue."""
    write = RevocationWriter.write

    async def hasty(self: RevocationWriter, entry: Entry, **named: Any) -> Written:
        task = asyncio.ensure_future(write(self, entry, **named))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return Written(_promised(self._publisher).position.place, self._clock.boottime())

    patch.setattr(RevocationWriter, "write", hasty)


def takes_silence_for_success(patch: pytest.MonkeyPatch) -> None:
    """Take an append that nobody answers for done."""

    async def optimistic(self: Publisher, content: Any, **named: Any) -> SignedEvent:
        try:
            return await _APPEND(self, content, **named)
        except FeedUnavailable:
            if self.lane is Lane.KEYS or self._replica.position(self.lane) is None:
                raise
            return _promised(self)

    patch.setattr(Publisher, "append", optimistic)


def _promised(publisher: Any) -> SignedEvent:
    """Return the event that might come next."""
    position = publisher._replica.position(Lane.REVOCATIONS)
    place = {"epoch": position.epoch, "sequence": position.sequence + 1, "previous": position.hash}
    return sign_event(publisher._key, RevocationsEvent(at=0.0, trust=1, id="", entries=(), **place))


def sums_up_without_the_newest(patch: pytest.MonkeyPatch) -> None:
    """Leave the revocation that came last out of a snapshot."""
    pack = snapshots.pack

    def short(indexes: Iterable[RevocationIndex]) -> Packed:
        return pack([_without_the_last(index) for index in indexes])

    patch.setattr("keyturn.feed.publisher.pack", short)


def _without_the_last(index: RevocationIndex) -> RevocationIndex:
    shorter = RevocationIndex(index.key)
    for name, before, until in list(index.rows())[:-1]:
        shorter.add_hashed(name, before, until)
    return shorter


def forgets_too_early(patch: pytest.MonkeyPatch) -> None:
    """Prune the bucket that still runs, too."""
    prune = RevocationIndex.prune
    patch.setattr(RevocationIndex, "prune", lambda self, now: prune(self, now + 300))


class _Early:
    """A feed that lets the replica have each event before it is appended."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher, self._feed = publisher, publisher._feed

    async def append(self, signed: SignedEvent, **named: Any) -> Any:
        clock = self._publisher._clock
        self._publisher._replica.apply(signed, now=clock.now(), boottime=clock.boottime())
        return await self._feed.append(signed, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._feed, name)


def applies_before_it_appends(patch: pytest.MonkeyPatch) -> None:
    """Apply an event to the publisher's own replica before the store has taken it, which it may never do."""

    async def hasty(self: Publisher, content: Any, **named: Any) -> SignedEvent:
        feed, self._feed = self._feed, _Early(self)  # type: ignore[assignment]
        try:
            return await _APPEND(self, content, **named)
        finally:
            self._feed = feed

    patch.setattr(Publisher, "append", hasty)


def obeys_no_tombstone(patch: pytest.MonkeyPatch) -> None:
    """Take a revoked key for one that retires."""
    key = TokenVerifier._key

    def lenient(self: TokenVerifier, kid: str, alg: str) -> Any:
        held = self.replica.verification.get(kid)
        return held if held is not None and held.record.phase is Phase.REVOKED else key(self, kid, alg)

    patch.setattr(TokenVerifier, "_key", lenient)


def beats_wherever_the_store_stands(patch: pytest.MonkeyPatch) -> None:
    """Confirm the lease of a publisher that has fallen behind."""

    async def beat(self: MemoryFeed, head: Any, *, beater: str) -> bool:
        return True

    patch.setattr(MemoryFeed, "beat", beat)


def keeps_the_lost_tail_to_itself(patch: pytest.MonkeyPatch) -> None:
    """Leave a store without the events that it has lost."""

    async def nothing(self: Recovery, *_: Any) -> Step:
        return Step.NOTHING

    patch.setattr(Recovery, "_append_again", nothing)


PLANTS: dict[Plant, set[str]] = {
    believes_a_higher_head: {exposure.FRESH},
    asks_the_cache_alone: {receipts.NO_FALSE_ACCEPT, exposure.FRESH, tombstones.ABSORBING},
    reports_too_much: {receipts.NO_FALSE_ACCEPT},
    counts_laggards_as_adopters: {receipts.NO_FALSE_ACCEPT},
    acknowledges_before_it_appends: {acknowledgements.IN_THE_FEED},
    takes_silence_for_success: {acknowledgements.IN_THE_FEED},
    sums_up_without_the_newest: {receipts.NO_FALSE_ACCEPT, exposure.FRESH, acknowledgements.NOT_LOST},
    forgets_too_early: {receipts.NO_FALSE_ACCEPT, exposure.FRESH, acknowledgements.NOT_LOST},
    applies_before_it_appends: {positions.ONE_HASH, liveness.ONE_POSITION, liveness.FRESH},
    obeys_no_tombstone: {tombstones.ABSORBING, exposure.FRESH},
    beats_wherever_the_store_stands: {_LEASE, _NOT_ACTIVE},
    signs_without_a_lease: {_LEASE, _NOT_ACTIVE},
    appends_anywhere: {positions.ONE_HASH, "one key signs", liveness.ONE_POSITION, liveness.FRESH},
    keeps_the_lost_tail_to_itself: {liveness.ONE_POSITION, liveness.FRESH, acknowledgements.NOT_LOST, liveness.SIGNS},
}


# Seeds that are known not to find a bug; a test has no time for them.
PASSED_OVER: dict[Plant, int] = {believes_a_higher_head: 75, sums_up_without_the_newest: 112}


class Found(NamedTuple):
    """After how many seeds a planted bug was noticed, and by what."""

    seeds: int
    by: BaseException

    @property
    def invariant(self) -> str:
        """Return the invariant that broke, or the error that came up instead."""
        return self.by.invariant if isinstance(self.by, Broken) else repr(self.by)


def until_found(plant: Plant, *, passing_over: int = 0) -> Found | None:
    """Run seeds on the spoiled code until something breaks; None if nothing does within `MOST_SEEDS`."""
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        for number in range(1 + passing_over, 1 + MOST_SEEDS):
            failure = run(plan_of(FIRST_SEED + number)).failure
            if failure is not None:
                return Found(number, failure)
    return None
