"""A grant: what was allowed to a client once, and for how long; every token that comes of it names it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from keyturn.contract.tokens import audiences


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A grant as it was made; what is asked for later narrows a token, never the grant (RFC 6749, 6)."""

    grant_id: str
    """A UUIDv7: the moment of sign-in, which cutoffs compare (`minting.new_grant_id`)."""
    sid: str
    """The user's session; empty where there is none."""
    subject: str
    client_id: str
    scopes: tuple[str, ...]
    audiences: tuple[str, ...]
    ends_at: float
    """Unix seconds: no token of this grant is good for longer."""
    auth_time: int | None = None
    """Unix seconds: when the user proved who they are, which may be long before (RFC 9068, 2.2.1); None if unknown."""

    def claims(self, issuer: str) -> dict[str, Any]:
        """Return what the claims of every token of this grant begin with, and what revocations could call it by."""
        return (
            party_claims(
                issuer, subject=self.subject, client_id=self.client_id, audiences=self.audiences, scopes=self.scopes
            )
            | self.own_claims()
        )

    def own_claims(self) -> dict[str, Any]:
        """Return the claims by which a token names this grant, and the user's session if it is known."""
        session: dict[str, Any] = {"sid": self.sid} if self.sid else {}
        proved = {} if self.auth_time is None else {"auth_time": self.auth_time}
        return {"grant_id": self.grant_id, **session, **proved}

    @classmethod
    def of(cls, claims: Mapping[str, Any], *, ends_at: float) -> Self:
        """Return the grant that `claims` were made of."""
        return cls(
            grant_id=claims["grant_id"], sid=claims.get("sid", ""), subject=claims["sub"],
            client_id=claims["client_id"], scopes=tuple(claims.get("scope", "").split()),
            audiences=audiences(claims), ends_at=ends_at, auth_time=claims.get("auth_time"),
        )  # fmt: skip


def party_claims(
    issuer: str, *, subject: str, client_id: str, audiences: tuple[str, ...], scopes: tuple[str, ...]
) -> dict[str, Any]:
    """Return who a token is from, about and for, and its scope, as RFC 9068, 2.2 names them."""
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": subject,
        "client_id": client_id,
        "aud": audiences[0] if len(audiences) == 1 else list(audiences),
    }
    if scopes:
        claims["scope"] = " ".join(scopes)
    return claims
