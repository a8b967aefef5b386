"""The steps of a key's life, and the ones that no key can take."""

import pytest

from keyturn.contract import keys as k
from keyturn.contract.errors import BrokenChain
from keyturn.contract.keys import REMOVED_KEPT, KeySet, Phase, Use

START = 1_000_000.0
AGAIN = {"sign_until": 1.0, "verify_until": 2.0}
IMPOSSIBLE: dict[str, list[k.KeyChange]] = {
    "activate twice": [k.Activated(kid="active", **AGAIN)],
    "retire unused": [k.Retired(kid="standby")],
    "remove active": [k.Removed(kid="active")],
    "retire twice": [k.Retired(kid="active"), k.Retired(kid="active")],
    "activate revoked": [k.Revoked(kid="standby"), k.Activated(kid="standby", **AGAIN)],
    "retire revoked": [k.Revoked(kid="active"), k.Retired(kid="active")],
    "unknown": [k.Retired(kid="no-such-kid")],
    "publish twice": [k.Published(kid="active", alg="ES256", jwk={}, use=Use.ACCESS, token_seconds=1.0)],
}


@pytest.mark.parametrize("step", IMPOSSIBLE)
def test_a_step_that_no_key_can_take_breaks_the_chain(step: str) -> None:
    """`revoked` and `removed` are ends; nothing signs twice."""
    members = {"alg": "ES256", "jwk": dict[str, str](), "use": Use.ACCESS, "token_seconds": 1.0}
    published = [k.Published(kid=kid, **members) for kid in ("active", "standby")]  # type: ignore[arg-type]
    keys = KeySet().after([*published, k.Activated(kid="active", **AGAIN)], at=START, place=(1, 1))
    before = list(keys)
    with pytest.raises(BrokenChain):
        keys.after(IMPOSSIBLE[step], at=START, place=(1, 2))
    assert list(keys) == before


def test_requests_are_kept_once_until_an_activation_answers_them() -> None:
    """Ten impatient operators get one rotation."""
    asked = k.RotationRequested(alg="ES256", use=Use.ACCESS)
    twice = KeySet().after([asked, asked], at=START, place=(1, 5)).after([asked], at=START + 1, place=(1, 6))
    assert [request.at for request in twice.requests] == [START]
    assert twice.requested("EdDSA", Use.ACCESS) is None
    assert KeySet(twice, twice.requests).requested("ES256", Use.ACCESS) is not None


def test_a_request_may_name_its_key_and_waits_for_that_one() -> None:
    """An imported key signs next although others were published before; an emergency meanwhile takes one of those."""
    published = [k.Published(kid=kid, alg="ES256", jwk={}, use=Use.ACCESS, token_seconds=1) for kid in ("a", "b", "c")]
    asked = k.RotationRequested(alg="ES256", use=Use.ACCESS, kid="c")
    keys = KeySet().after([*published, asked], at=START, place=(1, 1))
    assert keys.standby("ES256", Use.ACCESS) == keys.get("c")
    again = keys.after([k.RotationRequested(alg="ES256", use=Use.ACCESS)], at=START, place=(1, 2))
    assert again.requests == keys.requests, "an order that names no key displaces one that does"
    assert keys.after([k.Activated(kid="a", **AGAIN)], at=START, place=(1, 2)).requests == keys.requests
    for end in (k.Activated(kid="c", **AGAIN), k.Removed(kid="c"), k.Revoked(kid="c")):
        ended = keys.after([end], at=START, place=(1, 2))
        assert ended.requests == ()
        assert ended.standby("ES256", Use.ACCESS) == keys.get("a")


def test_a_key_that_only_verifies_answers_no_request() -> None:
    """An imported key passes through `active` within one event; nobody asked for that."""
    asked = k.RotationRequested(alg="ES256", use=Use.ACCESS)
    foreign = k.Published(kid="x", alg="ES256", jwk={}, use=Use.ACCESS, token_seconds=1)
    through: list[k.KeyChange] = [foreign, k.Activated(kid="x", **AGAIN), k.Retired(kid="x")]
    keys = KeySet().after([asked], at=START, place=(1, 1)).after(through, at=START, place=(1, 2))
    assert keys.requested("ES256", Use.ACCESS) is not None
    assert [key.phase for key in keys] == [Phase.RETIRING]


def test_long_removed_keys_are_forgotten_and_nothing_else_is() -> None:
    """A set that only grew would slow every reader down; tombstones, and what still verifies, stay."""
    keys, at = KeySet(), 0.0
    for number in range(REMOVED_KEPT + 10):
        kid, at = f"k{number}", at + 1
        published = k.Published(kid=kid, alg="ES256", jwk={}, use=Use.ACCESS, token_seconds=1)
        keys = keys.after([published], at=at, place=(1, number + 1))
        keys = keys.after([k.Revoked(kid=kid) if number == 0 else k.Removed(kid=kid)], at=at, place=(1, number + 1))
    phases = [key.phase for key in keys]
    assert phases.count(Phase.REMOVED) == REMOVED_KEPT
    assert phases.count(Phase.REVOKED) == 1
    assert keys.get(f"k{REMOVED_KEPT + 9}") is not None
    assert keys.get("k1") is None
