"""Issues the tokens of grants: what the token endpoint answers (RFC 6749, 5.1)."""

from dataclasses import dataclass
from typing import Any

from authorization.asking import Asked
from authorization.grants import Grant
from authorization.metadata import REFRESH_TOKEN
from authorization.minting import Minter
from keyturn import entropy
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential
from keyturn.contract.errors import SigningRefused
from keyturn.contract.trust import Client
from serving.families import Families, Family, mark_of
from serving.parts import Parts
from serving.problems import OAuthError
from serving.promises import GrantLife


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """How long what is issued is good for."""

    token_seconds: float
    """An access token."""
    grant: GrantLife
    """A user's grant, and with it all that comes of it."""
    idle_seconds: float
    """A refresh token that is not used."""


class Issuing:
    """Makes grants, and token answers of them."""

    def __init__(self, parts: Parts, minter: Minter, families: Families, *, lives: Lives) -> None:
        self._parts, self._minter, self._families, self._lives = parts, minter, families, lives
        self._issued = parts.metrics.counter("keyturn_tokens_issued", "Access tokens issued.", labels=("format",))

    async def new_grant(
        self, asked: Asked, *, subject: str, client_id: str, sid: str = "", auth_time: int | None = None
    ) -> Grant:
        """Return a grant that a user makes to a client at this moment; raises what `GrantLife.seconds` does."""
        lasting_seconds = await self._lives.grant.seconds()
        return self._minter.new_grant(
            asked, subject=subject, client_id=client_id, lasting_seconds=lasting_seconds, sid=sid, auth_time=auth_time
        )

    async def begin(self, grant: Grant, asked: Asked, client: Client) -> dict[str, Any]:
        """Return the first token answer of a grant, with a refresh token if the client may use one.

        Tokens that are told to nobody, because a code was consumed by somebody else meanwhile, are nobody's: another
        answer of the same grant has a family of its own. That the grant stands, the caller has seen to. Raises
        StoreUnavailable, SignerUnavailable or OAuthError.
        """
        answer = await self.access(grant, asked)
        if REFRESH_TOKEN in client.grant_types:
            answer[REFRESH_TOKEN] = await self._begin_family(grant)
        return answer

    async def to_itself(self, asked: Asked, client_id: str) -> dict[str, Any]:
        """Return the token answer of a grant that a client makes to itself; raises what `begin` does."""
        grant = self._minter.new_grant(
            asked, subject=client_id, client_id=client_id, lasting_seconds=self._lives.token_seconds
        )
        return await self.access(grant, asked)

    async def access(self, grant: Grant, asked: Asked) -> dict[str, Any]:
        """Return a token answer with an access token of a grant; raises what `begin` does."""
        try:
            minted = await self._minter.mint(asked, grant)
        except SigningRefused as error:  # Our identity's trouble, not the client's.
            raise OAuthError("server_error", status=500) from error
        self._issued.labels(asked.token_format.value).inc()
        answer = {"access_token": minted.token, "token_type": "Bearer", "expires_in": minted.expires_in}
        if asked.scopes:
            answer["scope"] = " ".join(asked.scopes)
        return answer

    async def _begin_family(self, grant: Grant) -> str:
        now = self._parts.clock.now()
        token = make_credential(CredentialKind.REFRESH, entropy.token_bytes(RANDOM_BYTES))
        family = Family(
            claims=grant.claims(self._parts.issuer), ends_at=grant.ends_at, current=mark_of(token), made_at=now,
            expires_at=min(now + self._lives.idle_seconds, grant.ends_at),
        )  # fmt: skip
        await self._families.begin(token, family, keep_seconds=self._parts.skew_seconds)
        return token
