"""What a verified security event means here: which selectors end what it says has ended."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from keyturn.contract.errors import InvalidSelector, InvalidToken, MalformedInput
from keyturn.contract.issuers import ForeignIssuer
from keyturn.contract.selectors import LONGEST_VALUE, Selector, SelectorKind, parse_selector
from keyturn.contract.tokens import audiences, is_audience, moment
from revocation.receiving.subjects import Named, Subject, read_subject

MOST_EVENTS = 16  # In one token: they tell of one thing (RFC 8417, 2.2).
LOGOUT_SECONDS = 300.0  # A logout token is not older than this.
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
KEYTURN = "urn:keyturn:event-type:revoked"
_SCHEMAS = "https://schemas.openid.net/secevent"
REVOKING = frozenset({
    f"{_SCHEMAS}/caep/event-type/session-revoked",
    f"{_SCHEMAS}/risc/event-type/sessions-revoked",
    f"{_SCHEMAS}/risc/event-type/account-disabled",
    f"{_SCHEMAS}/risc/event-type/account-purged",
    f"{_SCHEMAS}/oauth/event-type/token-revoked",
    f"{_SCHEMAS}/oauth/event-type/tokens-revoked",
})  # fmt: skip
_EXACT = frozenset({SelectorKind.JTI, SelectorKind.GRANT, SelectorKind.SESSION})


class EventRefused(MalformedInput):
    """A security event that is not taken; `err` is a code of RFC 8935, 2.4."""

    code = "event_refused"

    def __init__(self, err: str, description: str) -> None:
        super().__init__(description)
        self.err, self.description = err, description


class Meaning(NamedTuple):
    """What is to be revoked, and why something in the event was passed over."""

    selectors: tuple[Selector, ...]
    notes: tuple[str, ...] = ()


def read_event(claims: Mapping[str, Any], issuer: ForeignIssuer, *, now: float, skew_seconds: float) -> Meaning:
    """Return what a Security Event Token of that issuer means (RFC 8417).

    Types that end nothing or are unknown, and subjects that cannot be named here, are noted. Raises EventRefused.
    """
    events = _checked(claims, issuer, now=now, skew_seconds=skew_seconds)
    selectors: list[Selector] = []
    notes: list[str] = []
    try:
        for kind, payload in events.items():
            if kind == KEYTURN:
                selectors += _of_keyturn(payload, issuer, now=now, skew_seconds=skew_seconds, notes=notes)
            elif kind in REVOKING:
                subject = _subject_of(claims, payload, issuer)
                notes += subject.notes
                selectors += _selectors(subject, issuer, _moment(claims, payload, max(now, _of_claims(claims, "iat"))))
            else:
                notes.append("event_type")
    except MalformedInput as error:
        raise EventRefused("invalid_request", str(error)) from error
    return Meaning(tuple(dict.fromkeys(selectors)), tuple(dict.fromkeys(notes)))


def read_logout(claims: Mapping[str, Any], issuer: ForeignIssuer, *, now: float, skew_seconds: float) -> Meaning:
    """Return what a logout token of that issuer means (OpenID Connect Back-Channel Logout 1.0, 2.4 and 2.6).

    Raises EventRefused.
    """
    events = _checked(claims, issuer, now=now, skew_seconds=skew_seconds)
    if not isinstance(events.get(LOGOUT), Mapping):
        raise EventRefused("invalid_request", "not a logout token: its events lack backchannel-logout")
    if "nonce" in claims:
        raise EventRefused("invalid_request", "a logout token has no nonce")
    issued = _of_claims(claims, "iat")
    if issued < now - LOGOUT_SECONDS - skew_seconds:
        raise EventRefused("invalid_request", "issued too long ago")
    if "exp" in claims and now >= _of_claims(claims, "exp") + skew_seconds:
        raise EventRefused("invalid_request", "expired")
    named = {kind: claims[kind.value] for kind in (SelectorKind.SESSION, SelectorKind.SUBJECT) if kind.value in claims}
    if not named or not all(isinstance(one, str) and 0 < len(one) <= LONGEST_VALUE for one in named.values()):
        raise EventRefused("invalid_request", f"sid or sub is a string of 1 to {LONGEST_VALUE} characters")
    if SelectorKind.SESSION in named and issuer.sessions:
        named.pop(SelectorKind.SUBJECT, None)
    lacking = SelectorKind.SUBJECT not in named and not issuer.sessions
    subject = Subject(tuple(Named(*one) for one in named.items()), ("session_without_user",) if lacking else ())
    return Meaning(tuple(_selectors(subject, issuer, issued)), subject.notes)


def _checked(
    claims: Mapping[str, Any], issuer: ForeignIssuer, *, now: float, skew_seconds: float
) -> Mapping[str, Mapping[str, Any]]:
    """Return the events of a token that is for us; raises EventRefused."""
    if issuer.audience is None or not is_audience(claims.get("aud")) or issuer.audience not in audiences(claims):
        raise EventRefused("invalid_audience", "it is not for us")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= LONGEST_VALUE:
        raise EventRefused("invalid_request", f"jti is a string of 1 to {LONGEST_VALUE} characters")
    if _of_claims(claims, "iat") > now + skew_seconds:
        raise EventRefused("invalid_request", "issued in the future")
    events = claims.get("events")
    if not isinstance(events, dict) or not 0 < len(events) <= MOST_EVENTS:
        raise EventRefused("invalid_request", f"events is an object of 1 to {MOST_EVENTS} members")
    if not all(isinstance(payload, dict) for payload in events.values()):
        raise EventRefused("invalid_request", "each event is an object")
    return events


def _subject_of(claims: Mapping[str, Any], payload: Mapping[str, Any], issuer: ForeignIssuer) -> Subject:
    """Read `sub_id` (RFC 9493), else the event's own `subject`, as RISC and OAuth events had it before."""
    members = claims.get("sub_id", payload.get("sub_id", payload.get("subject")))
    return read_subject(members, issuer=issuer.url, carries_sid=issuer.sessions)


def _selectors(subject: Subject, issuer: ForeignIssuer, before: float) -> Iterator[Selector]:
    for kind, value in subject.named:
        yield Selector(iss=issuer.url, kind=kind, value=value, before=None if kind in _EXACT else before)


def _of_keyturn(
    payload: Mapping[str, Any], issuer: ForeignIssuer, *, now: float, skew_seconds: float, notes: list[str]
) -> Iterator[Selector]:
    """Read the selector that another Keyturn tells beside the standard event, whose clock may be ahead of ours."""
    members = payload.get("selector")
    if not isinstance(members, dict):
        raise MalformedInput("selector is an object")
    try:
        selector = parse_selector(members, issuer="", now=now, skew_seconds=skew_seconds)
    except InvalidSelector:
        notes.append("selector")
        return
    if selector.iss != issuer.url:
        notes.append("subject_of_another_issuer")
    elif selector.kind is SelectorKind.GRANT:
        notes.append("grant_of_another_issuer")
    else:
        yield selector


def _moment(claims: Mapping[str, Any], payload: Mapping[str, Any], latest: float) -> float:
    """Return when it happened: as the event says, else the token's `toe`, else its `iat`; not later than `latest`.

    That is now by our clock or by the issuer's, whichever is ahead: tokens are dated by the issuer's, and one that it
    issued a moment before the event must not outlive it.
    """
    for members, name in ((payload, "event_timestamp"), (claims, "toe"), (claims, "iat")):
        told = members.get(name)
        if isinstance(told, int | float) and not isinstance(told, bool) and told > 0:
            return min(float(told), latest)
    return latest


def _of_claims(claims: Mapping[str, Any], name: str) -> float:
    try:
        return moment(claims, name)
    except InvalidToken as error:
        raise EventRefused("invalid_request", str(error)) from error
