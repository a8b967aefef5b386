"""`/logins/{challenge}`: what the operator's sign-in page asks about a sign-in, and says about its user."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from authorization.asking import Asked
from authorization.grants import Grant
from authorization.issuing import Issuing
from authorization.logins import Login, Logins, Outcome
from authorization.signin import PATH as AUTHORIZE_PATH
from authorization.signindescription import ANSWER_LOGIN, SHOW_LOGIN
from keyturn.contract.errors import MalformedInput
from keyturn.contract.selectors import LONGEST_VALUE
from keyturn.contract.trust import LOGIN_SCOPE, TokenFormat
from serving.authentication import require_scope
from serving.forms import read_json
from serving.parts import Parts
from serving.problems import NotFound, Style, json_answer
from serving.records import RecordStore
from serving.routing import add_route, note

PATH: Final = "/logins/{challenge}"
ERRORS: Final = ("access_denied",)


class LoginRoutes:
    """Handlers for the sign-in page, which asks as a client of its own (scope `keyturn:login`)."""

    def __init__(self, parts: Parts, records: RecordStore, logins: Logins, issuing: Issuing) -> None:
        """Know the page's tokens by `records`."""
        self._parts, self._records, self._logins, self._issuing = parts, records, logins, issuing

    def add_routes(self, app: web.Application) -> None:
        """Add both."""
        add_route(app, "GET", PATH, self.show, style=Style.PROBLEM, operation=SHOW_LOGIN)
        add_route(app, "POST", PATH, self.answer, style=Style.PROBLEM, operation=ANSWER_LOGIN)

    async def show(self, request: web.Request) -> web.Response:
        """Say which client asks the user for what."""
        login = await self._asked_about(request)
        return json_answer(
            {"client_id": login.client_id, "scopes": list(login.scopes), "audiences": list(login.audiences)}
        )

    async def answer(self, request: web.Request) -> web.Response:
        """Take the page's word for who its user is, or that nobody signs in; say where to send the browser.

        The grant is made here, later than every cutoff that the store knew when the page asked: who was signed out a
        moment ago and has signed in again is signed in.
        """
        login = await self._asked_about(request)
        members = await read_json(request)
        if "error" in members:
            if members.keys() != {"error"} or members["error"] not in ERRORS:
                raise MalformedInput(f"the body has an error alone, which is {' or '.join(ERRORS)}")
            outcome = Outcome(login=login, error=members["error"])
        else:
            outcome = Outcome(login=login, grant=await self._grant(login, members))
        verifier = await self._logins.keep(outcome)
        query = urlencode({"login_verifier": verifier})
        return json_answer({"redirect_to": f"{self._parts.issuer}{AUTHORIZE_PATH}?{query}"})

    async def _grant(self, login: Login, members: Mapping[str, Any]) -> Grant:
        if unknown := members.keys() - {"sub", "sid", "auth_time"}:
            raise MalformedInput(f"unknown member {min(unknown)!r}; the body has sub, sid and auth_time, or error")
        subject, sid = _name(members, "sub"), _name(members, "sid") if "sid" in members else ""
        auth_time = self._moment(members["auth_time"]) if "auth_time" in members else None
        if subject in self._parts.replica.trust.document.clients:
            raise MalformedInput("sub is a client's id: that client's own tokens could not be told from the user's")
        asked = Asked(scopes=login.scopes, audiences=login.audiences, token_format=TokenFormat.JWT)
        return await self._issuing.new_grant(
            asked, subject=subject, client_id=login.client_id, sid=sid, auth_time=auth_time
        )

    def _moment(self, value: object) -> int:
        """Return when the user proved who they are, in whole seconds; raises MalformedInput for what is to come."""
        latest = self._parts.clock.now() + self._parts.skew_seconds
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= latest:
            raise MalformedInput("auth_time is a moment that has been, in Unix seconds")
        return int(value)

    async def _asked_about(self, request: web.Request) -> Login:
        page = await require_scope(request, self._records, self._parts, scope=LOGIN_SCOPE)
        note(request, client_id=page.get("client_id"))
        replica = self._parts.replica
        now = replica.no_earlier(self._parts.clock.now())
        login = self._logins.opened(request.match_info["challenge"], now=now)
        if login is None or login.client_id not in replica.trust.document.clients:
            raise NotFound("no such sign-in, or its ten minutes are over")
        return login


def _name(members: Mapping[str, Any], member: str) -> str:
    """Return what a revocation can name a user or session by later."""
    value = members.get(member)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_VALUE or not value.isprintable():
        raise MalformedInput(f"{member} is a string of 1 to {LONGEST_VALUE} printable characters")
    return value
