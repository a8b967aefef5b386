"""Whole histories of rotation, made up by hypothesis, and what must hold after every event of each."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.contract.keys import Activated, KeyRecord, KeySet, Phase, Removed
from keyturn.contract.rotation import WORKER_TICK_SECONDS, Adoption, AtDeadline, Barrier, RotationPolicy
from tests.contract.rotating import POLICY, Happened, Worker, changed
from tests.reaching import reach

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("advance"), st.sampled_from([0.5, 3.0, 17.0, 30.0, 39.0, 57.0, 100.0, 160.0])),
        st.tuples(st.just("request"), st.none()),
        st.tuples(st.just("emergency"), st.integers(0, 9)),
        st.tuples(st.just("reports"), st.tuples(st.booleans(), st.booleans())),  # complete, all have adopted
        st.tuples(st.just("lease"), st.sampled_from([2.0, 5.0, 20.0])),
        st.tuples(st.just("token"), st.sampled_from([5.0, 30.0, 90.0])),
        st.tuples(st.just("standbys"), st.integers(1, 3)),
        st.tuples(st.just("algorithms"), st.sampled_from([("ES256",), ("ES256", "EdDSA")])),
    ),
    min_size=12,
    max_size=40,
)
POLICIES = [
    changed(POLICY, barrier=barrier, at_deadline=then, cache_seconds=0.0 if barrier is Barrier.REPORTS else 3.0)
    for barrier in Barrier
    for then in AtDeadline
]


def live(*, complete: bool, adopted: bool) -> Adoption:
    """Return two live verifiers, of which one lags unless all have adopted."""
    return Adoption({"a": (10**6, 0), "b": (10**6, 0) if adopted else (0, 0)}, complete=complete)


def play(worker: Worker, steps: list[tuple[str, Any]], reached: Counter[str]) -> None:
    """Do what the history says, ticking after each step."""
    worker.tick()
    for step, what in steps:
        match step:
            case "advance":
                worker.advance(what)
            case "request":
                worker.request()
            case "reports":
                worker.adoption = live(complete=what[0], adopted=what[1])
                worker.tick()
            case "emergency":
                records = list(worker.keys)
                key = records[what % len(records)]
                revoked = worker.emergency(key.kid)
                assert revoked is (key.phase is not Phase.REVOKED)
                assert not worker.emergency(key.kid)
                reached[f"revoked when {key.phase}"] += 1
                worker.tick()
            case member:
                name = member if member in ("standbys", "algorithms") else f"{member}_seconds"
                worker.policy = changed(worker.policy, **{name: what})
                worker.tick()
        settled(worker)


def settled(worker: Worker) -> None:
    """Check what must hold when nothing is due."""
    assert len(worker.keys.of("ES256", worker.policy.use, Phase.ACTIVE)) == 1
    for alg in worker.policy.algorithms:
        assert len(worker.standbys(alg)) >= worker.policy.standbys
    for key in worker.keys:
        assert key.alg in worker.policy.algorithms or key.phase not in (Phase.ACTIVE, Phase.PUBLISHED)


def record(keys: KeySet, kid: str) -> KeyRecord:
    """Return a key that must be there."""
    found = keys.get(kid)
    assert found is not None
    return found


def check_event(event: Happened, reached: Counter[str]) -> None:
    """Check one event against the rules, told in other words than the code's."""
    for alg in {key.alg for key in event.after}:
        active = [key for key in event.after if key.alg == alg and key.phase is Phase.ACTIVE]
        assert len(active) <= 1
        if any(key.alg == alg and key.phase is Phase.ACTIVE for key in event.before):
            dropped = alg not in event.policy.algorithms and not event.emergency
            assert len(active) == (0 if dropped else 1)  # Never a moment without a key that signs.
            reached["dropped algorithm"] += dropped
    for change in event.transition.changes:
        if isinstance(change, Activated) and not event.emergency:
            reached[activated_by(record(event.before, change.kid), event)] += 1
        if isinstance(change, Removed):
            check_removal(record(event.before, change.kid), event, reached)


def activated_by(key: KeyRecord, event: Happened) -> str:
    """Return by which part of rule 1 a key may sign; fail if by none."""
    p: RotationPolicy = event.policy
    waited = event.at >= key.published_at + p.distribution_seconds + p.cache_seconds + p.skew_seconds
    everybody = all(place >= key.published_place for place in event.adoption.live.values())
    if p.barrier is Barrier.REPORTS and event.adoption.complete and everybody:
        return "activated by reports" if not waited else "activated by reports, late"
    assert waited, "before anybody could be sure that it is known"
    if p.barrier is Barrier.TIME:
        return "activated by time"
    if not event.adoption.complete:
        return "activated by time, the set being incomplete"
    if everybody:
        return "activated by both"
    assert event.at >= key.published_at + p.publication_seconds + p.deadline_seconds
    if p.at_deadline is AtDeadline.PROCEED:
        return "activated at the deadline"
    before = event.before.active(key.alg, key.use)
    assert (
        before is None
        or before.sign_until is None
        or event.at >= before.sign_until - p.lease_seconds - WORKER_TICK_SECONDS
    )
    return "activated when nobody else could sign"


def check_removal(key: KeyRecord, event: Happened, reached: Counter[str]) -> None:
    """Check rule 2 by what was in force when the key signed."""
    if key.phase is Phase.PUBLISHED:
        reached["removed unused"] += 1
        assert key.alg not in event.policy.algorithms
        return
    assert key.phase is Phase.RETIRING
    assert key.retiring_at is not None
    assert key.sign_until is not None
    assert key.verify_until is not None
    lease_then = key.verify_until - key.sign_until - key.token_seconds - 2 * event.policy.skew_seconds
    lease = max(lease_then, event.policy.lease_seconds)
    last_signature = key.retiring_at + lease
    assert event.at >= last_signature + key.token_seconds + 2 * event.policy.skew_seconds - 1e-6
    reached["removed after its tokens"] += 1
    reached["removed under a longer lease than today's"] += lease_then > event.policy.lease_seconds + 1
    reached["removed with longer tokens than today's"] += key.token_seconds > event.policy.token_seconds


def test_no_history_breaks_a_rule_and_the_histories_reach_every_corner() -> None:
    """One key signs, always; it was waited for; it goes in time; and nothing is left behind."""
    reached: Counter[str] = Counter()

    @settings(max_examples=120 * len(POLICIES))
    @given(policy=st.sampled_from(POLICIES), steps=STEPS, complete=st.booleans(), adopted=st.booleans())
    def history(policy: RotationPolicy, steps: list[tuple[str, Any]], complete: bool, adopted: bool) -> None:
        worker = Worker(policy, Adoption({}, complete=True), now=1_000_000.0)
        worker.adoption = live(complete=complete, adopted=adopted)
        play(worker, steps, reached)
        for event in worker.log:
            check_event(event, reached)
        ended = [key.kid for key in worker.keys if key.phase is Phase.RETIRING]
        worker.advance(1000.0)
        assert all(worker.phase(kid) in (Phase.REMOVED, Phase.REVOKED) for kid in ended)  # Nothing is left behind.

    corners = (
        "revoked when active", "revoked when published", "revoked when retiring", "revoked when removed",
        "revoked when revoked", "activated by reports", "activated by time", "activated by both",
        "activated by time, the set being incomplete", "activated at the deadline",
        "activated when nobody else could sign", "removed after its tokens", "removed unused", "dropped algorithm",
        "removed under a longer lease than today's", "removed with longer tokens than today's",
    )  # fmt: skip
    reach(history, reached, dict.fromkeys(corners, 1))
