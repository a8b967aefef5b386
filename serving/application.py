"""The HTTP application that services put their routes on: limits, headers, and one log line for each request."""

from collections.abc import Mapping
from logging import DEBUG, INFO
from typing import Any, Final

from aiohttp import hdrs, web
from structlog.typing import FilteringBoundLogger

from keyturn.clock import Clock
from keyturn.process.metrics import Metrics, Timing
from serving.problems import Style, answer_error
from serving.routing import BEGUN, LOG, OPERATIONS, UNEXPECTED, Handler, facts_of

LARGEST_BODY_BYTES = 64 * 1024
REQUEST: Final = "request"
_QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


def make_application(
    log: FilteringBoundLogger,
    *,
    clock: Clock,
    metrics: Metrics | None = None,
    largest_body_bytes: int = LARGEST_BODY_BYTES,
) -> web.Application:
    """Return an application without routes; its requests are timed in `metrics`."""
    notes = RequestNotes(log, metrics)
    app = web.Application(client_max_size=largest_body_bytes, middlewares=[_note_each(log, clock, notes)])
    app[NOTES] = notes
    app[LOG] = log
    app[OPERATIONS] = {}
    app.on_response_prepare.append(_begin_answer)
    return app


class RequestNotes:
    """Writes the one log line of a request, and counts the time that it took."""

    def __init__(self, log: FilteringBoundLogger, metrics: Metrics | None) -> None:
        self._log, self._bound = log, False
        about = "Requests by route."
        self._timed = metrics and metrics.timings("keyturn_http_request_seconds", about, labels=("path", "status"))
        self._children: dict[tuple[str, int], Timing] = {}

    def take(self, *, method: str, path: str, status: int, seconds: float, facts: Mapping[str, Any]) -> None:
        """Note one request that was answered; `path` is the route's, of which there are few."""
        timing = self.timing(path, status)
        if timing is not None:
            timing.note(seconds)
        if self.writes(path):
            self.write(method=method, path=path, status=status, seconds=seconds, facts=facts)

    def timing(self, path: str, status: int) -> Timing | None:
        """Return where the times of such answers are counted, for who has many to note; None if nowhere."""
        if not self._timed:
            return None
        child = self._children.get((path, status))
        if child is None:
            child = self._children[path, status] = self._timed.of(path, str(status))
        return child

    def writes(self, path: str) -> bool:
        """Say whether a line is written for a request to that path."""
        if not self._bound:  # Once, when logging is configured: to bind costs more than a line that is not written.
            self._log, self._bound = self._log.bind(), True
        return self._log.is_enabled_for(_level(path))

    def write(self, *, method: str, path: str, status: int, seconds: float, facts: Mapping[str, Any]) -> None:
        """Write the line of a request."""
        line = self._log.debug if _level(path) == DEBUG else self._log.info
        line(REQUEST, method=method, path=path, status=status, ms=round(seconds * 1000, 2), **facts)


def _level(path: str) -> int:
    return DEBUG if path in _QUIET_PATHS else INFO


NOTES: Final[web.AppKey[RequestNotes]] = web.AppKey("notes", RequestNotes)


def _note_each(log: FilteringBoundLogger, clock: Clock, notes: RequestNotes) -> Any:
    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = clock.boottime()
        try:
            response = await handler(request)
        except web.HTTPException as error:  # No such path or method; routes answer for themselves.
            response = answer_error(error, Style.PROBLEM)
        except Exception as error:
            log.exception(UNEXPECTED)
            response = answer_error(error, Style.PROBLEM)
        resource = request.match_info.route.resource
        notes.take(
            method=request.method if resource is not None else "?",
            path=resource.canonical if resource is not None else "?",  # Never the raw path: it may hold anything.
            status=response.status, seconds=clock.boottime() - began, facts=facts_of(request),
        )  # fmt: skip
        return response

    return answer


async def _begin_answer(request: web.Request, response: web.StreamResponse) -> None:
    request[BEGUN] = response
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.popall(hdrs.SERVER, None)
