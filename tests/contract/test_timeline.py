"""The timeline is what the rules will really do: the same as a worker that ticks each second."""

from collections.abc import Iterable
from typing import TypeAlias

import pytest

from keyturn.contract import keys as k
from keyturn.contract.keys import KeySet, Phase, Use
from keyturn.contract.rotation import APPEND_SECONDS, Barrier, RotationPolicy, Window
from keyturn.contract.timeline import foresee
from tests.contract.rotating import ALL_ADOPTED, POLICY, Worker, changed

Life: TypeAlias = tuple[float | None, ...]

START = 1_000_000.0
HOURS = Window(days=tuple(range(7)), start_seconds=13 * 3600 + 47 * 60 + 120, length_seconds=60)
POLICIES = {
    "both": POLICY,
    "time": changed(POLICY, barrier=Barrier.TIME),
    "reports": changed(POLICY, barrier=Barrier.REPORTS, cache_seconds=0.0),
    "two algorithms": changed(POLICY, algorithms=("ES256", "RS256"), active_by_algorithm={"RS256": 170.0}),
    "a window": changed(POLICY, window=HOURS),
    "one standby": changed(POLICY, standbys=1),
}


def lives(moments: Iterable[tuple[float, float | None, float | None, float | None]], until: float) -> list[Life]:
    """Return what can be compared of keys, as known at a moment; those of simulations have no names in common."""
    begun = [one for one in moments if one[0] <= until]
    return [tuple(at if at is not None and at <= until else None for at in one) for one in begun]


@pytest.mark.parametrize("name", POLICIES)
def test_it_says_what_a_worker_does_that_ticks_each_second(name: str) -> None:
    """A timeline by formulas of its own would show what somebody once believed of the rules."""
    policy = POLICIES[name]
    timeline = foresee(KeySet(), policy, now=START, rotations=2)
    worker = Worker(policy, ALL_ADOPTED, now=START)
    worker.tick()
    end = max(timeline.ends_at.values())
    while worker.now < min(end, START + 2000):
        worker.advance(1)
    for alg in policy.algorithms:
        keys, spans = worker.of(alg), timeline.of(alg)
        done = lives(((one.published_at, one.active_at, one.retiring_at, one.removed_at) for one in keys), worker.now)
        told = lives(((one.publish_at, one.active_at, one.retires_at, one.removed_at) for one in spans), worker.now)
        assert told == done[: len(told)]
        begun = [life[1] for life in told if life[1] is not None and life[1] > START]
        assert len(begun) >= (2 if worker.now >= end else 1)


def test_each_key_may_sign_when_the_barrier_says_so() -> None:
    """The first waits for nobody, all others for D + C + S."""
    first, *others = foresee(KeySet(), POLICY, now=START).spans
    assert first.may_activate_at == first.active_at == first.publish_at == START
    assert others
    assert all(one.may_activate_at == one.publish_at + POLICY.publication_seconds for one in others)


def test_a_window_is_respected_and_the_first_key_is_marked() -> None:
    """An hour on Saturday is when people are there to look; the first key of an issuer does not wait for it."""
    saturday = Window(days=(5,), start_seconds=2 * 3600, length_seconds=3600)
    policy = RotationPolicy(window=saturday, active_seconds=30 * 86_400.0)
    spans = foresee(KeySet(), policy, now=1.8e9, rotations=4).spans
    begun = [one for one in spans if one.active_at is not None]
    assert [one.in_window for one in begun] == [False] + [True] * (len(begun) - 1)
    assert all(saturday.holds(one.active_at) for one in begun[1:] if one.active_at is not None)
    assert len(begun) >= 5


def test_it_goes_on_from_real_keys_and_from_a_moment_between_two_seconds() -> None:
    """An operator asks about the issuer as it is; orders that wait are carried out in it."""
    worker = Worker(POLICY, ALL_ADOPTED, now=START + 0.25)
    worker.tick()
    worker.advance(50.5)
    asked = k.RotationRequested(alg="ES256", use=Use.ACCESS, not_before=worker.now + 20)
    worker.apply_alone(asked)
    timeline = foresee(worker.keys, POLICY, now=worker.now, rotations=2)
    active, following = timeline.spans[:2]
    assert active.known
    assert active.retires_at == following.active_at == worker.now + 20
    assert following.retires_at == worker.now + 20 + POLICY.active_seconds
    assert not timeline.spans[-1].known


def test_it_can_begin_later_than_now() -> None:
    """`--at`: what stands in the key set during next month's change freeze."""
    worker = Worker(POLICY, ALL_ADOPTED, now=START)
    worker.tick()
    later = foresee(worker.keys, POLICY, now=START, begins_at=START + 250, rotations=2)
    assert later.begins_at == START + 250
    assert all(one.gone_at > START + 250 for one in later.spans)
    assert sum((one.active_at or 0) > START + 250 for one in later.spans) >= 2


def test_tombstones_and_dropped_algorithms_are_told_to_their_end() -> None:
    """What the policy no longer names is still in the set for a while."""
    worker = Worker(changed(POLICY, algorithms=("ES256", "EdDSA")), ALL_ADOPTED, now=START)
    worker.tick()
    worker.emergency(worker.active().kid)
    worker.advance(1)
    spans = foresee(worker.keys, POLICY, now=worker.now, rotations=1).spans
    assert {one.alg for one in spans} == {"ES256", "EdDSA"}
    dropped = next(one for one in spans if one.alg == "EdDSA" and one.active_at is not None)
    assert dropped.removed_at == worker.now + APPEND_SECONDS + POLICY.aftermath_seconds
    assert Phase.REVOKED in {key.phase for key in worker.keys}
