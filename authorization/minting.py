"""Makes access tokens: JWT (RFC 9068) through the signer, opaque ones through the record store."""

import asyncio
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from authorization.asking import Asked
from authorization.grants import Grant, party_claims
from authorization.placing import Placer
from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential
from keyturn.contract.encoding import decode_object, unb64url
from keyturn.contract.errors import MalformedInput, SignerUnavailable
from keyturn.contract.purposes import ACCESS_TOKEN
from keyturn.contract.trust import TokenFormat
from keyturn.verifier.replica import Replica
from serving.records import RecordStore
from serving.signing import Signer


class Minted(NamedTuple):
    """An access token and the seconds that it has to live."""

    token: str
    expires_in: int


class Minter:
    """Makes grants that begin now, and access tokens of these and of older ones."""

    def __init__(
        self,
        *,
        replica: Replica,
        signer: Signer,
        records: RecordStore,
        clock: Clock,
        token_seconds: float,
        placer: Placer | None = None,
    ) -> None:
        """Use a signer and a record store; with a placer each JWT names its place in a status list."""
        self._replica, self._signer, self._records, self._clock = replica, signer, records, clock
        self._seconds, self._placer = token_seconds, placer

    def new_grant(
        self,
        asked: Asked,
        *,
        subject: str,
        client_id: str,
        lasting_seconds: float,
        sid: str = "",
        auth_time: int | None = None,
    ) -> Grant:
        """Return a grant of what is asked that begins now, stamped after every cutoff that we know for it."""
        now = self._clock.now()
        parties = party_claims(
            self._replica.issuer, subject=subject, client_id=client_id, audiences=asked.audiences, scopes=asked.scopes
        )
        begins = self._replica.no_later(now, self._clock.boottime())
        grant_id = new_grant_id(now=begins, cutoff=self._replica.latest_cutoff(parties))
        return Grant(
            grant_id=grant_id, sid=sid, subject=subject, client_id=client_id, scopes=asked.scopes,
            audiences=asked.audiences, ends_at=now + lasting_seconds, auth_time=auth_time,
        )  # fmt: skip

    async def mint(self, asked: Asked, grant: Grant) -> Minted:
        """Return an access token of a grant, for what is asked of it; raises StoreUnavailable or SignerUnavailable.

        It ends with its grant at the latest. That the grant stands, the caller has seen to.
        """
        now = self._clock.now()
        claims = self._claims(asked, grant, now=now)
        if asked.token_format is TokenFormat.OPAQUE:
            return await self._keep({**claims, "iat": int(now)}, now)
        del claims["iss"]  # The signer's to say.
        if self._placer is None:
            token = await self._signer.sign(ACCESS_TOKEN, claims)
        else:
            token = await self._sign_placed(claims, self._placer)
        return Minted(token, _expiry(token) - int(now))

    async def _sign_placed(self, claims: Mapping[str, Any], placer: Placer) -> str:
        """Return a token with its place in a status list, once the store knows which token stands there."""
        place = await placer.take()
        noting = asyncio.ensure_future(placer.note(place, claims))  # While the signer signs.
        try:
            token = await self._signer.sign(ACCESS_TOKEN, {**claims, "status": place.claim})
            await noting  # Else it must not leave: its revocation would never show.
        except BaseException:
            noting.cancel()
            await asyncio.gather(noting, return_exceptions=True)
            raise
        return token

    async def _keep(self, claims: dict[str, Any], now: float) -> Minted:
        token = make_credential(CredentialKind.ACCESS, entropy.token_bytes(RANDOM_BYTES))
        # Verifiers forgive the skew, so the record outlasts the token by as much.
        await self._records.put(token, claims, expires_at=claims["exp"] + self._replica.freshness.skew_seconds)
        return Minted(token, claims["exp"] - int(now))

    def _claims(self, asked: Asked, grant: Grant, *, now: float) -> dict[str, Any]:
        parties = party_claims(
            self._replica.issuer, subject=grant.subject, client_id=grant.client_id, audiences=asked.audiences,
            scopes=asked.scopes,
        )  # fmt: skip
        times = {"nbf": int(now), "exp": min(int(now) + int(self._seconds), int(grant.ends_at))}
        return {**parties, **times, "jti": entropy.uuid7(now), **grant.own_claims()}


def new_grant_id(*, now: float, cutoff: float) -> str:
    """Return the id of a grant that begins now, stamped after a cutoff (Unix seconds), which it must outlive."""
    milliseconds = max(math.floor(now * 1000), math.floor(cutoff * 1000) + 1)
    return entropy.uuid7((milliseconds + 0.5) / 1000)  # In the middle of the millisecond, whatever floats do.


def _expiry(token: str) -> int:
    """Return when a JWT that was just signed for us ends: its signer may have made it shorter."""
    try:
        return int(decode_object(unb64url(token.split(".")[1]))["exp"])
    except (IndexError, KeyError, TypeError, ValueError, MalformedInput) as error:
        raise SignerUnavailable("the signer's answer is no token") from error
