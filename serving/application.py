"""The HTTP application that services put their routes on: limits, headers, and one log line for each request."""

from typing import Any, Final

from aiohttp import hdrs, web
from structlog.typing import FilteringBoundLogger

from keyturn.clock import Clock
from serving.problems import Style, answer_error
from serving.routing import LOG, OPERATIONS, UNEXPECTED, Handler, facts_of

LARGEST_BODY_BYTES = 64 * 1024
REQUEST: Final = "request"
_QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


def make_application(log: FilteringBoundLogger, *, clock: Clock) -> web.Application:
    """Return an application without routes."""
    app = web.Application(client_max_size=LARGEST_BODY_BYTES, middlewares=[_log_each(log, clock)])
    app[LOG] = log
    app[OPERATIONS] = {}
    app.on_response_prepare.append(_finish_headers)
    return app


def _log_each(log: FilteringBoundLogger, clock: Clock) -> Any:
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
        path = resource.canonical if resource is not None else "?"  # Never the raw path: it may hold anything.
        line = log.debug if path in _QUIET_PATHS else log.info
        line(
            REQUEST, method=request.method if resource is not None else "?", path=path, status=response.status,
            ms=round((clock.boottime() - began) * 1000, 2), **facts_of(request),
        )  # fmt: skip
        return response

    return answer


async def _finish_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.popall(hdrs.SERVER, None)
