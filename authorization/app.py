"""The authorization service as a whole: its routes over minter, signer and records."""

import asyncio
from collections.abc import Sequence
from functools import partial

from aiohttp import web

from authorization.codes import PREFIX as CODES
from authorization.codes import Codes
from authorization.issuing import Issuing, Lives
from authorization.loginroutes import LoginRoutes
from authorization.logins import PREFIX as LOGINS
from authorization.logins import PURPOSE as CHALLENGES
from authorization.logins import Logins
from authorization.minting import Minter
from authorization.placing import Placer
from authorization.redeeming import Redeeming
from authorization.refreshing import Refreshing
from authorization.routes import AuthorizationRoutes, GrantHandler
from authorization.settings import AuthorizationSettings
from authorization.signin import SignInRoutes
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.inequalities import grants_outlast_tokens
from keyturn.contract.keys import Use
from keyturn.contract.trust import IdentityKind
from keyturn.process.grants import GrantSettings
from keyturn.process.rotation import RotationSettings, usual_algorithm
from keyturn.process.settings import Settings
from serving.endings import Endings
from serving.parts import Parts
from serving.settings import StatusListSettings, grant_life, record_store, sealer, signer_path
from serving.settings import endings as endings_of
from serving.settings import families as families_of
from serving.settings import listings as listings_of
from serving.signing import SigningClient


class AuthorizationService:
    """Issues access tokens."""

    name = "authorization"

    def __init__(self, settings: Settings, parts: Parts) -> None:
        own, longest = settings.section(AuthorizationSettings), settings.section(RotationSettings).token
        if own.access_token > longest:
            raise ConfigurationError(
                f"tokens of {own.access_token:g} s would outlive rotation.token, {longest:g} s, by which keys go"
                " and revocations forgotten",
                setting="authorization.access_token", mend="shorten it, or lengthen rotation.token everywhere",
            )  # fmt: skip
        _require_lasting(own, grant_seconds=settings.section(GrantSettings).life)
        self._parts, identity = parts, own.identity_key()
        self._identity_kid = identity.kid
        socket = signer_path(own.signer, service=self.name)
        self._signer = SigningClient(socket, identity, parts.clock, service=self.name)
        minter = Minter(
            replica=parts.replica, signer=self._signer, records=record_store(settings, parts.redis, parts.clock),
            clock=parts.clock, token_seconds=own.access_token, placer=self._placer(settings, longest),
        )  # fmt: skip
        lives = Lives(token_seconds=own.access_token, grant=grant_life(settings, parts), idle_seconds=own.refresh_token)
        families, endings = families_of(settings, parts.redis), endings_of(settings, parts.redis)
        issuing = Issuing(parts, minter, families, lives=lives)
        refreshing = Refreshing(parts, issuing, families, endings, lives=lives, grace_seconds=own.refresh_grace)
        self._signing_in, redeem = self._sign_in(settings, own, issuing, endings)
        self._routes = AuthorizationRoutes(
            parts, issuing, refresh=refreshing.answer, redeem=redeem,
            answers_alg=usual_algorithm(settings, Use.INTROSPECTION),
            status_lists=settings.section(StatusListSettings).enabled,
        )  # fmt: skip

    def _sign_in(
        self, settings: Settings, own: AuthorizationSettings, issuing: Issuing, endings: Endings
    ) -> tuple[Sequence[SignInRoutes | LoginRoutes], GrantHandler | None]:
        """Return the routes by which users sign in, and what redeems the codes that come of it; none without a page."""
        if own.signin_url is None:
            return (), None
        parts = self._parts
        kept = partial(record_store, settings, parts.redis, parts.clock)
        logins = Logins(kept(prefix=LOGINS), sealer(settings, purpose=CHALLENGES))
        codes = Codes(parts.redis, kept(prefix=CODES))
        routes = (
            SignInRoutes(parts, logins, codes, signin_url=own.signin_url),
            LoginRoutes(parts, kept(), logins, issuing),
        )
        return routes, Redeeming(parts, codes, issuing, endings, token_seconds=own.access_token).answer

    def _placer(self, settings: Settings, longest_seconds: float) -> Placer | None:
        if not settings.section(StatusListSettings).enabled:
            return None
        parts, listings = self._parts, listings_of(settings, self._parts.redis)
        return Placer(listings, issuer=parts.issuer, clock=parts.clock, token_seconds=longest_seconds)

    def add_routes(self, app: web.Application) -> None:
        """Add every route of the service."""
        for routes in (self._routes, *self._signing_in):
            routes.add_routes(app)

    def unready(self) -> str | None:
        """Return why no token can be issued truthfully now."""
        if (reason := self._parts.unready()) is not None:
            return reason
        if self._identity_kid not in self._parts.replica.trust.identity(self.name, IdentityKind.SERVICE):
            return f"the trust document names no service {self.name} with this key: nothing is signed for it"
        return None

    async def run(self) -> None:
        """Keep the way to the signer open until cancelled."""
        async with self._signer:
            await asyncio.Event().wait()


def _require_lasting(own: AuthorizationSettings, *, grant_seconds: float) -> None:
    rules = grants_outlast_tokens(
        grant_seconds=grant_seconds, access_token_seconds=own.access_token, refresh_token_seconds=own.refresh_token
    )
    for one in rules:
        if not one.holds:
            raise ConfigurationError(one.breach, setting="grants.life", mend=one.mend)
