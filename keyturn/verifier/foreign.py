"""Tokens of other issuers: checked by the keys that those tell, and against the same revocations as ours."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from keyturn.contract.errors import InvalidToken
from keyturn.contract.issuers import IssuerKey, check_foreign_claims, mapped_claims
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import TokenNames, foreign_names_of
from keyturn.contract.tokens import ACCESS_TOKEN_TYPES, Token
from keyturn.verifier.issuers import IssuerKeys
from keyturn.verifier.policy import Policy
from keyturn.verifier.replica import Replica
from keyturn.verifier.verdict import Verdict


class ForeignToken(msgspec.Struct, eq=False, gc=False):
    """A token of another issuer whose signature held once, and what has to be asked again."""

    issuer: IssuerKeys
    key: IssuerKey
    told: Mapping[str, Any]
    claims: Mapping[str, Any]
    expires: float
    generation: int = -1  # No replica's: what has to be asked of our own tokens is not enough for this one.
    fresh: dict[Policy, Verdict] = msgspec.field(default_factory=dict)
    stale: dict[Policy, Verdict] = msgspec.field(default_factory=dict)
    seen: tuple[int, int] = (-1, -1)
    indexes: tuple[RevocationIndex, ...] = ()
    names: tuple[TokenNames, ...] = ()

    def stands(self, replica: Replica, now: float, boottime: float) -> bool:
        """Say whether nothing has changed since `recheck`, and nothing has run out."""
        issuer = self.issuer
        seen = (replica.generation, issuer.generation)
        return self.seen == seen and now < self.expires and boottime < issuer.usable_until

    def recheck(self, replica: Replica, now: float, boottime: float) -> None:
        """Ask again all that may have changed since the signature was checked.

        Raises InvalidToken, and IssuerKeysUnavailable where the issuer's keys are too old.
        """
        if now >= self.expires:
            raise InvalidToken("expired")
        key = self.issuer.find(self.key.kid, self.key.alg, boottime)
        if key is not self.key:
            raise InvalidToken("signature", "another key has this kid now")
        if self.indexes != replica.indexes:
            self.indexes = replica.indexes
            self.names = tuple(foreign_names_of(self.told, self.claims, key=index.key) for index in replica.indexes)
        if replica.revokes(self.names):
            raise InvalidToken("revoked")
        self.seen = (replica.generation, self.issuer.generation)


class ForeignIssuers:
    """All issuers that are not ours and are known, by their `iss`."""

    def __init__(self, issuers: Sequence[IssuerKeys] = ()) -> None:
        self._by_url = {keys.issuer.url: keys for keys in issuers}
        self.types = ACCESS_TOKEN_TYPES.union(*(keys.issuer.header_types for keys in issuers))

    def __bool__(self) -> bool:
        """Say whether there is any."""
        return bool(self._by_url)

    def of(self, claims: Mapping[str, Any]) -> IssuerKeys | None:
        """Return the issuer that unverified claims name, if it is known."""
        issuer = claims.get("iss")
        return self._by_url.get(issuer) if isinstance(issuer, str) else None


def verified(parsed: Token, issuer: IssuerKeys, *, now: float, boottime: float, skew_seconds: float) -> ForeignToken:
    """Return what is known of a token that this issuer signed; revocations are still to be asked (`recheck`).

    Raises InvalidToken, and IssuerKeysUnavailable where nothing can be said.
    """
    header = parsed.header
    if header.typ not in issuer.issuer.header_types:
        raise InvalidToken("type", "not a type of its issuer's access tokens")
    key = issuer.find(header.kid, header.alg, boottime)
    if not key.algorithm.verify(parsed.signing_input, key.key, parsed.signature):
        raise InvalidToken("signature")
    claims = mapped_claims(parsed.claims, issuer.issuer)
    check_foreign_claims(claims, issuer.issuer, typ=header.typ, now=now, skew_seconds=skew_seconds)
    return ForeignToken(issuer, key, parsed.claims, claims, float(claims["exp"]) + skew_seconds)
