"""The HTTP application that services put their routes on: limits, headers, and one log line for each request."""

from typing import Any, Final

from aiohttp import hdrs, web
from structlog.typing import FilteringBoundLogger

from keyturn.clock import Clock
from keyturn.process.metrics import Metrics
from serving.problems import Style, answer_error
from serving.routing import LOG, OPERATIONS, UNEXPECTED, Handler, facts_of

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
    app = web.Application(client_max_size=largest_body_bytes, middlewares=[_note_each(log, clock, metrics)])
    app[LOG] = log
    app[OPERATIONS] = {}
    app.on_response_prepare.append(_finish_headers)
    return app


def _note_each(log: FilteringBoundLogger, clock: Clock, metrics: Metrics | None) -> Any:
    timed = metrics and metrics.histogram(
        "keyturn_http_request_seconds", "Requests by route.", labels=("path", "status")
    )

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
        seconds = clock.boottime() - began
        resource = request.match_info.route.resource
        path = resource.canonical if resource is not None else "?"  # Never the raw path: it may hold anything.
        if timed:
            timed.labels(path, str(response.status)).observe(seconds)
        line = log.debug if path in _QUIET_PATHS else log.info
        method = request.method if resource is not None else "?"
        line(
            REQUEST, method=method, path=path, status=response.status, ms=round(seconds * 1000, 2), **facts_of(request)
        )
        return response

    return answer


async def _finish_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.popall(hdrs.SERVER, None)
