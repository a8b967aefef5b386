"""From a pinned root to the newest: both sign each step, none is skipped, none comes back, the way is not endless."""

from itertools import pairwise
from typing import Any

import pytest

from keyturn.contract.encoding import decode_object, encode_json, unb64url
from keyturn.contract.envelope import StatementKey, StatementType
from keyturn.contract.errors import BrokenChain, ForgedSignature, TrustError, UnknownKind
from keyturn.contract.roots import LARGEST_BUNDLE_BYTES, MOST_STEPS, Bundle, earlier_roots, sign_step, split_bundle
from keyturn.contract.trust import Trust, open_trust, sign_trust
from tests.world import World, new_statement_key

A, B, C, D = (new_statement_key() for _ in range(4))
THIEF = new_statement_key()
TEN_YEARS = 10 * 365 * 86_400.0


@pytest.fixture
def world() -> World:
    """Return an issuer whose first root is A."""
    return World(root=A)


def bundle(world: World, *steps: bytes, root: StatementKey, **changes: Any) -> bytes:
    """Return a document signed by that root, behind those steps."""
    return Bundle(steps, sign_trust(root, world.document(**({"version": 5} | changes)))).join()


def step(old: StatementKey, new: StatementKey, at: float = 1.0) -> bytes:
    """Return the line by which one root hands over to another."""
    return sign_step(old=old, new=new, at=at)


def opened(compact: bytes, pinned: StatementKey = A) -> Trust:
    """Open a bundle as a process that pins that root."""
    return open_trust(compact, root=pinned.public, allow_dev=False)


def kids(trust: Trust) -> list[str]:
    """Name the roots on the way."""
    by_x = {key.public["x"]: key.kid for key in (A, B, C, D, THIEF)}
    return [by_x[root["x"]] for root in trust.roots]


def test_every_pinned_root_on_the_way_leads_to_the_newest(world: World) -> None:
    """Who pinned the first root years ago needs no visit; who pins the newest needs no history."""
    compact = bundle(world, step(A, B), step(B, C), root=C)
    for pinned, way in ((A, [A, B, C]), (B, [B, C]), (C, [C])):
        trust = opened(compact, pinned)
        assert kids(trust) == [key.kid for key in way]
        assert trust.root == C.public
        assert trust.compact == compact
    assert kids(opened(bundle(world, root=A))) == [A.kid]
    assert opened(bundle(world, root=C), C).version == 5


def test_a_document_signed_by_the_new_root_alone_is_refused(world: World) -> None:
    """Anybody can make a new root; that the old one agrees is the whole point."""
    with pytest.raises(ForgedSignature):
        opened(bundle(world, root=B))


def test_a_document_signed_by_a_root_that_handed_over_is_refused(world: World) -> None:
    """It may have been left because it was stolen."""
    with pytest.raises(ForgedSignature):
        opened(bundle(world, step(A, B), root=A))


@pytest.mark.parametrize(
    "steps",
    [
        [step(A, B), step(C, D)],
        [step(A, B), step(A, D)],
        [step(A, B), b"garbage", step(B, D)],
        [step(B, C), step(A, B), step(C, D)],
        [step(A, B), step(C, D), step(B, C)],
    ],
    ids=["gap", "fork", "garbage between", "wrong order", "wrong order, later"],
)
def test_a_way_that_is_not_whole_is_refused(world: World, steps: list[bytes]) -> None:
    """A hole in the chain is where a thief would put a root of his own."""
    with pytest.raises(TrustError):
        opened(bundle(world, *steps, root=D))


def test_both_roots_must_sign_the_same_step(world: World) -> None:
    """The old root's word alone names a key that nobody may hold; the new one's alone is a theft."""
    good, other = step(A, B), step(A, B, at=2.0)
    by_a, by_b = good.split(b" ")
    halves = {
        "by the old one alone": by_a,
        "by the old one twice": by_a + b" " + by_a,
        "by the new one alone": by_b + b" " + by_b,
        "of another moment": by_a + b" " + other.split(b" ")[1],
        "agreed by a stranger": by_a + b" " + THIEF.sign(StatementType.ROOT, unb64url(by_a.split(b".")[1])),
    }
    for line in halves.values():
        with pytest.raises(ForgedSignature):
            opened(bundle(world, line, root=B))
    assert opened(bundle(world, good, root=B)).root == B.public


def test_a_root_cannot_sign_away_another(world: World) -> None:
    """A step from A, signed by somebody who was handed B's place, or by a role."""
    payload = decode_object(unb64url(step(A, B).split(b".")[1]))
    for signer in (THIEF, B):
        line = signer.sign(StatementType.ROOT, encode_json(payload)) + b" " + step(A, B).split(b" ")[1]
        with pytest.raises(ForgedSignature):
            opened(bundle(world, line, root=B))
    # Signed by A, but it says that it leads away from C: then it is no step of A's.
    lying = encode_json(payload | {"old": C.public})
    line = A.sign(StatementType.ROOT, lying) + b" " + B.sign(StatementType.ROOT, lying)
    with pytest.raises(BrokenChain):
        opened(bundle(world, line, root=B))


def test_a_root_does_not_come_back(world: World) -> None:
    """A circle would let the thief of an old root speak again, and a reader walk for ever."""
    with pytest.raises(BrokenChain):
        opened(bundle(world, step(A, B), step(B, A), root=A))
    with pytest.raises(BrokenChain):
        opened(bundle(world, step(A, A), root=A))


def test_a_statement_of_another_type_is_no_step(world: World) -> None:
    """A trust document that happens to have the members of a step must not be one."""
    payload = unb64url(step(A, B).split(b".")[1])
    line = b" ".join(key.sign(StatementType.TRUST, payload) for key in (A, B))
    with pytest.raises(ForgedSignature):
        opened(bundle(world, line, root=B))


def test_a_step_does_not_expire(world: World) -> None:
    """As in TUF: who comes back after years is led on; that the newest document is in force is looked at apart."""
    now = world.clock.now()
    trust = opened(bundle(world, step(A, B, at=now - TEN_YEARS), root=B))
    trust.check_time(now)


@pytest.mark.parametrize("change", [{"format": 2}, {"more": 1}, {"new": {"kty": "RSA"}}, {"new": {}}, {"at": "now"}])
def test_a_step_that_this_version_cannot_read_is_said_to_be_one(world: World, change: dict[str, Any]) -> None:
    """Then the mend is an upgrade, and not a hunt for a thief."""
    payload = encode_json(decode_object(unb64url(step(A, B).split(b".")[1])) | change)
    line = A.sign(StatementType.ROOT, payload) + b" " + B.sign(StatementType.ROOT, payload)
    with pytest.raises(UnknownKind):
        opened(bundle(world, line, root=B))


def test_the_way_is_bounded_in_steps_and_bytes(world: World) -> None:
    """What a stranger wrote into the store is not read for ever."""
    roots = [new_statement_key() for _ in range(MOST_STEPS + 2)]
    steps = [step(old, new) for old, new in pairwise(roots)]
    assert opened(bundle(world, *steps[:MOST_STEPS], root=roots[MOST_STEPS]), roots[0]).version == 5
    with pytest.raises(ForgedSignature, match="steps"):
        opened(bundle(world, *steps, root=roots[-1]), roots[0])
    with pytest.raises(ForgedSignature, match="bytes"):
        opened(b"x" * LARGEST_BUNDLE_BYTES + b"\n" + bundle(world, root=A))
    assert len(bundle(world, *steps[:MOST_STEPS], root=roots[MOST_STEPS])) < LARGEST_BUNDLE_BYTES / 10


def test_steps_before_the_pinned_root_are_passed_over_whatever_they_are(world: World) -> None:
    """They could not make it believe anything; a bundle that begins with them is still ours."""
    assert opened(bundle(world, b"garbage", step(A, B), step(B, C), root=C), B).root == C.public


def test_a_newer_document_counts_only_if_its_root_leads_on_from_the_held_one(world: World) -> None:
    """The thief of the first root can sign any version, and any way on from there, but not one through B."""
    held = opened(bundle(world, step(A, B), root=B))
    for forged in (
        opened(bundle(world, root=A, version=99)),
        opened(bundle(world, step(A, THIEF), root=THIEF, version=99)),
    ):
        assert not forged.follows(held)
    assert opened(bundle(world, step(A, B), step(B, C), root=C)).follows(held)
    assert held.follows(opened(bundle(world, root=A)))
    assert opened(bundle(world, step(B, C), root=C), B).follows(held)


def test_the_roots_before_ours_can_be_named_backwards(world: World) -> None:
    """So that a key service with the new root knows its own store from a stranger's."""
    steps = split_bundle(bundle(world, step(A, B), step(B, C), root=C)).steps
    assert list(earlier_roots(steps, C.public)) == [B.public, A.public]
    assert list(earlier_roots(steps, B.public)) == []
    assert list(earlier_roots([step(A, B), step(THIEF, C)], C.public)) == [THIEF.public]
    assert list(earlier_roots([b"garbage", step(B, C)], C.public)) == [B.public]
