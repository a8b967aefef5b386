"""What a replica believes: what is signed by the lane's role and extends what it holds, nothing else."""

from typing import Any

import pytest

from keyturn.contract import keys as k
from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementType
from keyturn.contract.errors import BrokenChain, ForgedSignature, TrustError, UnknownKind
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from keyturn.verifier.freshness import State
from keyturn.verifier.replica import Admission
from tests.verifier.bench import KEYS, REVOCATIONS, Bench
from tests.world import ISSUER, new_statement_key


def test_an_event_that_extends_the_chain_is_applied_once(bench: Bench) -> None:
    """The stream brings again what the doorbell has brought already."""
    event = bench.revocation()
    assert bench.admit(REVOCATIONS, event.compact) is Admission.APPLIED
    assert bench.replica.position(REVOCATIONS) == event.position
    assert bench.revoked()
    generation = bench.replica.generation
    assert bench.admit(REVOCATIONS, event.compact) is Admission.HELD
    assert bench.replica.generation == generation


def test_what_was_signed_here_is_taken_as_it_is_and_nothing_else(bench: Bench) -> None:
    """RFC 8725, 3.3: a publisher that knows its own event by its bytes must not believe others that resemble it."""
    stranger = bench.signed(REVOCATIONS, [bench.world.entry(SelectorKind.JTI, "x")], by=new_statement_key())
    event = bench.revocation()
    bench.replica.vouch(event)
    other = b"A" if event.compact[-9:-8] != b"A" else b"B"
    for forged in (event.compact[:-9] + other + event.compact[-8:], event.compact[:-1], stranger.compact):
        with pytest.raises(ForgedSignature):
            bench.admit(REVOCATIONS, forged)
    with pytest.raises(TrustError):
        bench.admit(KEYS, event.compact)
    assert bench.admit(REVOCATIONS, event.compact) is Admission.APPLIED
    assert bench.revoked()


def test_what_was_signed_here_is_refused_once_the_root_has_taken_the_role(bench: Bench) -> None:
    """A stolen role key may have signed at this very machine: from the newer document on only its word counts."""
    event = bench.revocation()
    bench.replica.vouch(event)
    roles = {lane.value: (bench.world.roles[KEYS].public,) for lane in Lane}
    assert bench.replica.adopt_trust(bench.world.trust(version=2, roles=roles))
    with pytest.raises(ForgedSignature):
        bench.admit(REVOCATIONS, event.compact)
    assert not bench.revoked()


@pytest.mark.parametrize("lane", Lane)
def test_what_the_lanes_role_did_not_sign_is_refused(bench: Bench, lane: Lane) -> None:
    """A stranger's key, the root's, the other lane's, and a good event with one byte changed."""
    content = [bench.world.new_key("EdDSA")] if lane is KEYS else [bench.world.entry(SelectorKind.JTI, "x")]
    (other,) = set(Lane) - {lane}
    good = bench.signed(lane, content).compact
    forged = [bench.signed(lane, content, by=key).compact
              for key in (new_statement_key(), bench.world.root, bench.world.roles[other])]  # fmt: skip
    forged += [
        good[:-1] + (b"A" if good[-1:] != b"A" else b"B"),
        good[:200] + b"A" + good[201:],
        good[:-3],
        b"",
        b"x.y.z",
    ]
    forged += [good + b"=", good.replace(b".", b"..", 1), good + b"\n"]
    for statement in forged:
        with pytest.raises(ForgedSignature):
            bench.admit(lane, statement)
    assert bench.replica.place(lane) == (1, 0)
    assert bench.state() is State.FRESH
    assert bench.admit(lane, good) is Admission.APPLIED


def test_a_statement_of_the_other_lane_expires_the_lane_even_by_a_key_of_both(bench: Bench) -> None:
    """One key in two roles is a mistake; an event that nobody can place must not be skipped."""
    both = bench.world.roles[KEYS]
    trust = bench.world.trust(version=2, roles={lane.value: (both.public,) for lane in Lane})
    assert bench.replica.adopt_trust(trust)
    event = bench.signed(KEYS, [bench.world.new_key("EdDSA")])
    with pytest.raises(UnknownKind):
        bench.admit(REVOCATIONS, event.compact)
    assert bench.state() is State.EXPIRED


@pytest.mark.parametrize("typ", [StatementType.REPORT, StatementType.ASSERTION, StatementType.TRUST])
def test_a_statement_of_another_type_has_no_place_in_a_lane(bench: Bench, typ: StatementType) -> None:
    """Even by the right key: what was signed for one purpose serves no other (RFC 8725, 3.11)."""
    event = bench.world.event(KEYS, bench.member, [bench.world.new_key("EdDSA")])
    with pytest.raises(TrustError):
        bench.admit(KEYS, bench.world.roles[KEYS].sign(typ, encode_json(event)))
    with pytest.raises(UnknownKind):  # An event under the type of a head.
        bench.admit(KEYS, bench.world.roles[KEYS].sign(StatementType.HEAD, encode_json(event)))


def test_a_second_event_at_a_held_place_is_a_fork(bench: Bench) -> None:
    """After a failover that lost a tail, another event may stand there: both cannot be true."""
    first, second = bench.revocation("one"), bench.revocation("two")
    bench.admit(REVOCATIONS, first.compact)
    with pytest.raises(BrokenChain):
        bench.admit(REVOCATIONS, second.compact)
    assert bench.replica.position(REVOCATIONS) == first.position
    assert not bench.revoked("two")


def test_an_event_that_follows_another_history_is_refused(bench: Bench) -> None:
    """The number fits and the hash does not."""
    with pytest.raises(BrokenChain):
        bench.admit(REVOCATIONS, bench.revocation(previous="x" * 43).compact)
    assert bench.replica.place(REVOCATIONS) == (1, 0)


def test_an_event_beyond_a_gap_is_not_applied(bench: Bench) -> None:
    """What lies between could be the revocation that matters."""
    assert bench.admit(REVOCATIONS, bench.revocation(sequence=2).compact) is Admission.BEHIND
    assert bench.admit(REVOCATIONS, bench.revocation(epoch=2).compact) is Admission.BEHIND
    assert bench.replica.place(REVOCATIONS) == (1, 0)
    assert not bench.revoked()


def test_a_step_that_no_key_can_take_changes_nothing(bench: Bench) -> None:
    """All changes of an event happen together or not at all."""
    good, generation = bench.world.new_key("EdDSA"), bench.replica.generation
    with pytest.raises(BrokenChain):
        bench.admit(KEYS, bench.signed(KEYS, [good, k.Retired(kid=good.kid)]).compact)
    assert len(bench.replica.keys) == 0
    assert bench.replica.generation == generation
    assert bench.replica.place(KEYS) == (1, 0)


@pytest.mark.parametrize(
    ("lane", "spoil"),
    [
        (KEYS, lambda event: event["changes"][0].update(kind="escrowed")),
        (KEYS, lambda event: event["changes"][0].update(extra=1)),
        (KEYS, lambda event: event["changes"][0].update(use="encryption")),
        (KEYS, lambda event: event["changes"][0].update(alg="ML-DSA-65")),
        (KEYS, lambda event: event.update(extra=1)),
        (KEYS, lambda event: event.update(format=2)),
        (KEYS, lambda event: event.update(lane="sessions")),
        (REVOCATIONS, lambda event: event["entries"][0]["selector"].update(kind="device")),
        (REVOCATIONS, lambda event: event["entries"][0]["selector"].update(extra=1)),
        (REVOCATIONS, lambda event: event["entries"][0].pop("until")),
        (REVOCATIONS, lambda event: event.pop("entries")),
    ],
    ids=[
        "change kind", "change member", "use", "algorithm", "event member", "format", "lane", "selector kind",
        "selector member", "entry without until", "no entries",
    ],
)  # fmt: skip
def test_a_signed_statement_that_cannot_be_read_expires_the_replica_for_good(
    bench: Bench, lane: Lane, spoil: Any
) -> None:
    """Skipping what a newer publisher says could hide a revocation: an old reader must stop."""
    generation = bench.replica.generation
    with pytest.raises(UnknownKind):
        bench.admit(lane, bench.raw_event(lane, spoil))
    assert bench.state() is State.EXPIRED
    assert bench.replica.generation > generation
    bench.admit(lane, bench.head(lane, at=bench.clock.now() + 1))
    assert bench.state() is State.EXPIRED


def test_an_unreadable_statement_by_a_stranger_expires_nothing(bench: Bench) -> None:
    """Else whoever can write to the store could stop every verifier with one line."""
    with pytest.raises(ForgedSignature):
        bench.admit(KEYS, new_statement_key().sign(StatementType.EVENT, b'{"lane":"keys","kind":"new"}'))
    assert bench.state() is State.FRESH


def test_one_event_may_carry_many_selectors(bench: Bench) -> None:
    """Revocations that arrive together become one event."""
    names = [f"token-{number}" for number in range(50)]
    entries = [
        Entry(selector=Selector(iss=ISSUER, kind=SelectorKind.JTI, value=name), until=bench.clock.now() + 60)
        for name in names
    ]
    bench.admit(REVOCATIONS, bench.signed(REVOCATIONS, entries).compact)
    assert all(bench.revoked(name) for name in names)
    assert not bench.revoked("token-50")


def test_that_a_receipt_waits_is_not_forgotten_with_the_next_event(bench: Bench) -> None:
    """Two events in one read: the first asks for a report, the second does not."""
    bench.admit(REVOCATIONS, bench.revocation("one", report=True).compact)
    bench.admit(REVOCATIONS, bench.revocation("two").compact)
    assert bench.replica.report_asked
