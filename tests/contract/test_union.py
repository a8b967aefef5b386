"""Two branches of the keys lane and what they know together: histories made at random, and what must hold of each."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.contract.errors import BrokenChain
from keyturn.contract.keys import (
    Activated,
    KeyChange,
    KeySet,
    Phase,
    Published,
    Removed,
    Retired,
    Revoked,
    RotationRequested,
    Use,
)
from keyturn.contract.union import lacks, united
from tests.reaching import reach

KIDS = "abc"
PLACE = (2, 0)


def change(kind: int, kid: str, at: float) -> KeyChange:
    """Return one step; whether the key can take it, the key set tells."""
    steps: list[KeyChange] = [
        Published(kid=kid, alg="ES256", jwk={"kid": kid}, use=Use.ACCESS, token_seconds=300),
        Activated(kid=kid, sign_until=at + 1000, verify_until=at + 2000),
        Retired(kid=kid),
        Removed(kid=kid),
        Revoked(kid=kid),
        RotationRequested(alg="ES256", use=Use.ACCESS),
    ]
    return steps[kind]


STEPS = st.lists(st.tuples(st.sampled_from([0, 0, 1, 1, 2, 3, 4, 5]), st.sampled_from(KIDS)), max_size=12)


def after(keys: KeySet, steps: list[tuple[int, str]], *, start: int) -> KeySet:
    """Return the set after those of the steps that can be taken; one key signs at a time, as the rules have it."""
    for number, (kind, kid) in enumerate(steps, start):
        at, changes = float(number), [change(kind, kid, float(number))]
        active = keys.active("ES256", Use.ACCESS)
        if kind == 1 and active is not None and active.kid != kid:
            changes.insert(0, Retired(kid=active.kid))
        try:
            keys = keys.after(changes, at=at, place=(1, number))
        except BrokenChain:
            continue
    return keys


def check_union(
    reached: Counter[str], common: list[tuple[int, str]], mine: list[tuple[int, str]], theirs: list[tuple[int, str]]
) -> None:
    """Fail if the union of two branches lacks something, and count what the branches were like."""
    shared = after(KeySet(), common, start=1)
    one, other = after(shared, mine, start=20), after(shared, theirs, start=20)
    at = 50.0
    both = united(one, other, at=at, place=PLACE)
    assert not lacks(both, one, at=at)
    assert not lacks(both, other, at=at)
    revoked = {key.kid for key in (*one, *other) if key.phase is Phase.REVOKED}
    assert {key.kid for key in both if key.phase is Phase.REVOKED} == revoked
    active = [key for key in both if key.phase is Phase.ACTIVE]
    assert len(active) <= 1, "two keys that sign at once"
    for key in both:
        limits = [known.verify_until for known in (one.get(key.kid), other.get(key.kid)) if known is not None]
        assert key.verify_until == max((limit for limit in limits if limit is not None), default=None)
        if key.phase is Phase.PUBLISHED:
            assert key.published_place == PLACE
    again = united(both, both, at=at + 1, place=(3, 0))
    assert [(key.kid, key.phase, key.published_at) for key in again] == [
        (key.kid, key.phase, key.published_at) for key in both
    ]
    reached["branched"] += lacks(one, other, at=at) and lacks(other, one, at=at)
    reached["both sign"] += sum(keys.active("ES256", Use.ACCESS) is not None for keys in (one, other)) == 2
    reached["two keys signed"] += len({key.kid for keys in (one, other) for key in keys if key.phase == "active"}) == 2
    reached["revoked on one"] += any(
        (known := keys.get(kid)) is not None and known.phase is not Phase.REVOKED
        for kid in revoked for keys in (one, other)
    )  # fmt: skip
    reached["an order is open"] += bool(both.requests)


def test_a_union_lacks_nothing_of_either_branch() -> None:
    """Whichever branch a publisher stood on, what it acknowledged stands in the epoch that follows."""
    reached: Counter[str] = Counter()

    @settings(max_examples=400, deadline=None)
    @given(STEPS, STEPS, STEPS)
    def check(common: list[tuple[int, str]], mine: list[tuple[int, str]], theirs: list[tuple[int, str]]) -> None:
        check_union(reached, common, mine, theirs)

    matters = ("branched", "both sign", "two keys signed", "revoked on one", "an order is open")
    reach(check, reached, dict.fromkeys(matters, 1))


def test_a_key_whose_time_is_over_is_not_missed() -> None:
    """Key sets forget removed keys: that alone must not make a publisher open epochs."""
    keys = after(KeySet(), [(0, "a"), (1, "a"), (2, "a")], start=1)
    assert lacks(KeySet(), keys, at=100.0)
    assert not lacks(KeySet(), keys, at=2002.0)
    revoked = after(keys, [(4, "a")], start=10)
    assert lacks(KeySet(), revoked, at=9999.0), "a tombstone is for ever"


def test_a_key_that_one_branch_never_heard_of_waits_anew() -> None:
    """Rule 1: no key signs before every verifier holds it, and those of the other branch do not."""
    shared = after(KeySet(), [(0, "a")], start=1)
    one = after(shared, [(0, "b")], start=20)
    other = after(shared, [(0, "c")], start=20)
    both = united(one, other, at=50.0, place=PLACE)
    assert {key.kid: key.published_at for key in both} == {"a": 1.0, "b": 50.0, "c": 50.0}
    ahead = united(one, shared, at=50.0, place=PLACE)
    assert {key.kid: key.published_at for key in ahead} == {"a": 1.0, "b": 20.0}, "no branch: others are only behind"


def test_an_order_for_a_named_key_stays_open_until_that_key_signs() -> None:
    """Another key that began to sign on the other branch does not answer it."""
    shared = after(KeySet(), [(0, "a"), (0, "b"), (1, "a")], start=1)
    asked = RotationRequested(alg="ES256", use=Use.ACCESS, kid="b")
    one = shared.after([asked], at=20.0, place=(1, 20))
    other = after(shared, [(0, "c"), (1, "c")], start=21)
    both = united(one, other, at=50.0, place=PLACE)
    assert [request.kid for request in both.requests] == ["b"]
    assert not lacks(both, one, at=50.0)
    signs = united(one, after(shared, [(1, "b")], start=21), at=50.0, place=PLACE)
    assert signs.requests == ()
