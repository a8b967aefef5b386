"""A route: its path, how it speaks of errors, how long it may take, and what /openapi.json says of it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from aiohttp import hdrs, web
from structlog.typing import FilteringBoundLogger

from keyturn.contract.errors import KeyturnError
from keyturn.contract.inequalities import REQUEST_SECONDS
from serving.problems import OAuthError, Style, answer_error, answer_status

UNEXPECTED: Final = "unexpected_error"
UNAVAILABLE: Final = "unavailable"
OPERATIONS: Final[web.AppKey[dict[str, dict[str, "Described"]]]] = web.AppKey("operations")
LOG: Final[web.AppKey[FilteringBoundLogger]] = web.AppKey("log")
BEGUN: Final[web.RequestKey[web.StreamResponse]] = web.RequestKey("begun", web.StreamResponse)
"""The answer whose head was made; whatever happens then, there can be no other."""
_FACTS: Final[web.RequestKey[dict[str, Any]]] = web.RequestKey("facts", dict)
_IDENTITY: Final = "identity"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Described(NamedTuple):
    """A route's own words about itself, and how it speaks of errors."""

    operation: Mapping[str, Any]
    style: Style


def add_route(
    app: web.Application,
    method: str,
    path: str,
    handler: Handler,
    *,
    style: Style,
    operation: Mapping[str, Any],
    within_seconds: float = REQUEST_SECONDS,
) -> None:
    """Serve `METHOD path`: errors become answers in the route's style.

    `operation` is its OpenAPI description (`serving.openapi` has the words for it); what every route answers, such as
    503, is added there.

    A request that takes longer than `within_seconds`, its body included, is answered 503. An answer that was begun when
    an error comes is cut off, so that nobody takes it for a whole one. A body in a content coding is 415: what is small
    on the way and large here would slip past every limit.
    """

    async def handled(request: web.Request) -> web.StreamResponse:
        try:
            _refuse_coding(request)
            async with asyncio.timeout(within_seconds):
                return await handler(request)
        except TimeoutError:
            note(request, error_code="request_timeout")
            return _cut_off(request) or answer_status(503, style)
        except Exception as error:
            note(request, error_code=_named(error))
            has_gone = isinstance(error, ConnectionError) and request.transport is None  # In the middle of its body.
            answer = answer_status(400, style) if has_gone else answer_error(error, style)
            if answer.status >= 500:  # noqa: PLR2004 - ours to mend
                _log_failure(request, error, answer.status)
            return _cut_off(request) or answer

    add = app.router.add_get if method == hdrs.METH_GET else partial(app.router.add_route, method)
    resource = add(path, handled).resource
    operations = app.setdefault(OPERATIONS, {})
    described = path if resource is None else resource.canonical  # Without the patterns of its parameters.
    operations.setdefault(described, {})[method.lower()] = Described(operation, style)


def note(request: web.Request, **facts: Any) -> None:
    """Add facts to the request's log line; never a token, a secret or a key."""
    request[_FACTS] = {**facts_of(request), **facts}


def facts_of(request: web.Request) -> dict[str, Any]:
    """Return what was noted for the request's log line."""
    facts: dict[str, Any] = request.get(_FACTS, {})
    return facts


def _refuse_coding(request: web.Request) -> None:
    coding = request.headers.get(hdrs.CONTENT_ENCODING, _IDENTITY)
    if request.body_exists and coding.lower() != _IDENTITY:  # RFC 9110, 15.5.16.
        raise web.HTTPUnsupportedMediaType(headers={hdrs.ACCEPT_ENCODING: _IDENTITY})


def _cut_off(request: web.Request) -> web.StreamResponse | None:
    """End the connection under an answer that was begun, without the end of its body, and return that answer."""
    begun = request.get(BEGUN)
    if begun is not None:
        request.protocol.force_close()
    return begun


def _named(error: Exception) -> str:
    if isinstance(error, OAuthError):
        return error.error
    return error.code if isinstance(error, KeyturnError) else type(error).__name__


def _log_failure(request: web.Request, error: Exception, status: int) -> None:
    log = request.config_dict.get(LOG)
    if log is None:
        return
    if status != 500 and isinstance(error, KeyturnError):  # noqa: PLR2004 - foreseen, and it says what is amiss
        log.warning(UNAVAILABLE, code=error.code, reason=str(error))
    else:
        log.error(UNEXPECTED, exc_info=error)
