"""How long a revocation is kept: a token must never outlive the memory of its revocation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.contract.keys import KeyRecord, Use
from keyturn.contract.revocations import bucket_of
from keyturn.contract.selectors import SelectorKind
from revocation.keeping import Keeping

NOW = 1_800_000_000.0
GRANT_SECONDS = 90_000.0
KEEPING = Keeping(longest_token_seconds=300, grant_seconds=GRANT_SECONDS, skew_seconds=2, leeway_seconds=60)


def key(token_seconds: float) -> KeyRecord:
    """Return a key whose tokens live so long."""
    return KeyRecord(
        kid="k", alg="ES256", jwk={}, use=Use.ACCESS, token_seconds=token_seconds, published_at=0,
        published_place=(1, 1),
    )  # fmt: skip


@given(exp=st.floats(0, 1e11), skew=st.floats(0, 60), leeway=st.floats(10, 86_400))
def test_a_tokens_revocation_outlives_the_token_at_every_clock(exp: float, skew: float, leeway: float) -> None:
    """Checklist 9, RFC 7009, 2: the remaining life, the skew of both clocks, and what a request takes."""
    keeping = Keeping(longest_token_seconds=300, grant_seconds=600, skew_seconds=skew, leeway_seconds=leeway)
    assert keeping.of_token({"exp": exp}, [], NOW) >= exp + 2 * skew + 10


def test_a_selector_is_kept_for_the_longest_token_that_any_key_ever_allowed() -> None:
    """A shorter setting today must not forget the tokens that a key of yesterday signed."""
    one = SelectorKind.JTI
    assert KEEPING.of_selector(one, [key(120), key(86_400)], NOW) == NOW + 86_400 + 4 + 60
    assert KEEPING.of_selector(one, [key(120)], NOW) == NOW + 300 + 4 + 60


@pytest.mark.parametrize("kind", [kind for kind in SelectorKind if kind is not SelectorKind.JTI])
def test_what_names_a_grant_is_kept_for_as_long_as_tokens_can_come_of_it(kind: SelectorKind) -> None:
    """Checklist, revocation (10): a refresh token of long ago must not outlive the memory of its user's cutoff."""
    for token_seconds, lasting in ((120, GRANT_SECONDS), (100_000, 100_000)):
        needed = NOW + lasting + 4 + 60
        assert needed <= KEEPING.of_selector(kind, [key(token_seconds)], NOW) <= needed + lasting / 64


@pytest.mark.parametrize("days", [1, 30, 366])
def test_long_lives_do_not_make_thousands_of_buckets(days: int) -> None:
    """A snapshot names at most 16,384 chunks, and a look-up walks the buckets: 30 days of five minutes are 8,640."""
    life = days * 86_400.0
    keeping = Keeping(longest_token_seconds=300, grant_seconds=life, skew_seconds=2, leeway_seconds=60)
    moments = (NOW + life * part / 20_000 for part in range(20_000))
    assert len({bucket_of(keeping.of_selector(SelectorKind.SUBJECT, [], now)) for now in moments}) <= 66


def test_a_token_without_a_readable_expiry_is_kept_as_long_as_a_selector() -> None:
    """What cannot be known is not guessed short."""
    for exp in (None, "soon", True):
        assert KEEPING.of_token({"exp": exp}, [], NOW) == KEEPING.of_selector(SelectorKind.JTI, [], NOW)
