"""The decisions about refresh tokens, whatever is presented in whatever order: one good token, and none twice."""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from authorization.turning import Step, ended, step_of, turned
from keyturn import entropy
from keyturn.contract.encoding import b64url
from serving.families import Family, end_of, mark_of, successor_of
from tests.clocks import START
from tests.families import new_refresh_token
from tests.reaching import reach

GRACE_SECONDS, IDLE_SECONDS, LIFE_SECONDS = 10.0, 600.0, 3600.0


def family_of(token: str, **changes: Any) -> Family:
    """Return a family that begins now."""
    made: dict[str, Any] = {
        "claims": {"grant_id": entropy.uuid7(START)}, "ends_at": START + LIFE_SECONDS, "current": mark_of(token),
        "made_at": START, "expires_at": START + IDLE_SECONDS,
    }  # fmt: skip
    return Family(**made | changes)


def step(family: Family, token: str, *, now: float = START, store_now: float = START, **changes: float) -> Step:
    """Return what a token asks for."""
    limits = {"grace_seconds": GRACE_SECONDS, "life_seconds": LIFE_SECONDS, "margin_seconds": 0.0} | changes
    return step_of(family, token, now=now, store_now=store_now, **limits)


def turn(family: Family, token: str, *, now: float = START, store_now: float = START) -> tuple[Family, str]:
    """Turn a family, and return it with the next token."""
    after = turned(family, token, salt=entropy.token_bytes(32), now=now, store_now=store_now, idle_seconds=IDLE_SECONDS)
    return after, successor_of(token, after.salt)


reached: Counter[str] = Counter()
MOVES = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 1, 2, 3]),
        st.sampled_from([0.0, 0.0, 4.0, 4.0, 11.0, 500.0, 700.0]),
        st.sampled_from([0.0, 0.0, 0.0, -900.0]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=120, deadline=None)
@given(MOVES)
def check(moves: list[tuple[int, float, float]]) -> None:
    """Present a token of some turns ago, after some time, by a store's clock that may be set back, again and again."""
    token, now, drift = new_refresh_token(), START, 0.0
    family, tokens = family_of(token), [token]
    used_up = False
    for back, seconds, set_back in moves:
        now, drift = now + seconds, drift + set_back
        shown = tokens[max(0, len(tokens) - 1 - back)]
        what = step(family, shown, now=now, store_now=now + drift)
        reached[what.value] += 1
        if used_up or now >= family.ends_at:
            assert what is Step.ENDED
        elif shown == tokens[-1]:
            assert what is (Step.TURN if now < family.expires_at else Step.ENDED)
        elif len(tokens) > 1 and shown == tokens[-2]:
            elapsed = abs(now + drift - family.turned_at)
            assert what is (Step.AGAIN if elapsed <= GRACE_SECONDS else Step.REUSED)
        else:
            assert what is Step.REUSED
        if what is Step.TURN:
            family, successor = turn(family, shown, now=now, store_now=now + drift)
            assert successor not in tokens
            assert family.ends_at == START + LIFE_SECONDS
            tokens.append(successor)
        elif what is Step.AGAIN:
            assert successor_of(shown, family.salt) == tokens[-1]
        elif what is Step.REUSED:
            family, used_up = ended(family), True


def test_whatever_is_presented_one_token_is_good_and_what_was_used_comes_back_once_at_most() -> None:
    """Checklist, refresh (2), (4) and (5), RFC 9700, 4.14.2; a property that never came to a reuse shows nothing."""
    reached.clear()
    reach(check, reached, {what.value: 6 for what in Step})


def test_a_token_of_the_family_that_nobody_was_given_ends_it() -> None:
    """Who knows the family's part held one of its tokens; what else he makes up, he is no client of ours."""
    token = new_refresh_token()
    made_up = successor_of(token, b64url(bytes(32)))
    assert step(family_of(token), made_up) is Step.REUSED


def test_without_a_grace_a_used_token_is_a_used_token() -> None:
    """`authorization.refresh_grace = 0`: not even at the same moment."""
    token = new_refresh_token()
    family, _ = turn(family_of(token), token)
    assert step(family, token, grace_seconds=0.0) is Step.REUSED
    assert step(family, token) is Step.AGAIN


def test_a_life_that_was_made_shorter_counts_for_grants_of_before_and_a_longer_one_does_not() -> None:
    """Revocations are kept for as long as settings say when they are made: no family may outlive that memory."""
    token = new_refresh_token()
    family = family_of(token)
    assert end_of(family, life_seconds=100.0) == START + 100.0
    assert end_of(family, life_seconds=1e6) == START + LIFE_SECONDS
    assert step(family, token, now=START + 99, life_seconds=100.0) is Step.TURN
    assert step(family, token, now=START + 100, life_seconds=100.0) is Step.ENDED
    assert end_of(family_of(token, claims={}), life_seconds=100.0) == START + LIFE_SECONDS
    assert step(family, token, now=START + 97.5, life_seconds=100.0, margin_seconds=3.0) is Step.ENDED


def test_a_salt_says_nothing_without_the_token_that_was_used() -> None:
    """Whoever opened a box, with the record keys in his hands, would still redeem nothing by it."""
    token = new_refresh_token()
    family, successor = turn(family_of(token), token)
    assert successor not in repr(family)
    assert successor_of(new_refresh_token(), family.salt) != successor
    assert ended(family).salt == ""
