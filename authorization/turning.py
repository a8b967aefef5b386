"""What becomes of a refresh token that is presented (RFC 6749, 6; RFC 9700, 4.14.2); pure decisions."""

from enum import StrEnum

import msgspec

from keyturn.contract.encoding import b64url
from serving.families import Family, end_of, mark_of, successor_of


class Step(StrEnum):
    """What a presented token asks for."""

    TURN = "turn"
    """It is the one that is good: another takes its place."""
    AGAIN = "again"
    """It was the good one a moment ago, and its successor is told again: the answer got lost, or two asked at once."""
    REUSED = "reused"
    """It was used long ago, so two hold it: which of them is the thief cannot be told, and the grant has to end."""
    ENDED = "ended"
    """Nothing comes of this family any more."""


def step_of(
    family: Family,
    token: str,
    *,
    now: float,
    store_now: float,
    grace_seconds: float,
    life_seconds: float,
    margin_seconds: float,
) -> Step:
    """Return what a token of this family asks for.

    `now` is for what runs out, `store_now` for the grace: the store's clock said when the family turned, so that all
    replicas of the service measure by one. Set back by more than the grace, it gives none. A family gives nothing more
    `margin_seconds` before its end: what is minted then would be over at once by the signer's clock.
    """
    if family.ended or now + margin_seconds >= end_of(family, life_seconds=life_seconds):
        return Step.ENDED
    if family.is_current(token):
        return Step.ENDED if now >= family.expires_at else Step.TURN
    if family.is_previous(token) and abs(store_now - family.turned_at) <= grace_seconds and grace_seconds > 0:
        return Step.AGAIN
    return Step.REUSED


def turned(family: Family, token: str, *, salt: bytes, now: float, store_now: float, idle_seconds: float) -> Family:
    """Return the family once another token has taken the place of its good one."""
    text = b64url(salt)
    return msgspec.structs.replace(
        family,
        current=mark_of(successor_of(token, text)),
        previous=family.current,
        salt=text,
        turned_at=store_now,
        made_at=now,
        expires_at=min(now + idle_seconds, family.ends_at),
    )


def ended(family: Family) -> Family:
    """Return the family once nothing comes of it any more; what its last token was made of is forgotten."""
    return msgspec.structs.replace(family, ended=True, salt="")
