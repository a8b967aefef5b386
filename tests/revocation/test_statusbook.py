"""The book of status lists says of each token what a verifier says by the same revocations, whichever came first."""

from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from keyturn import entropy
from keyturn.contract.errors import MalformedInput
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from keyturn.contract.statuslists import SIZE, ListedToken
from keyturn.verifier.freshness import Freshness
from keyturn.verifier.replica import Replica
from revocation.statusbook import Listing, StatusBook

ISSUER, NOW = "https://issuer.example", 1_800_000_000.0


def token(index: int, *, granted_at: float = NOW, **changes: Any) -> ListedToken:
    """Return a token at an index."""
    members: dict[str, Any] = {
        "index": index, "exp": NOW + 300, "jti": f"jti-{index}", "grant_id": entropy.uuid7(granted_at), "sub": "alice",
        "client_id": "shop", "aud": ("https://api.example",),
    }  # fmt: skip
    return ListedToken(**(members | changes))


def entry(kind: SelectorKind, value: str = "", *, before: float | None = None, iss: str = ISSUER) -> Entry:
    """Return a revocation."""
    return Entry(selector=Selector(iss=iss, kind=kind, value=value, before=before), until=NOW + 3600)


def replica() -> Replica:
    """Return a replica that holds nothing."""
    return Replica(issuer=ISSUER, freshness=Freshness())


def join(book: StatusBook, one: Entry) -> None:
    """Revoke in the book alone."""
    for _ in book.revoke(one):
        pass


def take(book: StatusBook, name: str, tokens: list[ListedToken]) -> None:
    """Take tokens in."""
    for _ in book.take(name, tokens):
        pass


MOMENTS = [NOW + step for step in range(4)]
NAMES = st.sampled_from(["a", "b", "c"])
TOKENS = st.lists(
    st.builds(
        lambda granted_at, jti, sub, client, aud, sid: (granted_at, jti, sub, client, aud, sid),
        st.sampled_from(MOMENTS), NAMES, NAMES, NAMES, st.sets(NAMES, min_size=1), st.none() | NAMES,
    ),
    min_size=1, max_size=8,
)  # fmt: skip
EXACT = st.builds(entry, st.sampled_from([SelectorKind.JTI, SelectorKind.SESSION, SelectorKind.GRANT]), NAMES)
CUTOFFS = st.builds(
    lambda kind, name, before: entry(kind, "" if kind is SelectorKind.ALL else name, before=before),
    st.sampled_from([SelectorKind.SUBJECT, SelectorKind.CLIENT, SelectorKind.AUDIENCE, SelectorKind.ALL]), NAMES,
    st.sampled_from([moment + 0.0005 for moment in MOMENTS] + MOMENTS),
)  # fmt: skip
OTHERS = st.builds(lambda one: entry(one.selector.kind, one.selector.value, iss="https://other.example"), EXACT)


@given(TOKENS, st.lists(EXACT | CUTOFFS | OTHERS, max_size=5), st.lists(EXACT | CUTOFFS, max_size=5), st.booleans())
def test_a_bit_is_what_a_verifier_says(
    drawn: list[tuple[Any, ...]], before: list[Entry], after: list[Entry], again: bool
) -> None:
    """Whatever is revoked, by any selector, and whether it was revoked before or after the token was listed."""
    held, tokens = replica(), []
    for place, (granted_at, jti, sub, client, aud, sid) in enumerate(drawn):
        one = token(
            place * 7, granted_at=granted_at, sub=sub, client_id=client, aud=tuple(sorted(aud)), sid=sid, jti=jti
        )
        tokens.append(one)
    after = [*after, entry(SelectorKind.GRANT, tokens[0].grant_id)] if again else after
    book = StatusBook(held)
    for revocation in before:
        held.indexes[0].add(revocation)
    take(book, "list", tokens)
    for revocation in after:
        held.indexes[0].add(revocation)
        join(book, revocation)
    if again:
        take(book, "list", tokens)
    statuses = book.listings["list"].statuses
    expected = [held.revokes(held.names(one.claims(ISSUER))) for one in tokens]
    assert [statuses.is_set(one.index) for one in tokens] == expected
    assert sum(statuses.is_set(index) for index in range(64)) == sum(expected)
    event(f"revoked {min(sum(expected), 3)} of {len(tokens)}")
    event("both" if before and after else "one or none")


def test_two_tokens_at_one_index_are_both_refused_once_either_is_revoked() -> None:
    """A store that lost its lease may give a place twice: then the list errs on the safe side, whichever is named."""
    for one in (entry(SelectorKind.JTI, "first"), entry(SelectorKind.SUBJECT, "bob", before=NOW - 5)):
        book = StatusBook(replica())
        take(book, "list", [token(9, jti="first", sub="bob", granted_at=NOW - 10)])
        take(book, "list", [token(9, jti="second", sub="alice")])
        join(book, one)
        assert book.listings["list"].statuses.is_set(9)
        assert book.tokens == 2


def test_a_token_that_is_read_again_is_the_same_token() -> None:
    """After each jump of the feed all rows are read anew: the book must not grow by that."""
    book, one = StatusBook(replica()), token(5)
    for _ in range(3):
        take(book, "list", [one])
    assert book.tokens == 1


def test_an_index_that_no_list_has_is_refused() -> None:
    """It would be written into nothing, and its revocation be lost."""
    for index in (-1, SIZE):
        with pytest.raises(MalformedInput):
            take(StatusBook(replica()), "list", [token(index)])


def test_a_list_is_forgotten_with_its_last_token() -> None:
    """Section 13.1: until then it is served, and what is on it is bounded by what is alive."""
    book = StatusBook(replica())
    take(book, "one", [token(1, exp=NOW + 10), token(2, exp=NOW + 20)])
    take(book, "two", [token(1, exp=NOW + 30)])
    for moment, left in ((NOW + 19, ["one", "two"]), (NOW + 20, ["two"]), (NOW + 30, [])):
        book.forget_expired(moment)
        assert list(book.listings) == left


def test_a_list_forgets_no_bit() -> None:
    """Neither when its revocation runs out nor when it is read again."""
    held = replica()
    book = StatusBook(held)
    take(book, "list", [token(3)])
    join(book, entry(SelectorKind.JTI, "jti-3"))
    take(book, "list", [token(3)])
    assert book.listings["list"].statuses.is_set(3)
    assert not Listing(b"").statuses.is_set(3)
