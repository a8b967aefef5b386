"""Which form an answer takes: RFC 9110, 12.5.1, on the fields that clients really send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from introspection.negotiating import MOST_RANGES, Rendering, negotiate

JSON, SIGNED, PHANTOM = Rendering.JSON, Rendering.SIGNED, Rendering.PHANTOM


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ([], JSON),
        ([""], JSON),
        (["*/*"], JSON),
        (["application/*"], JSON),
        (["application/json"], JSON),
        (["application/json; charset=utf-8"], JSON),
        (["Application/JSON"], JSON),
        (["application/json, text/plain, */*"], JSON),
        (["application/token-introspection+jwt"], SIGNED),
        (["application/token-introspection+jwt, application/json"], SIGNED),
        (["application/json", "application/token-introspection+jwt"], SIGNED),
        (["application/token-introspection+jwt;q=0.5, application/json"], JSON),
        (["application/token-introspection+jwt;q=0.5, application/json;q=0.4"], SIGNED),
        (["application/jwt"], PHANTOM),
        (["application/jwt, */*"], PHANTOM),
        (["application/jwt;q=0.8, application/json;q=0.2"], PHANTOM),
        (["application/jwt ; q=0.8,*/* ;Q=0.9"], JSON),
        (["application/*, application/json;q=0"], PHANTOM),
        (["*/*;q=0.1, application/json;q=0, application/jwt;q=0"], SIGNED),
        (["application/jwt;q=0, application/json;q=0.001"], JSON),
        (["application/jwt;q=2, application/json"], JSON),  # No weight that there is: passed over.
        (["application/jwt;q=0.1234"], JSON),
        (["application/jwt;q=0;q=1, application/json"], JSON),  # Two weights are none.
        (["application/jwt;Q=0, */*;q=0.1"], JSON),
        (["application/jwt;q=1.5, application/json"], JSON),
        (["application/*;q=0.9, */*;q=0.1, application/json;q=0.2, application/jwt;q=0.3"], SIGNED),
        (["application/*;q=0, */*"], None),
        (["application/jwt;q=0.1, application/jwt;q=0.9, application/json;q=0.5"], PHANTOM),
        (["text/html"] * (MOST_RANGES - 1) + ["application/jwt"], PHANTOM),
        (["text/html"] * MOST_RANGES + ["application/jwt"], None),
        (["nonsense"], JSON),
        (["text/html"], None),
        (["text/*"], None),
        (["application/json;q=0"], None),
        (["*/*;q=0"], None),
        (["application/jwt;q=0.0, text/html"], None),
    ],
)
def test_the_form_is_what_the_caller_likes_best(accept: list[str], chosen: Rendering | None) -> None:
    """RFC 9110, 12.5.1: weights first, the most precise range of each type counts; 12.4.2: what a weight is."""
    assert negotiate(accept) is chosen


def test_a_batch_has_one_form() -> None:
    """Where only JSON is made, what does not take it gets nothing."""
    assert negotiate(["*/*"], among=[JSON]) is JSON
    assert negotiate([], among=[JSON]) is JSON
    assert negotiate(["application/jwt"], among=[JSON]) is None


@given(st.lists(st.text(max_size=60), max_size=3))
def test_no_field_breaks_it(accept: list[str]) -> None:
    """Whatever a client writes there, there is an answer."""
    assert negotiate(accept) in {None, *Rendering}


@given(st.permutations(["application/jwt;q=0.5", "application/json;q=0.4", "*/*;q=0.1", "text/html"]))
def test_the_order_of_ranges_says_nothing(ranges: list[str]) -> None:
    """RFC 9110, 12.5.1: the weight orders them, not their place; nor how many fields they are spread over."""
    assert negotiate(ranges) is negotiate([", ".join(ranges)]) is PHANTOM
