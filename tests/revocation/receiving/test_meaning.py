"""What security events of other issuers mean here: pure, and without a doubt never more than they say."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.contract.issuers import ForeignIssuer
from keyturn.contract.selectors import LONGEST_VALUE, Selector, SelectorKind
from revocation.receiving.meaning import (
    KEYTURN,
    LOGOUT,
    MOST_EVENTS,
    REVOKING,
    EventRefused,
    Meaning,
    read_event,
    read_logout,
)
from revocation.receiving.subjects import MOST_ALIASES
from tests.reaching import reach

URL, US, NOW = "https://login.example/", "our-client", 1_800_000_000.0
ISSUER = ForeignIssuer(name="login", url=URL, token_seconds=3600.0, audience=US)
WITH_SID = ForeignIssuer(name="login", url=URL, token_seconds=3600.0, audience=US, sessions=True)
SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
ALICE = {"format": "iss_sub", "iss": URL, "sub": "alice"}


def event(kind: str = SESSION_REVOKED, payload: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return the claims of a Security Event Token about alice."""
    claims = {"iss": URL, "aud": US, "jti": "1", "iat": NOW - 5, "sub_id": ALICE, "events": {kind: payload or {}}}
    return {name: value for name, value in (claims | changes).items() if value is not None}


def logout(**changes: Any) -> dict[str, Any]:
    """Return the claims of a logout token of alice."""
    claims = {
        "iss": URL,
        "aud": US,
        "jti": "1",
        "iat": NOW - 5,
        "exp": NOW + 60,
        "sub": "alice",
        "events": {LOGOUT: {}},
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


def read(claims: dict[str, Any], issuer: ForeignIssuer = ISSUER) -> Meaning:
    """Read an event at NOW."""
    return read_event(claims, issuer, now=NOW, skew_seconds=1.0)


def read_out(claims: dict[str, Any], issuer: ForeignIssuer = ISSUER) -> Meaning:
    """Read a logout token at NOW."""
    return read_logout(claims, issuer, now=NOW, skew_seconds=1.0)


def selector(kind: SelectorKind, value: str, before: float | None = None) -> Selector:
    """Return a selector of that issuer's tokens."""
    return Selector(iss=URL, kind=kind, value=value, before=before)


@pytest.mark.parametrize("kind", sorted(REVOKING))
def test_each_event_that_ends_something_ends_the_subject_at_its_moment(kind: str) -> None:
    """CAEP 1.0, 3.1; RISC 1.0, 2; OAuth Event Types: what was issued until then is over."""
    told = event(kind, {"event_timestamp": NOW - 60})
    assert read(told) == Meaning((selector(SelectorKind.SUBJECT, "alice", NOW - 60),))


@pytest.mark.parametrize(
    ("payload", "changes", "before"),
    [
        ({}, {}, NOW - 5),
        ({}, {"toe": NOW - 9}, NOW - 9),
        ({"event_timestamp": NOW - 2.5}, {"toe": NOW - 9}, NOW - 2.5),
        ({"event_timestamp": NOW + 3600}, {}, NOW),
        ({"event_timestamp": NOW * 1000}, {}, NOW),
        ({"event_timestamp": "yesterday"}, {"toe": True}, NOW - 5),
        ({"event_timestamp": -1}, {}, NOW - 5),
    ],
)
def test_the_moment_is_the_events_own_and_never_the_future(
    payload: dict[str, Any], changes: dict[str, Any], before: float
) -> None:
    """RFC 8417, 2.2: `toe` is when it happened; a cutoff to come would lock the user out for good."""
    assert read(event(payload=payload, **changes)).selectors == (selector(SelectorKind.SUBJECT, "alice", before),)


def test_an_issuer_whose_clock_is_ahead_has_its_newest_tokens_ended() -> None:
    """Tokens are dated by the same clock as the event: cut off at our own now, one of the last moment would live on."""
    ahead = NOW + 0.9
    (cutoff,) = read(event(payload={"event_timestamp": ahead}, iat=ahead)).selectors
    assert cutoff == selector(SelectorKind.SUBJECT, "alice", ahead)
    (cutoff,) = read_out(logout(iat=ahead)).selectors
    assert cutoff == selector(SelectorKind.SUBJECT, "alice", ahead)


S, SUB, JTI, CLIENT = SelectorKind.SESSION, SelectorKind.SUBJECT, SelectorKind.JTI, SelectorKind.CLIENT
_SID = {"format": "opaque", "id": "s-1"}


@pytest.mark.parametrize(
    ("subject", "named", "notes"),
    [
        ({"format": "jwt_id", "iss": URL, "jti": "t"}, [(JTI, "t")], ()),
        (_SID, [(S, "s-1"), (SUB, "s-1")], ("session_without_user",)),
        ({"format": "complex", "session": _SID, "user": ALICE}, [(S, "s-1"), (SUB, "alice")], ()),
        ({"format": "complex", "session": _SID}, [(S, "s-1")], ("session_without_user",)),
        ({"format": "complex", "user": ALICE, "device": _SID}, [(SUB, "alice")], ()),
        ({"format": "complex", "application": {"format": "opaque", "id": "app"}}, [(CLIENT, "app")], ()),
        ({"format": "complex", "tenant": _SID}, [], ("subject_format",)),
        ({"format": "email", "email": "alice@example.com"}, [], ("subject_format",)),
        ({"format": "aliases", "identifiers": [ALICE, {"format": "email", "email": "a@b"}]}, [(SUB, "alice")],
         ("subject_format",)),
        ({"format": "iss_sub", "iss": "https://other.example", "sub": "alice"}, [], ("subject_of_another_issuer",)),
        ({"format": "jwt_id", "iss": "https://other.example", "jti": "t"}, [], ("subject_of_another_issuer",)),
    ],
)  # fmt: skip
def test_a_subject_names_what_our_selectors_can_name(
    subject: dict[str, Any], named: list[tuple[SelectorKind, str]], notes: tuple[str, ...]
) -> None:
    """RFC 9493 and CAEP's complex subjects; nobody ends what is another issuer's."""
    meaning = read(event(sub_id=subject))
    assert [(one.kind, one.value) for one in meaning.selectors] == named
    assert meaning.notes == notes
    assert all((one.before is None) == (one.kind in (S, JTI)) for one in meaning.selectors)


def test_an_issuer_whose_tokens_carry_sid_has_only_the_session_ended() -> None:
    """The user's other sessions go on; without the claim no token could be told from another."""
    subject = {"format": "complex", "session": _SID, "user": ALICE}
    assert [one.kind for one in read(event(sub_id=subject), WITH_SID).selectors] == [S]
    assert [one.kind for one in read_out(logout(sid="s-1"), WITH_SID).selectors] == [S]
    assert [one.kind for one in read_out(logout(sid="s-1")).selectors] == [S, SUB]


def test_the_older_spelling_of_risc_is_understood() -> None:
    """Before RFC 9493 the subject stood in the event, as `subject_type`."""
    subject = {"subject_type": "iss-sub", "iss": URL, "sub": "bob"}
    kind = "https://schemas.openid.net/secevent/risc/event-type/account-disabled"
    meaning = read(event(kind, {"subject": subject}, sub_id=None))
    assert meaning.selectors == (selector(SUB, "bob", NOW - 5),)


def test_a_type_that_ends_nothing_is_noted_and_those_beside_it_count() -> None:
    """RFC 8417, 2.2: a recipient may not know all; refusing would hold up the sender's queue for ever."""
    unknown = "https://schemas.openid.net/secevent/caep/event-type/credential-change"
    assert read(event(unknown)) == Meaning((), ("event_type",))
    both = read(event(events={unknown: {}, SESSION_REVOKED: {}}))
    assert (len(both.selectors), both.notes) == (1, ("event_type",))


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"iss": URL, "aud": "api", "before": NOW - 9}, (selector(SelectorKind.AUDIENCE, "api", NOW - 9),)),
        ({"iss": URL, "before": NOW - 9}, (selector(SelectorKind.ALL, "", NOW - 9),)),
        ({"iss": URL, "aud": "api", "before": NOW + 0.9}, (selector(SelectorKind.AUDIENCE, "api", NOW + 0.9),)),
        ({"iss": "https://other.example", "sub": "alice", "before": 1.0}, ()),
        ({"iss": URL, "sub": "alice", "before": NOW + 1.1}, ()),
        ({"iss": URL, "grant_id": "g"}, ()),
        ({"sub": "alice"}, ()),
    ],
)
def test_another_keyturn_is_understood_to_the_letter(members: dict[str, Any], named: tuple[Selector, ...]) -> None:
    """What no standard event can say stands beside it; and it speaks for itself alone.

    Its cutoffs are dated by its own clock, and its `iat` is a whole second: passed over for being a moment ahead of
    ours, an audience's cutoff would be lost, since it was taken and nothing else says it.
    """
    meaning = read(event(KEYTURN, {"selector": members}))
    assert meaning.selectors == named
    assert bool(meaning.notes) == (not named)


@pytest.mark.parametrize(
    ("changes", "err"),
    [
        ({"aud": "another"}, "invalid_audience"), ({"aud": None}, "invalid_audience"),
        ({"aud": [1]}, "invalid_audience"),
        ({"jti": None}, "invalid_request"), ({"jti": ""}, "invalid_request"), ({"jti": "x" * 513}, "invalid_request"),
        ({"iat": None}, "invalid_request"), ({"iat": NOW + 60}, "invalid_request"), ({"iat": True}, "invalid_request"),
        ({"events": None}, "invalid_request"), ({"events": {}}, "invalid_request"), ({"events": []}, "invalid_request"),
        ({"events": {SESSION_REVOKED: "x"}}, "invalid_request"),
        ({"events": {str(n): {} for n in range(17)}}, "invalid_request"),
        ({"sub_id": None}, "invalid_request"), ({"sub_id": {"format": 1}}, "invalid_request"),
        ({"sub_id": {"format": "iss_sub", "iss": URL}}, "invalid_request"),
        ({"sub_id": {"format": "iss_sub", "iss": URL, "sub": "x" * 513}}, "invalid_request"),
        ({"sub_id": {"format": "aliases", "identifiers": [{"format": "complex"}]}}, "invalid_request"),
        ({"sub_id": {"format": "complex", "user": {"format": "complex"}}}, "invalid_request"),
    ],
)  # fmt: skip
def test_what_is_no_event_for_us_is_refused(changes: dict[str, Any], err: str) -> None:
    """RFC 8935, 2.4: the sender hears what is wrong, and nothing is revoked."""
    with pytest.raises(EventRefused) as refused:
        read(event(**changes))
    assert refused.value.err == err


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "another"}, {"nonce": "n"}, {"events": None}, {"events": {LOGOUT: 1}}, {"events": {"other": {}}},
        {"sub": None}, {"sub": 1}, {"sid": ""}, {"iat": NOW - 302}, {"iat": NOW + 2}, {"exp": NOW - 2}, {"exp": "x"},
        {"jti": None},
    ],
)  # fmt: skip
def test_what_is_no_logout_token_is_refused(changes: dict[str, Any]) -> None:
    """Back-Channel Logout 1.0, 2.6: an ID token, an old one or one for another client ends nobody's session."""
    with pytest.raises(EventRefused):
        read_out(logout(**changes))


@pytest.mark.parametrize("changes", [{"iat": NOW - 300.9}, {"iat": NOW + 0.9}, {"exp": NOW - 0.9}, {"exp": None}])
def test_a_logout_token_is_taken_as_long_as_clocks_may_differ(changes: dict[str, Any]) -> None:
    """Back-Channel Logout 1.0, 2.6: an OP whose clock is a moment off must not leave its user signed in here."""
    assert read_out(logout(**changes)).selectors[0].value == "alice"


def test_names_and_aliases_have_limits_and_may_reach_them() -> None:
    """Checklist, every endpoint: a signed event, too, makes no work without an end; what just fits is taken."""
    aliases = [{"format": "iss_sub", "iss": URL, "sub": str(number)} for number in range(MOST_ALIASES)]
    assert len(read(event(sub_id={"format": "aliases", "identifiers": aliases})).selectors) == MOST_ALIASES
    with pytest.raises(EventRefused):
        read(event(sub_id={"format": "aliases", "identifiers": [*aliases, ALICE]}))
    longest = "x" * LONGEST_VALUE
    assert read(event(jti=longest, sub_id=ALICE | {"sub": longest})).selectors[0].value == longest
    assert len(read(event(events={str(n): {} for n in range(MOST_EVENTS)})).notes) == 1


def test_an_issuer_without_an_audience_sends_no_events() -> None:
    """Who was never asked for events must not be able to revoke: its tokens alone were to be taken."""
    with pytest.raises(EventRefused, match="not for us"):
        read(event(aud="x"), ForeignIssuer(name="login", url=URL, token_seconds=1.0))


_TEXTS = st.sampled_from(["alice", "", "x" * 513, 7, None])
_ISSUERS = st.sampled_from([URL, "https://other.example", None])
_SIMPLE = st.fixed_dictionaries(
    {"format": st.sampled_from(["iss_sub", "jwt_id", "opaque", "email", "complex", 1])},
    optional={"iss": _ISSUERS, "sub": _TEXTS, "jti": _TEXTS, "id": _TEXTS},
)
_SUBJECTS = _SIMPLE | st.fixed_dictionaries(
    {"format": st.sampled_from(["complex", "aliases"])},
    optional={"user": _SIMPLE, "session": _SIMPLE, "identifiers": st.lists(_SIMPLE, max_size=3)},
)
_PAYLOADS = st.fixed_dictionaries(
    {}, optional={"event_timestamp": st.floats(0, 2 * NOW) | _TEXTS, "subject": _SUBJECTS}
)


def test_nothing_that_an_issuer_says_ends_what_is_not_its_own() -> None:
    """Whatever it sends, it is refused with a code, or means selectors of its own tokens, none in the future."""
    reached: Counter[str] = Counter()

    @given(_SUBJECTS, _PAYLOADS, st.sampled_from([*sorted(REVOKING)[:2], KEYTURN, "other"]), st.booleans())
    @settings(max_examples=150)
    def try_one(subject: dict[str, Any], payload: dict[str, Any], kind: str, carries: bool) -> None:
        try:
            meaning = read(event(sub_id=subject, events={kind: payload}), WITH_SID if carries else ISSUER)
        except EventRefused as error:
            reached[error.err] += 1
            return
        reached.update(one.kind.value for one in meaning.selectors)
        reached.update(meaning.notes)
        assert all(one.iss == URL and (one.before is None or one.before <= NOW) for one in meaning.selectors)

    corners = ("invalid_request", "sub", "sid", "event_type", "subject_of_another_issuer")
    reach(try_one, reached, dict.fromkeys(corners, 1))


def test_an_event_that_is_played_again_ends_nothing_newer() -> None:
    """Its moment is its own: a replay a day later must not end what the user began since then."""
    told = event(payload={"event_timestamp": NOW - 60})
    assert read_event(told, ISSUER, now=NOW + 86_400, skew_seconds=1.0) == read(told)
