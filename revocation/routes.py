"""Revocation over HTTP: RFC 7009 for a token's own client, selectors and adoption for operators."""

from typing import Any

from aiohttp import web

from keyturn.contract.credentials import CredentialKind, credential_kind
from keyturn.contract.errors import MalformedInput, StoreUnavailable
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, SelectorKind
from keyturn.feed.presence import PresenceWatch
from keyturn.verifier.verifier import TokenVerifier
from revocation.description import ADOPTION, MOST_DIGITS, REVOKE, revoke_selected
from revocation.keeping import Keeping
from revocation.once import Orders
from revocation.orders import Mark, OrderBook
from revocation.reading import OrderReader, shown
from revocation.survey import Survey
from revocation.tokens import TokenFinder, selector_of
from revocation.writer import RevocationWriter, Written
from serving.authentication import Authenticator, require_admin
from serving.families import Families
from serving.forms import read_form, read_idempotency_key, read_json
from serving.parts import Parts
from serving.problems import NotFound, OAuthError, Style, json_answer
from serving.receipts import Quorum, Vouching, Wait, read_wait, receipt_of
from serving.records import RecordStore
from serving.routing import add_route, note

_PLACE = r"/revocations/{seq:(?!bulk$)[^/]+}"  # A list is posted under that name.
RECORD_LEFT = "record_left"  # Its token is revoked all the same: whoever reads a record asks the replica, too.


class RevocationRoutes:
    """Handlers over the writer and the replica."""

    def __init__(
        self,
        parts: Parts,
        *,
        records: RecordStore,
        families: Families,
        writer: RevocationWriter,
        book: OrderBook,
        watch: PresenceWatch,
        keeping: Keeping,
        status_lists: bool = False,
    ) -> None:
        """Use a writer and a watch; with `status_lists` receipts say which revocations those show."""
        self._status_lists = status_lists
        self._parts, self._records, self._writer, self._watch = parts, records, writer, watch
        self._keeping, self._reader = keeping, OrderReader(parts, keeping)
        self._authenticator = Authenticator(parts)
        self._vouching = Vouching(parts)
        self._survey = Survey(records, families, parts.replica, parts.clock, keeping=keeping)
        self._orders = Orders(writer, book, self._current, self._vouching)
        metrics, about = parts.metrics, "What came of the revocations that were asked for."
        self._outcomes = metrics.counter("keyturn_revocations", about, labels=("outcome",))
        metrics.read_gauge("keyturn_revocations_waiting", "Revocations that wait for their event.", lambda: len(writer))
        verifier = TokenVerifier(parts.replica, parts.clock, cached_tokens=1)
        self._finder = TokenFinder(verifier, records, families, self._current)

    def add_routes(self, app: web.Application) -> None:
        """Add every route of the service."""
        add_route(app, "POST", "/revoke", self.revoke, style=Style.OAUTH, operation=REVOKE)
        selected = revoke_selected([self._parts.issuer, *self._keeping.others])
        add_route(app, "POST", "/revocations", self.revoke_selected, style=Style.PROBLEM, operation=selected)
        add_route(app, "GET", _PLACE, self.adoption, style=Style.PROBLEM, operation=ADOPTION)

    async def revoke(self, request: web.Request) -> web.Response:
        """Revoke a token for the client that it was issued to (RFC 7009, 2); 200 means that it is durable."""
        form = await read_form(request)
        caller = await self._authenticator.authenticate(request, form, public=True)
        note(request, client_id=caller.client_id)
        wait, token = _wait(request), form.get("token")
        if token is None:
            raise OAuthError("invalid_request", "token is missing")
        claims = await self._finder.find(token)
        selector = None if claims is None else selector_of(token, claims, self._parts.issuer)
        if claims is None or selector is None:
            return await self._nothing_to_revoke(request, wait, "unknown")
        if claims.get("client_id") != caller.client_id:
            # RFC 7009, 2.1: refused, and the client is told (RFC 6749, 5.2: "was issued to another client").
            raise OAuthError("invalid_grant", "the token was issued to another client")
        replica, now = self._parts.replica, self._parts.now()
        if selector.kind is SelectorKind.JTI:
            until = self._keeping.of_token(claims, replica.keys, now)
        else:
            until = self._keeping.of_selector(selector.kind, replica.keys, now)
        if until <= now:
            return await self._nothing_to_revoke(request, wait, "expired")
        if replica.revokes(replica.names(claims)):
            await self._forget(token)
            return await self._nothing_to_revoke(request, wait, "revoked_before")
        written = await self._writer.write(Entry(selector=selector, until=until), report=wait.asked)
        await self._forget(token)
        self._count(request, "revoked", written)
        if not wait.asked:
            return web.Response(status=200)
        return await self._receipt(written, wait)

    async def revoke_selected(self, request: web.Request) -> web.Response:
        """Revoke all that a selector names; answer with the receipt."""
        admin = await require_admin(request, self._records, self._parts)
        note(request, client_id=admin.get("client_id"))
        wait = read_wait(request)
        body, key = await read_json(request), read_idempotency_key(request)
        asked = self._reader.order(body)
        if asked.dry_run:
            count = await self._survey.count(asked.entry)
            told = {"dry_run": True, "lane": Lane.REVOCATIONS.value, **shown(asked.entry), **count._asdict()}
            return json_answer(told)
        mark = None if key is None else Mark.of(str(admin.get("client_id")), key, body)
        done = await self._orders.carry_out(asked.entry, mark, report=wait.asked)
        self._count(request, "repeated" if done.again else "revoked", done)
        # The lists speak of our own tokens, whatever the selector; of another issuer's nothing can be shown there.
        listed = self._status_lists and asked.entry.selector.iss == self._parts.issuer
        return await self._receipt(done, wait, status_list=listed)

    async def adoption(self, request: web.Request) -> web.Response:
        """Say who has adopted a revocation of the running epoch by now."""
        await require_admin(request, self._records, self._parts)
        text = request.match_info["seq"]
        if not (text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS):
            raise MalformedInput("a revocation's sequence is a number; its receipt has it")
        epoch, newest = self._parts.replica.place(Lane.REVOCATIONS)
        place = epoch, int(text)
        if not 1 <= place[1] <= newest:
            raise NotFound(f"lane revocations of epoch {epoch} goes from 1 to {newest}")
        told, _ = await receipt_of(
            self._watch, Lane.REVOCATIONS, place, wait=Quorum.NOBODY, appended_boottime=self._writer.begun_at(place),
            durability=await self._vouching.word(Lane.REVOCATIONS, place),
        )  # fmt: skip
        return json_answer(told)

    async def _nothing_to_revoke(self, request: web.Request, wait: Wait, outcome: str) -> web.Response:
        """Answer 200 (RFC 7009, 2.2), if the store bears out that nothing has passed us by; else 503.

        Who waits learns when all hold at least what we hold.
        """
        await self._current()
        await self._vouching.require(Lane.REVOCATIONS)
        self._count(request, outcome)
        if not wait.asked:
            return web.Response(status=200)
        place = self._parts.replica.place(Lane.REVOCATIONS)
        told, complete = await receipt_of(
            self._watch, Lane.REVOCATIONS, place, wait=wait.quorum, timeout_seconds=wait.timeout_seconds,
            appended_boottime=None, durability=await self._vouching.word(Lane.REVOCATIONS, place),
        )  # fmt: skip
        return json_answer(told, status=200 if complete else 202)

    async def _receipt(self, written: Written, wait: Wait, **more: Any) -> web.Response:
        told, complete = await receipt_of(
            self._watch, Lane.REVOCATIONS, written.place, wait=wait.quorum, timeout_seconds=wait.timeout_seconds,
            appended_boottime=written.begun_boottime,
            durability=await self._vouching.word(Lane.REVOCATIONS, written.place),
        )  # fmt: skip
        return json_answer({**told, **more}, status=200 if complete else 202)

    async def _current(self) -> None:
        """Come to where the store stands now in both lanes; raises StoreUnavailable or FeedUnavailable."""
        await self._parts.reach(await self._records.positions())

    def count_listed(self, count: int) -> None:
        """Take note that revocations of a list became durable."""
        self._outcomes.labels(outcome="revoked").inc(count)

    def _count(self, request: web.Request, outcome: str, written: Written | None = None) -> None:
        self._outcomes.labels(outcome=outcome).inc()
        note(request, outcome=outcome, **({} if written is None else {"sequence": written.place[1]}))

    async def _forget(self, token: str) -> None:
        """Delete an opaque access token's record; the revocation holds without that."""
        if credential_kind(token) is CredentialKind.ACCESS:
            try:
                await self._records.delete(token)
            except StoreUnavailable as error:
                self._parts.log.warning(RECORD_LEFT, reason=str(error))


def _wait(request: web.Request) -> Wait:
    try:
        return read_wait(request)
    except MalformedInput as error:
        raise OAuthError("invalid_request", str(error)) from error
