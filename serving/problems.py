"""The one table from errors to HTTP: RFC 6749 JSON on OAuth endpoints, text for browsers, else RFC 9457 problems."""

from collections.abc import Mapping
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, NamedTuple

from aiohttp import hdrs, web

from keyturn.contract.encoding import encode_json
from keyturn.contract.errors import (
    AssertionRefused,
    FeedUnavailable,
    InvalidSelector,
    KeyturnError,
    MalformedInput,
    PositionTaken,
    ReplicaExpired,
    SignerMissing,
    SignerUnavailable,
    SigningRefused,
    StoreUnavailable,
    TrustExpired,
    Unconfirmed,
    WrapperUnavailable,
)

REALM = "keyturn"
RETRY_AFTER_SECONDS = 1
PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
"""What keeps a page from being framed, from running anything, and from telling others its address."""
NO_STORE: Mapping[str, str] = {hdrs.CACHE_CONTROL: "no-store", hdrs.PRAGMA: "no-cache"}
_NONE: Mapping[str, str] = {}
_RETRY: Mapping[str, str] = {hdrs.RETRY_AFTER: str(RETRY_AFTER_SECONDS)}
_KEPT = (hdrs.ALLOW, hdrs.RETRY_AFTER, hdrs.ACCEPT_ENCODING)  # Of the frame's own errors.
_BASIC_CHALLENGE = f'Basic realm="{REALM}", charset="UTF-8"'
_UNQUOTABLE = str.maketrans({'"': "'", "\\": "/"})


class Style(Enum):
    """How a route speaks of errors."""

    OAUTH = auto()  # RFC 6749, 5.2.
    PROBLEM = auto()  # RFC 9457.
    PAGE = auto()  # Plain text, for the person whose browser it is.


class OAuthError(KeyturnError):
    """An error that an OAuth endpoint answers with (RFC 6749, 5.2); `basic` if the client tried HTTP Basic."""

    code = "oauth"

    def __init__(
        self, error: str, description: str = "", *, status: int = 400, basic: bool = False, retry_after_seconds: int = 0
    ) -> None:
        super().__init__(f"{error}: {description}" if description else error)
        self.error, self.description, self.status, self.basic = error, description, status, basic
        self.retry_after_seconds = retry_after_seconds


class BearerError(KeyturnError):
    """A bearer token that is missing, not good or not enough (RFC 6750, 3.1)."""

    code = "bearer"

    def __init__(
        self, error: str, description: str = "", *, status: int = 401, scope: str = "", retry_after_seconds: int = 0
    ) -> None:
        super().__init__(f"{error}: {description}" if description else error or "no bearer token")
        self.error, self.description, self.status, self.scope = error, description, status, scope
        self.retry_after_seconds = retry_after_seconds


class NotFound(KeyturnError):
    """What the path names is not there."""

    code = "not_found"


class KeyReused(KeyturnError):
    """An idempotency key that came with another body before; nothing was done."""

    code = "idempotency_key_reused"


class Busy(KeyturnError):
    """A bounded queue is full: nothing was done, and later it may be."""

    code = "busy"


class _Row(NamedTuple):
    status: int
    oauth: str  # The RFC 6749 error code on OAuth endpoints.


_UNAVAILABLE = _Row(503, "temporarily_unavailable")
_BAD_REQUEST = _Row(400, "invalid_request")
_TABLE: Mapping[type[KeyturnError], _Row] = {
    FeedUnavailable: _UNAVAILABLE,
    PositionTaken: _UNAVAILABLE,
    StoreUnavailable: _UNAVAILABLE,
    SignerUnavailable: _UNAVAILABLE,
    WrapperUnavailable: _UNAVAILABLE,
    ReplicaExpired: _UNAVAILABLE,
    TrustExpired: _UNAVAILABLE,
    Busy: _UNAVAILABLE,
    InvalidSelector: _BAD_REQUEST,
    MalformedInput: _BAD_REQUEST,
    NotFound: _Row(404, "invalid_request"),
    KeyReused: _Row(422, "invalid_request"),
    AssertionRefused: _Row(401, "invalid_client"),
    SigningRefused: _Row(403, "access_denied"),
    SignerMissing: _Row(501, "server_error"),
}


def answer_error(error: Exception, style: Style) -> web.Response:
    """Return the answer to an error; what is not in the table is a 500 that says nothing but `server_error`."""
    match error:
        case OAuthError():
            return _oauth_error(error, style)
        case BearerError():
            return _bearer_error(error, style)
        case web.HTTPException():
            return _http_error(error, style)
        case KeyturnError():
            row = next((_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE), None)
            if row is not None:
                unavailable = row.status == HTTPStatus.SERVICE_UNAVAILABLE
                # Reasons of an outage are the operator's: the log has them. What was done all the same is the caller's.
                told = "" if unavailable and not isinstance(error, Unconfirmed) else str(error)
                return _render(row, error.code, told, style, _RETRY if unavailable else _NONE)
    return _render(_Row(500, "server_error"), "server_error", "", style)


def answer_status(
    status: int, style: Style, detail: str = "", headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return the answer for a bare HTTP status, such as 405 or 413."""
    phrase = HTTPStatus(status).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    oauth = "server_error" if status == HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request"
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        oauth, headers = "temporarily_unavailable", {**_RETRY, **(headers or {})}
    return _render(_Row(status, oauth), code, detail, style, headers or _NONE)


def json_answer(
    content: object, *, status: int = 200, headers: Mapping[str, str] | None = None, kind: str = "application/json"
) -> web.Response:
    """Return a JSON answer that no cache keeps, unless `headers` say otherwise."""
    return web.Response(body=encode_json(content), status=status, headers={**NO_STORE, **(headers or {})},
                        content_type=kind)  # fmt: skip


def _oauth_error(error: OAuthError, style: Style) -> web.Response:
    challenged = error.basic and error.status == HTTPStatus.UNAUTHORIZED
    challenge: dict[str, str] = {hdrs.WWW_AUTHENTICATE: _BASIC_CHALLENGE} if challenged else {}
    headers = challenge | _retry_after(error.retry_after_seconds)
    return _render(_Row(error.status, error.error), error.error, error.description, style, headers)


def _retry_after(seconds: int) -> dict[str, str]:
    return {hdrs.RETRY_AFTER: str(seconds)} if seconds else {}


def _bearer_error(error: BearerError, style: Style) -> web.Response:
    parts = [f'realm="{REALM}"']
    for name, value in (("error", error.error), ("error_description", error.description), ("scope", error.scope)):
        if value:
            parts.append(f'{name}="{value.translate(_UNQUOTABLE)}"')
    challenge = {hdrs.WWW_AUTHENTICATE: f"Bearer {', '.join(parts)}"} | _retry_after(error.retry_after_seconds)
    code = error.error or "unauthorized"
    return _render(_Row(error.status, error.error or "invalid_token"), code, error.description, style, challenge)


def _http_error(error: web.HTTPException, style: Style) -> web.Response:
    headers = {str(name): error.headers[name] for name in _KEPT if name in error.headers}
    return answer_status(error.status, style, headers=headers)


def _render(row: _Row, code: str, detail: str, style: Style, headers: Mapping[str, str] = _NONE) -> web.Response:
    content: dict[str, Any]
    if style is Style.PAGE:
        told = f"{HTTPStatus(row.status).phrase}: {detail}\n" if detail else f"{HTTPStatus(row.status).phrase}\n"
        return web.Response(text=told, status=row.status, headers={**NO_STORE, **PAGE_HEADERS, **headers})
    if style is Style.OAUTH:
        content = {"error": row.oauth}
        if detail:
            content["error_description"] = _printable(detail)
        return json_answer(content, status=row.status, headers=headers)
    content = {"type": "about:blank", "title": HTTPStatus(row.status).phrase, "status": row.status, "code": code}
    if detail:
        content["detail"] = detail
    return json_answer(content, status=row.status, headers=headers, kind="application/problem+json")


def _printable(text: str) -> str:
    """Keep to the characters that an error_description may have (RFC 6749, 5.2)."""
    return "".join(one if " " <= one <= "~" else "?" for one in text.translate(_UNQUOTABLE))
