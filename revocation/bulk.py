"""`POST /revocations/bulk`: revokes what a list of selectors names, however long, and tells how far it has come."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import hdrs, web

from keyturn.contract.errors import KeyturnError
from keyturn.contract.positions import Lane
from keyturn.feed.presence import PresenceWatch
from revocation.description import REVOKE_LIST
from revocation.keeping import Keeping
from revocation.listreading import LONGEST_LIST_SECONDS, BadLine, CutOff, ListReading, Terms, read_terms
from revocation.reading import OrderReader
from revocation.writer import RevocationWriter
from serving.authentication import require_admin
from serving.parts import Parts
from serving.problems import Busy, Style
from serving.receipts import Vouching, Wait, read_wait, receipt_of
from serving.records import RecordStore
from serving.routing import UNAVAILABLE, add_route, note

LIST_TYPE = "application/x-ndjson"
MOST_AT_ONCE = 2  # Lists that are being read; another one has to come back later.
_END_SECONDS = 60.0  # Beside those of the list: for its last parts and the receipt.
_LAST_WORD_SECONDS = 1.0  # A client that does not read is not waited for.
_LANE = Lane.REVOCATIONS


class BulkRoutes:
    """The handler; few lists are read at once."""

    def __init__(
        self,
        parts: Parts,
        *,
        records: RecordStore,
        writer: RevocationWriter,
        watch: PresenceWatch,
        keeping: Keeping,
        count: Callable[[int], None],
    ) -> None:
        """Know them; `count` hears how many revocations of a list became durable."""
        self._parts, self._records, self._writer, self._watch = parts, records, writer, watch
        self._reader, self._vouching, self._count = OrderReader(parts, keeping), Vouching(parts), count
        self._open = 0

    def add_routes(self, app: web.Application) -> None:
        """Add the route."""
        add_route(
            app, "POST", "/revocations/bulk", self.revoke_list, style=Style.PROBLEM, operation=REVOKE_LIST,
            within_seconds=LONGEST_LIST_SECONDS + _END_SECONDS,
        )  # fmt: skip

    async def revoke_list(self, request: web.Request) -> web.StreamResponse:
        """Read a list, and answer in lines while it is read; the last one says how it ended."""
        admin = await require_admin(request, self._records, self._parts)
        note(request, client_id=admin.get("client_id"))
        wait = read_wait(request)
        terms = read_terms(request, now=self._parts.now(), skew_seconds=self._parts.skew_seconds)
        if request.content_type != LIST_TYPE:
            raise web.HTTPUnsupportedMediaType
        if self._open >= MOST_AT_ONCE:
            raise Busy("other lists are being read")
        self._open += 1
        try:
            # Whoever stands between must not gather the lines: they are there to be seen.
            response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: LIST_TYPE, "X-Accel-Buffering": "no"})
            await response.prepare(request)
            with suppress(ConnectionError):  # Who went away reads the rest of the answer with the next list.
                await self._answer(request, response, terms, wait)
            return response
        finally:
            self._open -= 1

    async def _answer(self, request: web.Request, response: web.StreamResponse, terms: Terms, wait: Wait) -> None:
        reading = ListReading(self._parts, self._reader, self._writer, terms, response)
        progress = reading.progress
        await response.write(progress.told("begun", before=terms.before))
        try:
            last = await self._ended(request, reading, wait)
        except ConnectionError:
            raise
        except BaseException as error:  # Also where this service ends, or its time is up.
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(_LAST_WORD_SECONDS):
                    await response.write(progress.told("stopped", error=_last_word(error)))
            raise  # The connection is cut: who reads no lines must not take it for a whole answer either.
        finally:
            self._count(progress.accepted)
            note(request, outcome="list", lines=progress.line, accepted=progress.accepted, skipped=progress.skipped)
        await response.write(last)
        await response.write_eof()

    async def _ended(self, request: web.Request, reading: ListReading, wait: Wait) -> bytes:
        progress = reading.progress
        try:
            await reading.read(request.content, report=wait.asked)
            receipt = None if progress.place is None else await self._receipt(progress.place, wait)
        except BadLine as bad:
            return progress.told("stopped", bad=bad.args[0])
        except CutOff as cut:
            return progress.told("stopped", error={"code": "list_cut_off", "reason": str(cut)})
        except KeyturnError as error:
            self._parts.log.warning(UNAVAILABLE, code=error.code, reason=str(error))
            return progress.told(
                "stopped", error={"code": error.code, "reason": "nothing can be said now; go on later"}
            )
        return progress.told("done", receipt=receipt)

    async def _receipt(self, place: tuple[int, int], wait: Wait) -> dict[str, Any]:
        told, complete = await receipt_of(
            self._watch, _LANE, place, wait=wait.quorum, timeout_seconds=wait.timeout_seconds,
            appended_boottime=self._writer.begun_at(place), durability=await self._vouching.word(_LANE, place),
        )  # fmt: skip
        return told | ({"complete": complete} if wait.asked else {})


def _last_word(error: BaseException) -> dict[str, str]:
    if isinstance(error, asyncio.CancelledError):
        return {"code": "list_cut_off", "reason": "the service ends, or has no more time for this list; go on later"}
    return {"code": "server_error", "reason": "the service cannot go on with this list"}
