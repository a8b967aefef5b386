"""The rotation rules: when a key may sign, when it must go, and what no history may ever bring about."""

import re

import pytest

from keyturn.contract import keys as k
from keyturn.contract.inequalities import inequalities, leeway_lasts, violations
from keyturn.contract.keys import Phase, Use
from keyturn.contract.rotation import (
    APPEND_SECONDS,
    WORKER_TICK_SECONDS,
    Adoption,
    AtDeadline,
    Barrier,
    RotationPolicy,
    due,
    emergency,
    jwks_max_age,
)
from tests.contract.rotating import ALL_ADOPTED, POLICY, Worker, changed

START = 1_000_000.0


def rotating(policy: RotationPolicy = POLICY, adoption: Adoption = ALL_ADOPTED) -> Worker:
    """Return a worker that has made the first keys."""
    worker = Worker(policy, adoption, now=START)
    worker.tick()
    return worker


def test_an_issuer_begins_with_one_active_key_and_its_standbys() -> None:
    """Nobody can hold a set that lacks them, so they need not wait."""
    worker = rotating(changed(POLICY, algorithms=("ES256", "RS256"), standbys=3))
    for alg in ("ES256", "RS256"):
        assert [key.phase for key in worker.of(alg)] == [Phase.ACTIVE, *[Phase.PUBLISHED] * 3]
    assert len(worker.log) == 1


def test_the_first_keys_are_made_once_only() -> None:
    """When every key was revoked, the emergency has made the next one; a second beginning would skip the barrier."""
    worker = rotating()
    worker.emergency(worker.active().kid)
    worker.emergency(worker.active().kid)
    assert all(event.transition.activate_new is (number == 0) for number, event in enumerate(worker.log))


def test_a_key_signs_for_its_period_and_its_successor_takes_over() -> None:
    """Routine: one event retires the one, activates the other, and publishes a new standby."""
    worker = rotating()
    first, second = worker.active(), worker.standby()
    worker.advance(POLICY.active_seconds - 1)
    assert worker.active() == first
    worker.advance(1)
    assert worker.active().kid == second.kid
    assert worker.phase(first.kid) is Phase.RETIRING
    assert len(worker.standbys()) == POLICY.standbys
    assert len(worker.log) == 2


def test_a_key_that_was_named_to_sign_next_goes_first_but_never_lets_signing_end() -> None:
    """An imported key is the youngest: it waits its barrier; had the active one no time left, another takes over."""
    worker = rotating(changed(POLICY, barrier=Barrier.TIME))
    old, oldest = worker.active(), worker.standby()
    foreign = k.Published(kid="foreign", alg="ES256", jwk={}, use=Use.ACCESS, token_seconds=30.0)
    worker.advance(50)
    worker.apply_alone(foreign, k.RotationRequested(alg="ES256", use=Use.ACCESS, kid="foreign"))
    worker.advance(POLICY.publication_seconds - 1)
    assert worker.active() == old
    worker.advance(1)
    assert (worker.active().kid, worker.phase(oldest.kid)) == ("foreign", Phase.PUBLISHED)
    late = rotating(changed(POLICY, barrier=Barrier.TIME))
    assert late.active().sign_until is not None
    late.now = (late.active().sign_until or 0) - POLICY.lease_seconds - 1
    late.apply_alone(foreign, k.RotationRequested(alg="ES256", use=Use.ACCESS, kid="foreign"))
    late.advance(0.5)
    assert late.phase("foreign") is Phase.PUBLISHED
    late.advance(0.5)
    assert late.active().kid not in ("foreign", late.log[0].after.active("ES256", Use.ACCESS))
    assert late.keys.requested("ES256", Use.ACCESS) is not None
    late.advance(POLICY.publication_seconds)
    assert late.active().kid == "foreign"


@pytest.mark.parametrize("barrier", Barrier)
def test_a_request_rotates_as_soon_as_the_barrier_allows(barrier: Barrier) -> None:
    """Asked at the start, when the standbys are as young as can be."""
    cache = 0.0 if barrier is Barrier.REPORTS else POLICY.cache_seconds
    worker = rotating(changed(POLICY, barrier=barrier, cache_seconds=cache))
    first = worker.active()
    worker.request()
    if barrier is not Barrier.REPORTS:
        worker.advance(worker.policy.publication_seconds - 0.01)
        assert worker.active() == first
        worker.advance(0.02)
    assert worker.active() != first
    assert worker.keys.requests == ()
    after = worker.active()
    worker.advance(1)
    assert worker.active() == after  # Answered once.


@pytest.mark.parametrize(
    ("barrier", "complete", "reported", "waited_out", "may"),
    [
        (Barrier.TIME, True, False, False, False), (Barrier.TIME, True, False, True, True),
        (Barrier.BOTH, True, True, False, False), (Barrier.BOTH, True, False, True, False),
        (Barrier.BOTH, True, True, True, True), (Barrier.BOTH, False, True, False, False),
        (Barrier.BOTH, False, False, True, True), (Barrier.REPORTS, True, True, False, True),
        (Barrier.REPORTS, True, False, True, False), (Barrier.REPORTS, False, True, False, False),
        (Barrier.REPORTS, False, False, True, True),
    ],
)  # fmt: skip
def test_what_a_published_key_waits_for(
    barrier: Barrier, complete: bool, reported: bool, waited_out: bool, may: bool
) -> None:
    """Rule 1; a presence set that may lack somebody counts for nothing, then the time rule alone decides."""
    worker = rotating(changed(POLICY, barrier=barrier, cache_seconds=0.0, deadline_seconds=1000.0))
    worker.adoption = Adoption({"a": (9, 9), "b": (9, 9) if reported else (0, 0)}, complete=complete)
    first = worker.active()
    worker.request()
    worker.advance(worker.policy.publication_seconds - (0 if waited_out else 0.5))
    assert (worker.active() != first) is may


@pytest.mark.parametrize("at_deadline", AtDeadline)
def test_a_verifier_that_never_reports_delays_until_the_deadline_or_the_active_keys_end(
    at_deadline: AtDeadline,
) -> None:
    """One dead verifier must not stop rotation for good, unless that is what the operator wants."""
    worker = rotating(changed(POLICY, at_deadline=at_deadline))
    worker.adoption = Adoption({"a": (9, 9), "dead": (0, 0)}, complete=True)
    first = worker.active()
    assert first.sign_until is not None
    worker.request()
    worker.advance(worker.policy.publication_seconds + worker.policy.deadline_seconds - 0.5)
    assert worker.active() == first
    worker.advance(0.5)
    assert (worker.active() != first) is (at_deadline is AtDeadline.PROCEED)
    worker.advance(first.sign_until - worker.policy.lease_seconds - WORKER_TICK_SECONDS - worker.now)
    assert worker.active() != first  # Nobody would sign at all otherwise.


def test_a_retiring_key_goes_when_nothing_that_it_signed_can_be_valid() -> None:
    """Rule 2: last signature + T + 2S; the last signature may come G after the store took the retirement."""
    worker = rotating()
    first = worker.active()
    worker.advance(POLICY.active_seconds)
    until = APPEND_SECONDS + POLICY.lease_seconds + POLICY.token_seconds + 2 * POLICY.skew_seconds
    worker.advance(until - 0.5)
    assert worker.phase(first.kid) is Phase.RETIRING
    worker.advance(0.5)
    assert worker.phase(first.kid) is Phase.REMOVED


def test_a_shorter_lease_skew_or_token_life_does_not_shorten_the_past() -> None:
    """What was signed under the old configuration lives as long as it said."""
    long = changed(POLICY, lease_seconds=60.0, skew_seconds=20.0, token_seconds=400.0)
    worker = rotating(long)
    first = worker.active()
    worker.advance(worker.policy.active_seconds)
    worker.policy = POLICY
    worker.advance(APPEND_SECONDS + 60 + 400 + 40 - 0.5)
    assert worker.phase(first.kid) is Phase.RETIRING
    worker.advance(0.5)
    assert worker.phase(first.kid) is Phase.REMOVED


def test_limits_are_written_once_at_activation() -> None:
    """Config changes never rewrite the past."""
    worker = rotating()
    first = worker.active()
    worker.policy = changed(POLICY, token_seconds=5.0, active_seconds=9000.0)
    worker.advance(1)
    assert worker.active() == first
    assert first.sign_until is not None
    assert first.verify_until == first.sign_until + POLICY.aftermath_seconds


def test_a_lost_standby_is_replaced() -> None:
    """Else the next emergency would have no key that verifiers know."""
    worker = rotating()
    kid = worker.standby().kid
    worker.emergency(kid)
    assert worker.phase(kid) is Phase.REVOKED
    assert len(worker.standbys()) == POLICY.standbys
    assert len(worker.log) == 2  # In the same event.


@pytest.mark.parametrize("standbys", [1, 2])
def test_an_emergency_is_one_event_and_waits_for_nobody(standbys: int) -> None:
    """Tombstone, activation and new standby happen together: no verifier sees a moment without a key."""
    worker = rotating(changed(POLICY, standbys=standbys))
    worker.adoption = Adoption({"dead": (0, 0)}, complete=True)
    leaked, next_one = worker.active(), worker.standby()
    worker.emergency(leaked.kid)
    assert len(worker.log) == 2
    assert worker.phase(leaked.kid) is Phase.REVOKED
    assert worker.active().kid == next_one.kid
    assert len(worker.standbys()) == standbys
    assert emergency(worker.keys, leaked.kid, worker.policy, worker.now, "again") is None


def test_an_emergency_without_a_standby_makes_the_key_that_signs_at_once() -> None:
    """Some tokens will meet verifiers that do not know it yet; not to sign at all would be worse."""
    worker = rotating(changed(POLICY, standbys=1))
    standby = worker.standby().kid
    worker.apply_alone(k.Revoked(kid=standby))
    worker.emergency(worker.active().kid)
    assert worker.log[-1].transition.activate_new
    assert worker.active().phase is Phase.ACTIVE
    assert len(worker.standbys()) == 1


@pytest.mark.parametrize("phase", [Phase.RETIRING, Phase.REMOVED])
def test_a_key_that_signs_no_more_can_be_revoked_as_well(phase: Phase) -> None:
    """It may have leaked after all, and `revoked` absorbs every other phase."""
    worker = rotating()
    first = worker.active()
    worker.advance(POLICY.active_seconds)
    worker.advance(0 if phase is Phase.RETIRING else APPEND_SECONDS + POLICY.aftermath_seconds)
    assert worker.phase(first.kid) is phase
    active = worker.active()
    worker.emergency(first.kid)
    assert worker.phase(first.kid) is Phase.REVOKED
    assert worker.active() == active


def test_a_kid_that_never_was_cannot_be_revoked() -> None:
    """A typing error must not look like success."""
    worker = rotating()
    with pytest.raises(KeyError):
        emergency(worker.keys, "no-such-kid", POLICY, START, "")


def test_an_algorithm_that_was_added_waits_for_its_barrier_like_any_other_key() -> None:
    """Verifiers do not hold its keys yet."""
    worker = rotating()
    worker.policy = changed(POLICY, algorithms=("ES256", "EdDSA"))
    worker.tick()
    worker.advance(POLICY.publication_seconds - 1)
    assert worker.keys.active("EdDSA", Use.ACCESS) is None
    assert len(worker.of("EdDSA")) == POLICY.standbys
    worker.advance(1)
    assert worker.keys.active("EdDSA", Use.ACCESS) is not None


def test_an_algorithm_that_was_dropped_leaves_no_key_behind() -> None:
    """A key that nobody renews, retires or removes would vouch for ever for whoever steals it."""
    worker = rotating(changed(POLICY, algorithms=("ES256", "EdDSA")))
    worker.policy = POLICY
    worker.advance(0)
    assert {key.phase for key in worker.of("EdDSA")} == {Phase.RETIRING, Phase.REMOVED}
    worker.advance(APPEND_SECONDS + POLICY.aftermath_seconds)
    assert {key.phase for key in worker.of("EdDSA")} == {Phase.REMOVED}
    assert worker.active()


def test_keys_of_another_use_are_left_alone() -> None:
    """Answers and status lists have rotations of their own."""
    worker = rotating()
    other = changed(POLICY, use=Use.STATUS, algorithms=("EdDSA",))
    transition = due(worker.keys, other, ALL_ADOPTED, START)
    assert transition is not None
    assert transition.activate_new
    worker.policy = other
    worker.tick()
    worker.policy = POLICY
    worker.advance(POLICY.active_seconds)
    status = [key for key in worker.keys if key.use is Use.STATUS]
    assert [key.phase for key in status] == [Phase.ACTIVE, Phase.PUBLISHED, Phase.PUBLISHED]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"distribution_seconds": 11.9}, r"distribution 11\.9 s < expired 10 s \+ skew 2 s.*at least 12 s"),
        ({"barrier": Barrier.REPORTS}, r"barrier reports with cache 3 s"),
        ({"active_seconds": 17.0}, r"active 17 s \(ES256\) <= distribution 12 s \+ cache 3 s.*= 17 s"),
        ({"standbys": 0}, "standbys 0"), ({"algorithms": ()}, "algorithms 0 < 1"),
        ({"algorithms": ("ES256", "ES256")}, "algorithms 2 is not different ones 1"),
        ({"token_seconds": 0.0}, "token 0 s <= 0"),
        ({"lease_seconds": 0.0}, "lease 0 s <= 0"), ({"expired_seconds": 0.0}, "expired 0 s <= 0"),
        ({"active_seconds": -1.0}, r"active \(ES256\) -1 s <= 0"), ({"skew_seconds": -1.0}, "skew -1 s < 0"),
        ({"lease_seconds": 1.0}, "lease 1 s <= skew 2 s"), ({"active_by_algorithm": {"RS256": 9.0}}, "active_of RS256"),
        ({"cache_seconds": -1.0}, "cache -1 s < 0"), ({"deadline_seconds": -1.0}, "deadline -1 s < 0"),
    ],
    ids=str,
)  # fmt: skip
def test_a_policy_that_breaks_a_rule_is_told_which_with_the_numbers(change: dict[str, object], named: str) -> None:
    """Refused at the start, not found out in the night of the first rotation."""
    assert violations(POLICY) == []
    assert violations(RotationPolicy()) == []
    found = violations(changed(POLICY, **change))
    assert any(re.search(named, one) for one in found), found


def test_every_rule_with_numbers_is_stated_whether_it_holds_or_not() -> None:
    """Who reads a policy sees how near each limit is, not only which one is broken."""
    stated = inequalities(changed(POLICY, algorithms=("ES256", "RS256")))
    assert {one.rule for one in stated} == {1, 2, 3, 4, 6}
    assert "active 100 s (RS256) > distribution 12 s + cache 3 s + skew 2 s = 17 s" in [one.stated for one in stated]
    broken = inequalities(changed(POLICY, distribution_seconds=1.0, lease_seconds=1.0, standbys=0))
    assert [one.rule for one in broken if not one.holds] == [1, 3, 6]


@pytest.mark.parametrize(
    ("leeway", "skew", "holds"), [(60, 2, True), (70, 60, True), (60, 51, False), (10, 0.5, False)]
)
def test_a_leeway_is_long_enough_for_the_clocks_or_named_with_both_numbers(
    leeway: float, skew: float, *, holds: bool
) -> None:
    """Whoever allows clocks to be further off has to keep revocations for longer (tests/revocation/test_forgetting)."""
    found = leeway_lasts(leeway_seconds=leeway, skew_seconds=skew)
    assert found.holds is holds
    assert f"leeway {leeway:g} s" in found.stated
    assert f"request 10 s + skew {skew:g} s" in found.stated
    assert "revocation.leeway" in found.mend


def test_the_jwks_is_cached_no_longer_than_agreed() -> None:
    """Rule 4: a pulling verifier must see the next key before it signs."""
    assert jwks_max_age(POLICY) == 3
    assert jwks_max_age(changed(POLICY, cache_seconds=0.0)) == 0
