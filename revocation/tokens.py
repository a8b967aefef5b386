"""Finds what a presented token is: claims that we vouch for, or nothing that needs to be revoked."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from keyturn.contract.credentials import CredentialKind, credential_kind
from keyturn.contract.errors import InvalidToken
from keyturn.contract.selectors import Selector, SelectorKind
from keyturn.verifier.verifier import TokenVerifier
from serving.families import Families
from serving.records import RecordStore


class TokenFinder:
    """Looks a token up by its form; a hint is not needed, since a token's form says what it is."""

    def __init__(
        self,
        verifier: TokenVerifier,
        records: RecordStore,
        families: Families,
        current: Callable[[], Awaitable[None]],
    ) -> None:
        self._verifier, self._records, self._families, self._current = verifier, records, families, current

    async def find(self, token: str) -> Mapping[str, Any] | None:
        """Return the claims of a token that we issued, None for anything else; nothing unverified is returned.

        A refresh token that was used long ago is found, too: who signs out with it wants its grant to end, and nobody
        names its family who never held one of its tokens.

        Raises StoreUnavailable or FeedUnavailable where that cannot be said.
        """
        kind = credential_kind(token)
        if kind is CredentialKind.ACCESS:
            return await self._records.get(token)
        if kind is CredentialKind.REFRESH:
            held = (await self._families.read(token)).held
            return None if held is None else held.family.claims
        return None if kind is not None else await self._find_signed(token.encode("utf-8", "surrogatepass"))

    async def _find_signed(self, token: bytes) -> Mapping[str, Any] | None:
        try:
            return self._verifier.genuine(token, allow_expired=True)
        except InvalidToken as error:
            if error.reason != "unknown_kid":
                return None
        await self._current()  # The key may be newer than what we have read.
        try:
            return self._verifier.genuine(token, allow_expired=True)
        except InvalidToken:
            return None


def selector_of(token: str, claims: Mapping[str, Any], issuer: str) -> Selector | None:
    """Return what revokes a token: its `jti`; a refresh token takes its whole grant along (RFC 7009, 2.1).

    None for a token without that name, which no verifier accepts.
    """
    refresh = credential_kind(token) is CredentialKind.REFRESH
    kind = SelectorKind.GRANT if refresh else SelectorKind.JTI
    value = claims.get(kind.value)
    return Selector(iss=issuer, kind=kind, value=value) if isinstance(value, str) and value else None
