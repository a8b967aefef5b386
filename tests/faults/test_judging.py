"""The recorder's judgement: planted wrong histories are found, and right ones are not blamed."""

import jwt
import pytest

from keyturn import entropy
from keyturn.contract.encoding import b64url
from tests.faults.judging import Verdict, back_to_fresh, judge
from tests.faults.recorder import Answer, Held, Order, Recorder, Rotation, Seen

BOUND_SECONDS = 3.0
_KEY = entropy.new_key("ES256")


def held(kid: str = "first", *, asked_at: float = 0.0, order: Order | None = None) -> Held:
    """Return a token by a key of that name."""
    text = jwt.encode({"jti": b64url(entropy.token_bytes(6))}, _KEY, algorithm="ES256", headers={"kid": kid})
    return Held(text, asked_at, asked_at + 0.1, order)


def answered(token: Held, at: float, status: int = 200, state: str = "fresh") -> Answer:
    """Return an answer that took 0.1 s."""
    return Answer(token, "sidecar-1", at, at + 0.1, status, state if status == 200 else "")


def states(*told: tuple[float, str]) -> list[Seen]:
    """Return what a sidecar said of itself, each within 0.01 s."""
    return [Seen("sidecar-1", at, at + 0.01, state) for at, state in told]


def judged(*answers: Answer, said: list[Seen] | None = None, **members: object) -> Verdict:
    """Judge a history that consists of these answers."""
    tokens = [answer.held for answer in answers]
    recorder = Recorder(tokens=tokens, answers=list(answers), states=said or [], **members)  # type: ignore[arg-type]
    return judge(recorder, bound_seconds=BOUND_SECONDS)


@pytest.mark.parametrize("state", ["fresh", "stale"])
def test_a_pass_after_the_receipt_of_all_verifiers_is_false_in_whatever_state(state: str) -> None:
    """The receipt says that every live verifier obeys: from then on there is no excuse."""
    token = held(order=Order(10.0, acknowledged_at=10.2, adopted_at=10.5))
    wrong = answered(token, 10.6, state=state)
    assert judged(wrong).false_accepts == [wrong]
    assert judged(answered(token, 10.4, state=state)).false_accepts == []
    assert judged(answered(token, 10.6, 401)).false_accepts == []


def test_a_pass_as_fresh_is_false_once_the_acknowledgement_is_older_than_fresh_may_look_back() -> None:
    """A fresh replica has heard a head within the bound, and that head's position holds the revocation."""
    token = held(order=Order(10.0, acknowledged_at=10.2))
    wrong = answered(token, 13.3)
    assert judged(wrong).false_accepts == [wrong]
    assert judged(answered(token, 13.1)).false_accepts == []
    assert judged(answered(token, 13.3, state="stale")).false_accepts == []


def test_a_pass_that_breaks_both_promises_counts_once() -> None:
    """A table of counts must not tell of two where there was one."""
    wrong = answered(held(order=Order(10.0, acknowledged_at=10.2, adopted_at=10.5)), 14.0)
    assert judged(wrong).false_accepts == [wrong]


def test_a_revocation_of_which_nobody_heard_promises_nothing() -> None:
    """503 says that the outcome is unknown: both answers are right, however late."""
    token = held(order=Order(10.0))
    verdict = judged(answered(token, 99.0), answered(token, 99.2, 401))
    assert (verdict.false_accepts, verdict.rejected) == ([], [])


def test_a_key_that_was_revoked_takes_its_tokens_along() -> None:
    """A stolen key is the emergency: its tokens count as revoked one by one would."""
    token, other = held("stolen"), held("good")
    order = Order(10.0, acknowledged_at=10.2, adopted_at=10.5)
    wrong = answered(token, 11.0)
    verdict = judged(wrong, answered(other, 11.0), answered(token, 11.0, 401), keys={"stolen": order})
    assert (verdict.false_accepts, verdict.rejected) == ([wrong], [])


@pytest.mark.parametrize("status", [401, 403, 503])
def test_a_refusal_of_a_live_token_is_false_while_the_replica_says_fresh(status: int) -> None:
    """Also a 503: somebody's user was turned away, and nothing was the matter."""
    wrong = answered(held(), 10.0, status)
    verdict = judged(wrong, said=states((9.9, "fresh"), (10.2, "fresh")))
    assert (verdict.rejected, verdict.rejected_though_fresh) == ([wrong], [wrong])


def test_a_refusal_counts_as_fresh_where_nothing_is_known_of_the_state() -> None:
    """Who forgets to look at the states must not get a clean table."""
    wrong = answered(held(), 10.0, 503)
    assert judged(wrong).rejected_though_fresh == [wrong]


@pytest.mark.parametrize(
    "said", [[(9.9, "expired"), (10.2, "fresh")], [(9.9, "fresh"), (10.05, "expired"), (10.3, "fresh")]]
)
def test_a_refusal_by_a_replica_that_says_what_it_is_is_no_false_one(said: list[tuple[float, str]]) -> None:
    """It came back in the very moment: the word just before, or in between, is the excuse."""
    verdict = judged(answered(held(), 10.0, 503), said=states(*said))
    assert len(verdict.rejected) == 1
    assert verdict.rejected_though_fresh == []


def test_an_old_word_of_another_state_excuses_no_refusal() -> None:
    """It was stale before and will be again: at the moment of the refusal it said fresh."""
    wrong = answered(held(), 10.0, 401)
    said = states((8.0, "stale"), (9.9, "fresh"), (10.2, "fresh"), (11.0, "stale"))
    assert judged(wrong, said=said).rejected_though_fresh == [wrong]


def test_a_refusal_of_a_token_that_somebody_had_asked_to_revoke_is_right() -> None:
    """The event may be ahead of its receipt; a refusal that came before anybody asked is false all the same."""
    early = answered(held(order=Order(10.2)), 10.0, 401)
    verdict = judged(answered(held(order=Order(10.05)), 10.0, 401), early)
    assert verdict.rejected == [early]


def test_a_token_by_a_key_that_had_been_replaced_is_found() -> None:
    """A rotation's receipt says which key signs from then on; the request before it may still get the old one."""
    rotations = [Rotation(5.0, 5.5, "first"), Rotation(10.0, 10.5, "second")]
    wrong, in_between = held("first", asked_at=10.6), held("first", asked_at=10.4)
    unknown = held("a rotation without a receipt", asked_at=10.6)
    tokens = [wrong, in_between, unknown, held("second", asked_at=10.6)]
    recorder = Recorder(tokens=tokens, rotations=rotations)
    assert judge(recorder, bound_seconds=BOUND_SECONDS).signed_by_old == [wrong]


def test_a_token_by_a_key_that_had_been_revoked_is_found() -> None:
    """The signer must not use a stolen key once anybody was told that it is dead."""
    wrong, before = held("stolen", asked_at=10.3), held("stolen", asked_at=10.1)
    recorder = Recorder(tokens=[wrong, before], keys={"stolen": Order(10.0, acknowledged_at=10.2)})
    assert judge(recorder, bound_seconds=BOUND_SECONDS).signed_by_old == [wrong]


def test_the_way_back_to_fresh_ends_with_the_last_word_of_another_state() -> None:
    """A replica that is fresh for a moment and stale again is not back."""
    flickering = Recorder(states=states((1.0, "stale"), (2.0, "fresh"), (3.0, "stale"), (4.0, "fresh")))
    assert back_to_fresh(flickering, 1.5) == {"sidecar-1": pytest.approx(2.51)}
    assert back_to_fresh(flickering, 3.5) == {"sidecar-1": 0.0}
    never = Recorder(states=states((1.0, "fresh"), (2.0, "expired")))
    assert back_to_fresh(never, 0.5) == {"sidecar-1": float("inf")}
