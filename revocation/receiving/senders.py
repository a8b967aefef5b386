"""Who sent a security event: the issuer that it names, by a signature of one of that issuer's keys."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from keyturn.contract.errors import InvalidToken, IssuerKeysUnavailable
from keyturn.contract.issuers import ForeignIssuer, IssuerKey
from keyturn.contract.tokens import Token, parse_token
from keyturn.process.following import noting
from keyturn.process.running import Supervisor
from keyturn.verifier.issuers import IssuerKeys
from keyturn.verifier.keysources import source_of
from revocation.receiving.meaning import EventRefused
from serving.parts import Parts

SET_TYPES = frozenset({"secevent+jwt", "application/secevent+jwt"})
MOST_WAITING = 64  # Events that wait for keys to be read, of all issuers.
LOGOUT_TYPES = frozenset({"logout+jwt", "application/logout+jwt"})


class Sent(NamedTuple):
    """Claims that an issuer has signed."""

    issuer: ForeignIssuer
    claims: Mapping[str, Any]


class Senders:
    """The other issuers of the settings, and their keys."""

    def __init__(self, issuers: Mapping[str, ForeignIssuer], parts: Parts) -> None:
        """Know them; those that name no audience for their events send none, and their keys are not read."""
        self._clock, self._waiting = parts.clock, 0
        self._keys = {
            one.url: IssuerKeys(one, source_of(one, parts.clock), parts.clock, note=noting(parts.log))
            for one in issuers.values()
            if one.audience is not None
        }

    async def run(self) -> None:
        """Keep their keys current until cancelled."""
        async with Supervisor(clock=self._clock) as supervisor:
            for keys in self._keys.values():
                supervisor.keep_running(f"issuer-{keys.issuer.name}", keys.run)
            await supervisor.forever()

    async def opened(self, compact: bytes, *, types: frozenset[str]) -> Sent:
        """Return what an issuer has signed, of one of these `typ`.

        Raises EventRefused, or IssuerKeysUnavailable where the issuer's keys cannot be had now.
        """
        try:
            token = parse_token(compact, types=types)
        except InvalidToken as error:
            reason = "its typ is not what comes here" if error.reason == "type" else str(error)
            raise EventRefused("invalid_request", reason) from error
        iss = token.claims.get("iss")
        keys = self._keys.get(iss) if isinstance(iss, str) else None
        if keys is None:
            raise EventRefused("invalid_issuer", "no issuer from which events are taken")
        key = await self._key(keys, token)
        if not key.algorithm.verify(token.signing_input, key.key, token.signature):
            raise EventRefused("authentication_failed", "not that issuer's signature")
        return Sent(keys.issuer, token.claims)

    async def _renewed(self, keys: IssuerKeys) -> None:
        """Have an issuer's keys read, unless too many wait for that: strangers can invent keys, and nobody else."""
        if self._waiting >= MOST_WAITING:
            return
        self._waiting += 1
        try:
            await keys.renew()
        finally:
            self._waiting -= 1

    async def _key(self, keys: IssuerKeys, token: Token) -> IssuerKey:
        kid, alg = token.header.kid, token.header.alg
        try:
            try:
                return keys.find(kid, alg, self._clock.boottime())
            except IssuerKeysUnavailable:
                await self._renewed(keys)
                return keys.find(kid, alg, self._clock.boottime())
        except InvalidToken as error:
            raise EventRefused("invalid_key", "the issuer tells no such key for that algorithm") from error
