"""New epochs, old snapshots and newer trust: what a replica keeps, and what it forgets."""

from typing import Any

import pytest

from keyturn.contract import keys as k
from keyturn.contract.errors import ForgedSignature, TrustError, UnknownKind
from keyturn.contract.positions import Lane
from keyturn.contract.roots import Bundle, sign_step
from keyturn.contract.trust import open_trust, sign_trust
from keyturn.verifier.freshness import State
from keyturn.verifier.replica import Admission
from tests.verifier.bench import KEYS, REVOCATIONS, Bench
from tests.world import new_statement_key


def test_a_statement_under_newer_trust_is_obeyed_but_not_fresh_before_the_trust_is_here(bench: Bench) -> None:
    """The newer document may withdraw the very role that signs; a revocation counts at once all the same."""
    bench.clock.advance(30)
    bench.admit(KEYS, bench.head(KEYS))
    assert bench.admit(REVOCATIONS, bench.revocation(trust=2).compact) is Admission.NEEDS_TRUST
    assert bench.revoked()
    assert bench.admit(REVOCATIONS, bench.head(REVOCATIONS, trust=2)) is Admission.NEEDS_TRUST
    assert bench.state() is State.STALE
    assert bench.replica.adopt_trust(bench.world.trust(version=2))
    assert bench.admit(REVOCATIONS, bench.head(REVOCATIONS, trust=2)) is Admission.APPLIED
    assert bench.state() is State.FRESH


def test_a_higher_epoch_keeps_our_own_revocations_and_tombstones(bench: Bench) -> None:
    """The epoch was opened because a tail was lost: the lost events may be the ones that we hold."""
    first, second = bench.world.new_key("EdDSA"), bench.world.new_key("EdDSA")
    bench.admit(KEYS, bench.signed(KEYS, [first, second]).compact)
    records = tuple(bench.replica.keys)
    bench.admit(KEYS, bench.signed(KEYS, [k.Revoked(kid=first.kid)]).compact)
    bench.admit(REVOCATIONS, bench.revocation("ours").compact)
    union = bench.world.genesis(REVOCATIONS, epoch=2, hash_key=b"another key, of the new epoch")
    assert bench.admit(REVOCATIONS, union.compact) is Admission.APPLIED
    assert bench.admit(KEYS, bench.world.genesis(KEYS, epoch=2, keys=records).compact) is Admission.APPLIED
    assert bench.revoked("ours")
    assert {key.kid: key.phase for key in bench.replica.keys} == {first.kid: "revoked", second.kid: "published"}
    bench.admit(REVOCATIONS, bench.revocation("new").compact)
    assert bench.revoked("ours")
    assert bench.revoked("new")
    bench.admit(KEYS, bench.world.genesis(KEYS, epoch=3).compact)
    assert [key.kid for key in bench.replica.keys] == [first.kid]  # Even if the snapshot never heard of it.


@pytest.mark.parametrize("place", [{"epoch": 2}, {"sequence": 9, "hash": "h" * 43}])
def test_a_snapshot_under_the_same_hash_key_takes_nothing_back(bench: Bench, place: dict[str, Any]) -> None:
    """A fork's snapshot, or a new epoch that kept its hash key, may lack what we know."""
    bench.admit(REVOCATIONS, bench.revocation("ours").compact)
    assert bench.admit(REVOCATIONS, bench.world.genesis(REVOCATIONS, **place).compact) is Admission.APPLIED
    assert bench.revoked("ours")
    assert len(bench.replica.indexes) == 1


def test_what_an_epoch_left_behind_goes_when_it_has_run_out(bench: Bench) -> None:
    """Memory must not grow with each recovery."""
    bench.admit(REVOCATIONS, bench.revocation("ours").compact)
    for epoch in (2, 3, 4):
        snapshot = bench.world.genesis(REVOCATIONS, epoch=epoch, hash_key=bytes([epoch]) * 16)
        bench.admit(REVOCATIONS, snapshot.compact)
    assert bench.revoked("ours")
    assert len(bench.replica.indexes) == 2
    bench.clock.advance(4000)
    assert bench.revoked("ours")
    bench.admit(REVOCATIONS, bench.world.genesis(REVOCATIONS, epoch=5, hash_key=bytes([5]) * 16).compact)
    assert len(bench.replica.indexes) == 1


def test_an_older_snapshot_changes_nothing(bench: Bench) -> None:
    """Who controls the store can always offer yesterday's."""
    old = bench.world.genesis(REVOCATIONS)
    bench.admit(REVOCATIONS, bench.revocation().compact)
    held, generation = bench.replica.position(REVOCATIONS), bench.replica.generation
    for snapshot in (old, bench.world.genesis(REVOCATIONS, sequence=1, hash="h" * 43)):
        assert bench.admit(REVOCATIONS, snapshot.compact) is Admission.HELD
    assert bench.replica.position(REVOCATIONS) == held
    assert (bench.replica.generation, bench.revoked()) == (generation, True)


def test_a_raised_lowest_epoch_drops_all_that_a_stolen_role_key_said(bench: Bench) -> None:
    """The thief has published a key and revoked everybody's tokens; neither may outlive the root's answer."""
    bench.admit(KEYS, bench.signed(KEYS, bench.world.first_key("EdDSA")).compact)
    bench.admit(KEYS, bench.signed(KEYS, [k.Revoked(kid=bench.world.signing_kid)]).compact)
    bench.admit(REVOCATIONS, bench.revocation("forged").compact)
    trust = bench.world.trust(version=2, lowest_epoch={"keys": 2, "revocations": 2})
    assert bench.replica.adopt_trust(trust)
    assert bench.state() is State.EXPIRED
    assert (len(bench.replica.keys), bench.replica.verification, bench.revoked("forged")) == (0, {}, False)
    for lane in Lane:
        with pytest.raises(TrustError, match="dropped"):
            bench.admit(lane, bench.world.genesis(lane, at=bench.clock.now() + 1).compact)
        snapshot = bench.world.genesis(lane, epoch=2, trust=2)
        assert bench.admit(lane, snapshot.compact) is Admission.APPLIED
    assert bench.state() is State.FRESH
    assert (len(bench.replica.keys), bench.revoked("forged")) == (0, False)


def test_a_thief_cannot_open_an_epoch_that_the_root_does_not_reach(bench: Bench) -> None:
    """With the role's key he opens the millionth; the root's answer, epoch 2, must count all the same."""
    bench.admit(KEYS, bench.world.genesis(KEYS, epoch=1_000_000).compact)
    bench.admit(KEYS, bench.signed(KEYS, bench.world.first_key("EdDSA")).compact)
    assert bench.replica.adopt_trust(bench.world.trust(version=2, lowest_epoch={"keys": 2, "revocations": 1}))
    assert (bench.replica.position(KEYS), len(bench.replica.keys)) == (None, 0)
    assert bench.admit(KEYS, bench.world.genesis(KEYS, epoch=2, trust=2).compact) is Admission.APPLIED
    assert bench.replica.adopt_trust(bench.world.trust(version=3, lowest_epoch={"keys": 2, "revocations": 1}))
    assert bench.replica.place(KEYS) == (2, 0)  # Raised once, dropped once.


def test_an_order_of_a_dropped_epoch_is_not_taken_for_carried_out(bench: Bench) -> None:
    """Whoever repeats it with the same id must not hear that it is done."""
    event = bench.revocation("ours")
    bench.admit(REVOCATIONS, event.compact)
    assert bench.replica.knows(REVOCATIONS, event.event.id)
    bench.replica.adopt_trust(bench.world.trust(version=2, lowest_epoch={"keys": 1, "revocations": 2}))
    assert not bench.replica.knows(REVOCATIONS, event.event.id)


def test_a_root_that_was_left_does_not_come_back(bench: Bench) -> None:
    """A newer version by the old root, however it was opened, is the work of whoever has stolen that root."""
    old, new = bench.world.root, new_statement_key()
    step = sign_step(old=old, new=new, at=bench.clock.now())
    bundle = Bundle([step], sign_trust(new, bench.world.document(version=2))).join()
    assert bench.replica.adopt_trust(open_trust(bundle, root=old.public, allow_dev=False))
    forged = bench.world.trust(version=99)
    with pytest.raises(TrustError, match="left for another"):
        bench.replica.adopt_trust(forged)
    assert bench.replica.trust.version == 2


def test_one_lanes_lowest_epoch_leaves_the_other_alone(bench: Bench) -> None:
    """Only the stolen role's words are in doubt."""
    bench.admit(REVOCATIONS, bench.revocation("ours").compact)
    bench.replica.adopt_trust(bench.world.trust(version=2, lowest_epoch={"keys": 2, "revocations": 1}))
    assert bench.replica.position(KEYS) is None
    assert bench.replica.place(REVOCATIONS) == (1, 1)
    assert bench.revoked("ours")


def test_a_dropped_epoch_takes_its_unreadable_statement_along(bench: Bench) -> None:
    """A thief who signs nonsense expires every verifier; the root's answer must bring them back without a restart."""
    with pytest.raises(UnknownKind):
        bench.admit(KEYS, bench.raw_event(KEYS, lambda event: event.update(format=9)))
    bench.replica.adopt_trust(bench.world.trust(version=2, lowest_epoch={"keys": 2, "revocations": 1}))
    bench.admit(KEYS, bench.world.genesis(KEYS, epoch=2, trust=2).compact)
    assert bench.state() is State.FRESH


def test_trust_never_goes_back_and_never_changes_under_one_version(bench: Bench) -> None:
    """An old document names roles that were withdrawn since."""
    second = bench.world.trust(version=2)
    assert bench.replica.adopt_trust(second)
    for other in (bench.world.trust(), bench.world.trust(version=2, roles={})):
        assert not bench.replica.adopt_trust(other)
        assert bench.replica.trust is second


def test_trust_of_another_issuer_is_refused(bench: Bench) -> None:
    """One root may vouch for several issuers; each replica has one."""
    with pytest.raises(TrustError, match="for issuer"):
        bench.replica.adopt_trust(bench.world.trust(version=2, issuer="https://other.example"))
    assert bench.replica.trust.version == 1


def test_an_expired_trust_document_expires_the_replica(bench: Bench) -> None:
    """Documents expire, so that nobody can be held on an old one for ever."""
    bench.replica.adopt_trust(bench.world.trust(version=2, expires_at=bench.clock.now() + 3))
    bench.clock.advance(2.9)
    assert bench.state() is State.FRESH
    bench.clock.advance(0.1)
    assert bench.state() is State.EXPIRED


def test_a_withdrawn_role_signs_nothing_any_more(bench: Bench) -> None:
    """The next document names another key for the role."""
    before = bench.revocation()
    bench.replica.adopt_trust(bench.world.trust(version=2, roles={"keys": (), "revocations": ()}))
    with pytest.raises(ForgedSignature):
        bench.admit(REVOCATIONS, before.compact)
