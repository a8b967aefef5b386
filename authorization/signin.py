"""`/authorize` (RFC 6749, 4.1): sends a user to sign in elsewhere, and back to the client with a code."""

from typing import Final
from urllib.parse import urlencode

from aiohttp import hdrs, web

from authorization.asking import REPEATABLE
from authorization.authorizing import ClientTold, read_request
from authorization.browsers import BrowserCookie, is_browser_of, new_browser
from authorization.codes import Codes
from authorization.logins import LOGIN_SECONDS, Login, Logins
from authorization.signindescription import AUTHORIZE, AUTHORIZE_FORM
from keyturn.contract.redirects import may_redirect
from serving.forms import Form, read_parameters
from serving.parts import Parts
from serving.problems import NO_STORE, PAGE_HEADERS, OAuthError, Style
from serving.routing import add_route, note

PATH: Final = "/authorize"
_BEGIN_AGAIN: Final = "go back to the application and begin again"


class SignInRoutes:
    """Handlers over sign-ins and codes."""

    def __init__(self, parts: Parts, logins: Logins, codes: Codes, *, signin_url: str) -> None:
        """Send users to sign in at `signin_url`."""
        self._parts, self._logins, self._codes, self._signin_url = parts, logins, codes, signin_url
        self._cookie = BrowserCookie(parts.issuer, lasting_seconds=LOGIN_SECONDS)
        about = "Sign-ins, by how far they came."
        self._steps = parts.metrics.counter("keyturn_sign_ins", about, labels=("step",))

    def add_routes(self, app: web.Application) -> None:
        """Add both methods (RFC 6749, 3.1)."""
        for method, operation in (("GET", AUTHORIZE), ("POST", AUTHORIZE_FORM)):
            add_route(app, method, PATH, self.authorize, style=Style.PAGE, operation=operation)

    async def authorize(self, request: web.Request) -> web.Response:
        """Begin a sign-in, or finish one that comes back with a verifier.

        Raises what is shown to the person; what the client is to know is a redirect to it.
        """
        form = await read_parameters(request, repeatable=REPEATABLE)
        self._parts.require_replica()
        if "login_verifier" in form:
            return await self._finish(request, form["login_verifier"])
        try:
            return self._begin(request, form)
        except ClientTold as error:
            note(request, error_code=error.error)
            return self._redirect("refused", error.location(self._parts.issuer))

    def _begin(self, request: web.Request, form: Form) -> web.Response:
        asked = read_request(form, self._parts.replica.trust)
        note(request, client_id=asked.client_id)
        browser = self._cookie.read(request) or new_browser()
        try:
            challenge = self._logins.challenge(asked, browser=browser, now=self._now())
        except OAuthError as error:
            raise ClientTold(error.error, error.description, returning=asked.returning) from None
        parted = "&" if "?" in self._signin_url else "?"
        response = self._redirect("begun", f"{self._signin_url}{parted}{urlencode({'login_challenge': challenge})}")
        self._cookie.give(response, browser)
        return response

    async def _finish(self, request: web.Request, verifier: str) -> web.Response:
        outcome = await self._logins.outcome(verifier, now=self._now())
        if outcome is None:
            raise OAuthError("invalid_request", f"this sign-in is over: {_BEGIN_AGAIN}")
        login = outcome.login
        note(request, client_id=login.client_id)
        if not is_browser_of(login.browser, self._cookie.read(request)):
            raise OAuthError(
                "invalid_request", f"this sign-in was begun in another browser: {_BEGIN_AGAIN} in this one"
            )
        self._require_allowed(login)
        names = self._logins.records.names(verifier)
        if outcome.grant is None:
            if not await self._codes.end(names=names):
                raise OAuthError("invalid_request", f"this sign-in is over: {_BEGIN_AGAIN}")
            told = ClientTold(outcome.error, returning=login.returning)
            return self._redirect("denied", told.location(self._parts.issuer))
        code = await self._codes.make(login, outcome.grant, now=self._now(), instead_of=names)
        if code is None:
            raise OAuthError("invalid_request", f"this sign-in is over: {_BEGIN_AGAIN}")
        return self._redirect("finished", login.returning.answer(self._parts.issuer, code=code))

    def _now(self) -> float:
        return self._parts.replica.no_earlier(self._parts.clock.now())

    def _require_allowed(self, login: Login) -> None:
        """Refuse to send anybody where the root does not let this client have its users sent any more."""
        trust = self._parts.replica.trust
        known = login.client_id in trust.document.clients
        if not known or not may_redirect(login.redirect_uri, trust.redirects(login.client_id)):
            raise OAuthError("invalid_request", "the application is not known any more")

    def _redirect(self, step: str, location: str) -> web.Response:
        """Send the browser on by GET: 303, since 307 would post again what it posted here (RFC 9700, 4.12)."""
        self._steps.labels(step=step).inc()
        return web.Response(status=303, headers={**NO_STORE, **PAGE_HEADERS, hdrs.LOCATION: location})
