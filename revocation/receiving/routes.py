"""`POST /events` (RFC 8935) and `POST /backchannel-logout`: other providers say what has ended."""

import asyncio
from collections.abc import Sequence
from typing import Final

from aiohttp import hdrs, web

from keyturn.contract.selectors import Entry, Selector
from revocation.keeping import Keeping
from revocation.receiving.description import EVENTS, LOGOUT
from revocation.receiving.meaning import LOGOUT_SECONDS, EventRefused, Meaning, read_event, read_logout
from revocation.receiving.once import Received
from revocation.receiving.senders import LOGOUT_TYPES, SET_TYPES, Senders, Sent
from revocation.writer import RevocationWriter
from serving.forms import read_form
from serving.parts import Parts
from serving.problems import OAuthError, Style, json_answer
from serving.routing import add_route, note

SET_TYPE: Final = "application/secevent+jwt"
EVENT_TAKEN: Final = "event_taken"
EVENT_PASSED_OVER: Final = "event_passed_over"
LONGEST_TOLD = 128  # Characters of an event type that are logged.
REMEMBERED_SECONDS = 86_400.0
REASON = "told by its issuer"


class ReceivingRoutes:
    """Handlers over the senders and the lane's writer."""

    def __init__(self, parts: Parts, senders: Senders, *, writer: RevocationWriter, keeping: Keeping) -> None:
        self._parts, self._senders, self._writer, self._keeping = parts, senders, writer, keeping
        self._received = Received(parts.redis)
        about = "What came of the security events that other issuers sent."
        self._outcomes = parts.metrics.counter("keyturn_received_events", about, labels=("kind", "outcome"))

    def add_routes(self, app: web.Application) -> None:
        """Add the routes."""
        add_route(app, "POST", "/events", self.take_event, style=Style.PROBLEM, operation=EVENTS)
        add_route(app, "POST", "/backchannel-logout", self.take_logout, style=Style.OAUTH, operation=LOGOUT)

    async def take_event(self, request: web.Request) -> web.Response:
        """Take a Security Event Token (RFC 8935, 2.2): 202 means that what it ends is durably revoked.

        One that came before is taken again without a further revocation.
        """
        if request.content_type != SET_TYPE:
            raise web.HTTPUnsupportedMediaType
        try:
            sent = await self._senders.opened(await request.read(), types=SET_TYPES)
            now = self._parts.now()
            meaning = read_event(sent.claims, sent.issuer, now=now, skew_seconds=self._parts.skew_seconds)
        except EventRefused as error:
            self._count(request, "set", "refused")
            note(request, error_code=error.err)
            content = {"err": error.err, "description": error.description}
            return json_answer(content, status=400, headers={hdrs.CONTENT_LANGUAGE: "en"})
        jti = sent.claims["jti"]
        if await self._received.has(sent.issuer.url, jti):
            self._count(request, "set", "repeated")
            return web.Response(status=202)
        await self._carry_out(request, "set", sent, meaning)
        await self._received.add(sent.issuer.url, jti, lasting_seconds=REMEMBERED_SECONDS)
        return web.Response(status=202)

    async def take_logout(self, request: web.Request) -> web.Response:
        """Take a logout token (OpenID Connect Back-Channel Logout 1.0, 2.5 to 2.8): 200 means durably revoked.

        A token that was taken before is refused (2.6).
        """
        form = await read_form(request)
        token = form.get("logout_token")
        if token is None:
            raise OAuthError("invalid_request", "logout_token is missing")
        now, skew = self._parts.now(), self._parts.skew_seconds
        try:
            compact = token.encode("utf-8", "surrogatepass")
            sent = await self._senders.opened(compact, types=LOGOUT_TYPES)
            meaning = read_logout(sent.claims, sent.issuer, now=now, skew_seconds=skew)
        except EventRefused as error:
            self._count(request, "logout", "refused")
            raise OAuthError("invalid_request", error.description) from error
        iss, jti = sent.issuer.url, sent.claims["jti"]
        if not await self._received.has(iss, jti):
            await self._carry_out(request, "logout", sent, meaning)
            lasting = LOGOUT_SECONDS + 4 * skew
            if await self._received.add(iss, jti, lasting_seconds=lasting):
                return web.Response(status=200)
        self._count(request, "logout", "repeated")
        raise OAuthError("invalid_request", "this logout token was taken before")

    async def _carry_out(self, request: web.Request, kind: str, sent: Sent, meaning: Meaning) -> None:
        """Return once all is durable; raises what the writer raises, and then the sender has to send it again."""
        now = self._parts.now()
        await self._write([
            Entry(selector=one, until=self._keeping.of_foreign(one, now), reason=REASON) for one in meaning.selectors
        ])  # fmt: skip
        self._count(request, kind, "revoked" if meaning.selectors else "passed_over")
        facts = {
            "issuer": sent.issuer.name,
            "set": sent.claims["jti"],
            "types": sorted(one[:LONGEST_TOLD] for one in sent.claims["events"]),
        }
        if meaning.selectors:
            self._parts.log.info(EVENT_TAKEN, **facts, selectors=_kinds(meaning.selectors))
        if meaning.notes:
            self._parts.log.warning(EVENT_PASSED_OVER, **facts, reasons=list(meaning.notes))

    async def _write(self, entries: Sequence[Entry]) -> None:
        tasks = [asyncio.ensure_future(self._writer.write(entry)) for entry in entries]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _count(self, request: web.Request, kind: str, outcome: str) -> None:
        self._outcomes.labels(kind=kind, outcome=outcome).inc()
        note(request, outcome=outcome)


def _kinds(selectors: Sequence[Selector]) -> list[str]:
    """Name what is revoked, and nobody: whom it concerns stands in the feed."""
    return sorted({one.kind.value for one in selectors})
