"""What a revocation is called in a Security Event Token (RFC 8417): its subject (RFC 9493) and its events."""

from typing import Any, NamedTuple

from keyturn.contract.events import RevocationsEvent, SignedEvent
from keyturn.contract.positions import Position
from keyturn.contract.selectors import Entry, Selector, SelectorKind

SET_TYPE = "secevent+jwt"
SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"  # CAEP 1.0, 3.1.
TOKEN_REVOKED = "https://schemas.openid.net/secevent/oauth/event-type/token-revoked"  # noqa: S105 - a name
REVOKED = "urn:keyturn:event-type:revoked"  # The selector itself: what no standard event can say is said by it alone.
_HASH_SHOWN = 22  # Characters of a base64url SHA-256, 132 bits.


class Telling(NamedTuple):
    """One revocation that is to be told, by the `jti` that it has for ever."""

    jti: str
    sequence: int
    nth: int  # Among the entries of its event.
    entry: Entry
    at: float


class Page(NamedTuple):
    """One event of the feed: its position, the hash before it, and what a stream tells of it."""

    position: Position
    previous: str
    tellings: tuple[Telling, ...]


def page_of(signed: SignedEvent, *, issuer: str, kinds: frozenset[SelectorKind]) -> Page:
    """Return what a stream that tells these kinds says of an event.

    Only of our own issuer: what another provider has told us is that provider's to tell.
    """
    event, position = signed.event, signed.position
    entries = event.entries if isinstance(event, RevocationsEvent) else ()
    tellings = tuple(
        Telling(_jti(position, index), position.sequence, index, entry, event.at)
        for index, entry in enumerate(entries)
        if entry.selector.iss == issuer and entry.selector.kind in kinds
    )
    return Page(position, event.previous, tellings)


def claims_of(telling: Telling, *, audience: str) -> dict[str, Any]:
    """Return the claims of a Security Event Token; its signer adds `iss` and `iat`, and there is no `exp`.

    The reason is not told: it was written for our own operators.
    """
    selector = telling.entry.selector
    moment = _number(telling.at if selector.before is None else selector.before)
    events: dict[str, Any] = {REVOKED: {"selector": _members(selector), "event_timestamp": moment}}
    claims: dict[str, Any] = {"aud": audience, "jti": telling.jti, "toe": _number(telling.at), "events": events}
    if selector.kind is SelectorKind.JTI:
        events[TOKEN_REVOKED] = {"event_timestamp": moment}
    elif (subject := _subject(selector)) is not None:
        events[SESSION_REVOKED] = {"event_timestamp": moment}
        return claims | {"sub_id": subject}
    if selector.kind is SelectorKind.JTI:
        return claims | {"sub_id": {"format": "jwt_id", "iss": selector.iss, "jti": selector.value}}
    return claims


def _subject(selector: Selector) -> dict[str, Any] | None:
    """Return whose sessions ended, None for what has no subject identifier: an audience, or everything."""
    match selector.kind:
        case SelectorKind.SUBJECT:
            return {"format": "iss_sub", "iss": selector.iss, "sub": selector.value}
        case SelectorKind.SESSION | SelectorKind.GRANT:  # As in CAEP's own example of a session.
            return {"format": "opaque", "id": selector.value}
        case SelectorKind.CLIENT:
            return {"format": "complex", "application": {"format": "opaque", "id": selector.value}}
    return None


def _members(selector: Selector) -> dict[str, Any]:
    members: dict[str, Any] = {"iss": selector.iss}
    if selector.value:
        members[selector.kind.value] = selector.value
    if selector.before is not None:
        members["before"] = _number(selector.before)
    return members


def _jti(position: Position, index: int) -> str:
    """Return the same `jti` for the same revocation for ever, and another for one of another chain or issuer."""
    return f"{position.epoch}.{position.sequence}.{index}.{position.hash[:_HASH_SHOWN]}"


def _number(moment: float) -> float:
    return int(moment) if moment == int(moment) else moment
