"""Issues the tokens of grants: what the token endpoint answers (RFC 6749, 5.1)."""

from typing import Any

from authorization.asking import Asked
from authorization.grants import Grant
from authorization.minting import Minter
from keyturn.contract.errors import SigningRefused
from keyturn.contract.trust import Client
from keyturn.process.metrics import Metrics
from serving.problems import OAuthError


class Issuing:
    """Makes grants, and token answers of them."""

    def __init__(self, minter: Minter, metrics: Metrics, *, token_seconds: float, grant_seconds: float) -> None:
        self._minter, self._token_seconds, self._grant_seconds = minter, token_seconds, grant_seconds
        self._issued = metrics.counter("keyturn_tokens_issued", "Access tokens issued.", labels=("format",))

    def new_grant(self, asked: Asked, *, subject: str, client_id: str, sid: str = "") -> Grant:
        """Return a grant that a user makes to a client at this moment."""
        return self._minter.new_grant(
            asked, subject=subject, client_id=client_id, lasting_seconds=self._grant_seconds, sid=sid
        )

    async def begin(self, grant: Grant, asked: Asked, client: Client) -> dict[str, Any]:  # noqa: ARG002
        """Return the first token answer of a grant.

        That the grant stands, the caller has seen to. Raises StoreUnavailable, SignerUnavailable or OAuthError.
        """
        return await self._access(grant, asked)

    async def to_itself(self, asked: Asked, client_id: str) -> dict[str, Any]:
        """Return the token answer of a grant that a client makes to itself; raises what `begin` does."""
        grant = self._minter.new_grant(
            asked, subject=client_id, client_id=client_id, lasting_seconds=self._token_seconds
        )
        return await self._access(grant, asked)

    async def _access(self, grant: Grant, asked: Asked) -> dict[str, Any]:
        try:
            minted = await self._minter.mint(asked, grant)
        except SigningRefused as error:  # Our identity's trouble, not the client's.
            raise OAuthError("server_error", status=500) from error
        self._issued.labels(asked.token_format.value).inc()
        content = {"access_token": minted.token, "token_type": "Bearer", "expires_in": minted.expires_in}
        if asked.scopes:
            content["scope"] = " ".join(asked.scopes)
        return content
