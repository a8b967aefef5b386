"""What a revocation is called in a Security Event Token."""

from typing import Any

import pytest

from keyturn.contract.events import RevocationsEvent, SignedEvent
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from revocation.streams.telling import REVOKED, SESSION_REVOKED, TOKEN_REVOKED, Page, claims_of, page_of

ISSUER, AT = "https://issuer.example", 1_800_000_000.5
ALL_KINDS = frozenset(SelectorKind)


def page(*selectors: Selector, sequence: int = 7, mark: str = "h" * 43) -> Page:
    """Return what is told of one event."""
    entries = tuple(Entry(selector=one, until=AT + 60, reason="a secret of ours") for one in selectors)
    event = RevocationsEvent(epoch=2, sequence=sequence, at=AT, trust=1, previous="p", id="id", entries=entries)
    return page_of(SignedEvent(b"", mark, event), issuer=ISSUER, kinds=ALL_KINDS)


def claims(kind: SelectorKind, value: str = "", before: float | None = None) -> dict[str, Any]:
    """Return the claims for one revocation."""
    (telling,) = page(Selector(iss=ISSUER, kind=kind, value=value, before=before)).tellings
    return claims_of(telling, audience="them")


@pytest.mark.parametrize(
    ("kind", "standard", "subject"),
    [
        (SelectorKind.JTI, TOKEN_REVOKED, {"format": "jwt_id", "iss": ISSUER, "jti": "x"}),
        (SelectorKind.SUBJECT, SESSION_REVOKED, {"format": "iss_sub", "iss": ISSUER, "sub": "x"}),
        (SelectorKind.SESSION, SESSION_REVOKED, {"format": "opaque", "id": "x"}),
        (SelectorKind.GRANT, SESSION_REVOKED, {"format": "opaque", "id": "x"}),
        (SelectorKind.CLIENT, SESSION_REVOKED,
         {"format": "complex", "application": {"format": "opaque", "id": "x"}}),
        (SelectorKind.AUDIENCE, None, None),
        (SelectorKind.ALL, None, None),
    ],
)  # fmt: skip
def test_each_selector_has_its_event_and_its_subject(
    kind: SelectorKind, standard: str | None, subject: dict[str, Any] | None
) -> None:
    """RFC 8417, 2.2; RFC 9493, 3; CAEP 1.0, 3.1: what no standard event can say is said by our own alone."""
    exact = kind in (SelectorKind.JTI, SelectorKind.SESSION, SelectorKind.GRANT)
    told = claims(kind, "" if kind is SelectorKind.ALL else "x", None if exact else AT - 60)
    assert told["events"].keys() == {REVOKED} | ({standard} if standard else set())
    assert told.get("sub_id") == subject
    assert {one["event_timestamp"] for one in told["events"].values()} == {AT if exact else AT - 60}
    assert (told["aud"], told["toe"]) == ("them", AT)
    assert not told.keys() & {"exp", "sub", "nonce"}  # RFC 8417, 2.2 and 4.6: no ID token, and it does not run out.


def test_our_own_event_says_the_selector_to_the_letter() -> None:
    """So that another Keyturn loses nothing."""
    told = claims(SelectorKind.AUDIENCE, "https://api.example", AT)["events"][REVOKED]
    assert told == {
        "selector": {"iss": ISSUER, "aud": "https://api.example", "before": AT}, "event_timestamp": AT,
    }  # fmt: skip


def test_why_something_was_revoked_is_not_told() -> None:
    """It was written for our own operators: `stolen by the new trainee` is nothing for a partner."""
    assert "a secret of ours" not in str(claims(SelectorKind.SUBJECT, "x", AT))


def test_the_same_revocation_has_the_same_jti_and_no_other_has_it() -> None:
    """RFC 8417, 2.2: by it a receiver knows what it has seen before."""
    one, two = (Selector(iss=ISSUER, kind=SelectorKind.JTI, value=value) for value in ("a", "b"))
    names = [telling.jti for telling in page(one, two).tellings]
    assert names == [telling.jti for telling in page(one, two).tellings]
    others = [page(one, sequence=8).tellings[0].jti, page(one, mark="i" * 43).tellings[0].jti]
    assert len({*names, *others}) == 4


def test_what_another_issuer_revoked_and_what_is_not_asked_for_is_left_out() -> None:
    """The numbers of those beside it stay what they are, whatever a receiver asks for."""
    foreign = Selector(iss="https://other.example", kind=SelectorKind.JTI, value="a")
    ours = Selector(iss=ISSUER, kind=SelectorKind.JTI, value="a")
    assert [telling.nth for telling in page(foreign, ours).tellings] == [1]
