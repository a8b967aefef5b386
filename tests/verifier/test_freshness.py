"""How old a replica is: both clocks, each lane, and only newer words of the publisher."""

import pytest

from keyturn.contract.errors import BrokenChain, TrustError
from keyturn.contract.positions import Lane
from keyturn.verifier.freshness import State
from keyturn.verifier.replica import Admission
from tests.verifier.bench import KEYS, REVOCATIONS, Bench


def test_a_newer_head_of_our_position_renews_and_a_replayed_one_does_not(bench: Bench) -> None:
    """Who withholds the feed must not keep it fresh with yesterday's heartbeat."""
    old = bench.head(KEYS, at=bench.clock.now() + 1)
    for lane in Lane:
        bench.admit(lane, bench.head(lane, at=bench.clock.now() + 1))
    bench.clock.advance(4)
    for lane in Lane:
        bench.admit(lane, bench.head(lane))
    assert bench.state() is State.FRESH
    bench.clock.advance(6)
    bench.admit(REVOCATIONS, bench.head(REVOCATIONS))
    for _ in range(3):
        assert bench.admit(KEYS, old) is Admission.APPLIED
    assert bench.state() is State.STALE
    bench.admit(KEYS, bench.head(KEYS))
    assert bench.state() is State.FRESH


def test_a_head_below_our_position_never_counts_as_fresh(bench: Bench) -> None:
    """A rolled-back store has a publisher who confirms the past."""
    below = bench.head(REVOCATIONS, at=bench.clock.now() + 30)
    bench.admit(REVOCATIONS, bench.revocation().compact)
    bench.clock.advance(30)
    bench.admit(KEYS, bench.head(KEYS))
    assert bench.admit(REVOCATIONS, below) is Admission.HELD
    assert bench.state() is State.STALE
    assert bench.revoked()


def test_a_head_beyond_our_position_says_that_we_are_behind_and_is_not_fresh(bench: Bench) -> None:
    """Knowing of a newer event is not knowing the event."""
    bench.clock.advance(30)
    bench.admit(KEYS, bench.head(KEYS))
    for beyond in ({"sequence": 1}, {"epoch": 2, "sequence": 0}):
        assert bench.admit(REVOCATIONS, bench.head(REVOCATIONS, **beyond)) is Admission.BEHIND
    assert bench.state() is State.STALE


def test_a_head_of_another_hash_at_our_place_is_a_fork(bench: Bench) -> None:
    """The publisher lives in another history than we do."""
    bench.clock.advance(30)
    with pytest.raises(BrokenChain):
        bench.admit(KEYS, bench.head(KEYS, hash="x" * 43))
    assert bench.state() is State.STALE


@pytest.mark.parametrize(("ahead", "believed"), [(1.9, True), (2.1, False), (3600.0, False)])
def test_a_head_from_beyond_the_skew_is_refused(bench: Bench, ahead: float, believed: bool) -> None:
    """A head of tomorrow would hide a day of silence, and every later head would count as older."""
    head = bench.head(REVOCATIONS, at=bench.clock.now() + ahead)
    if believed:
        assert bench.admit(REVOCATIONS, head) is Admission.APPLIED
    else:
        with pytest.raises(TrustError, match="ahead of this clock"):
            bench.admit(REVOCATIONS, head)


def test_what_a_publisher_signs_with_its_clock_ahead_holds_but_is_no_word_on_the_time(bench: Bench) -> None:
    """Refusing its events would strand the lane for as long as the clock was wrong, and lose a revocation meanwhile."""
    now = bench.clock.now()
    bench.clock.advance(6)
    assert bench.state() is State.STALE
    ahead = [
        bench.revocation(at=now + 3600).compact,
        bench.world.genesis(REVOCATIONS, epoch=2, at=now + 3600).compact,
    ]
    for statement in ahead:
        assert bench.admit(REVOCATIONS, statement) is Admission.APPLIED
    assert bench.replica.place(REVOCATIONS) == (2, 0)
    assert bench.state() is State.STALE, "silence was hidden by a clock that is wrong"
    for lane in (KEYS, REVOCATIONS):
        position = bench.replica.position(lane)
        assert position is not None
        here = {"epoch": position.epoch, "sequence": position.sequence, "hash": position.hash}
        assert bench.admit(lane, bench.head(lane, at=bench.clock.now(), **here)) is Admission.APPLIED
    assert bench.state() is State.FRESH, "the clock was put right, and the lane is stuck all the same"


def test_a_replica_without_one_lane_is_expired(bench: Bench) -> None:
    """Keys without revocations would accept what was revoked."""
    empty = bench.world.member().replica
    assert empty.state(bench.clock.now(), bench.clock.boottime()) is State.EXPIRED
    empty.adopt_trust(bench.world.trust())
    empty.admit(KEYS, bench.world.genesis(KEYS).compact, now=bench.clock.now(), boottime=bench.clock.boottime())
    assert empty.state(bench.clock.now(), bench.clock.boottime()) is State.EXPIRED


@pytest.mark.parametrize("lane", Lane)
def test_the_older_lane_counts(bench: Bench, lane: Lane) -> None:
    """Fresh keys do not make up for silent revocations, nor the other way round."""
    bench.clock.advance(30)
    bench.admit(lane, bench.head(lane))
    assert bench.state() is State.STALE


def test_both_clocks_measure_the_age_and_the_larger_counts(bench: Bench) -> None:
    """A wall clock set back, or a boot-time clock that slept in a virtual machine, must not hide the silence."""
    start = bench.clock.now()
    assert bench.state() is State.FRESH
    bench.clock.set_wall(start + 6)
    assert bench.state() is State.STALE
    bench.clock.set_wall(start + 60)
    assert bench.state() is State.EXPIRED
    bench.clock.set_wall(start - 86_400)  # Set back by a day: the other clock has not moved.
    assert bench.state() is State.FRESH
    bench.clock.advance(6)
    assert bench.state() is State.STALE
    bench.clock.advance(54)
    assert bench.state() is State.EXPIRED


def test_a_clock_set_back_refuses_the_heads_that_then_come_from_the_future(bench: Bench) -> None:
    """It goes stale and says why, instead of measuring by a clock that is wrong."""
    bench.clock.set_wall(bench.clock.now() - 3600)
    with pytest.raises(TrustError, match="ahead"):
        bench.admit(KEYS, bench.head(KEYS, at=bench.clock.now() + 3600))


def test_a_clock_that_runs_ahead_and_is_put_right_has_cost_no_revocation(bench: Bench) -> None:
    """Forgetting by a wrong clock would let a revoked token live again."""
    bench.admit(REVOCATIONS, bench.revocation("ours").compact)
    right = bench.clock.now()
    bench.clock.set_wall(right + 10 * 86_400)
    assert bench.replica.forget_expired(bench.clock.now()) == 0
    snapshot = bench.world.genesis(REVOCATIONS, epoch=2, hash_key=b"k" * 16, at=right)
    bench.admit(REVOCATIONS, snapshot.compact)
    bench.clock.set_wall(right)
    assert bench.revoked("ours")


def test_revocations_that_have_run_out_by_the_publishers_word_are_forgotten(bench: Bench) -> None:
    """Memory holds what can still matter."""
    bench.admit(REVOCATIONS, bench.revocation("ours").compact)
    bench.clock.advance(7200)
    bench.admit(REVOCATIONS, bench.head(REVOCATIONS))
    assert bench.replica.forget_expired(bench.clock.now()) == 1
    assert not bench.revoked("ours")
