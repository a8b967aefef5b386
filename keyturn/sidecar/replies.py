"""Prepared replies: whole HTTP/1.1 responses as bytes, made once and written as often as they are needed."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

REALM = "keyturn"
RETRY_AFTER_SECONDS = 1

_IDENTITY = (
    ("X-Auth-Subject", "sub"),
    ("X-Auth-Client", "client_id"),
    ("X-Auth-Scope", "scope"),
    ("X-Auth-Issuer", "iss"),
    ("X-Auth-Token-Id", "jti"),
)
_STATE = "X-Auth-State"
IDENTITY_HEADERS = (*(header for header, _ in _IDENTITY), _STATE)
"""What every allow carries, and what a gateway must therefore strip from its clients."""

_LITERAL = frozenset(range(0x20, 0x7F)) - {ord("%")}
_SPACE = ord(" ")


def header_value(value: object) -> str:
    r"""Render a claim as a header value that no reader can take for another one.

    Visible ASCII and inner spaces stand as they are. Every other byte of the UTF-8 text is percent-encoded:
    control bytes, so that CR, LF and NUL never split a header; what is not ASCII; a space at either end, which
    readers trim (`" admin"` must not become `"admin"`); and `%` itself, so that decoding gives back the claim.
    Anything but text is unknown: an empty value.
    """
    if not isinstance(value, str):
        return ""
    raw = value.encode("utf-8", "surrogatepass")
    last = len(raw) - 1
    return "".join(
        chr(byte) if byte in _LITERAL and not (byte == _SPACE and index in (0, last)) else f"%{byte:02X}"
        for index, byte in enumerate(raw)
    )


def reply(status: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> bytes:
    """Return a whole response; the header values must be safe already (`header_value`, `challenge`)."""
    phrase = HTTPStatus(status).phrase
    lines = [f"HTTP/1.1 {status} {phrase}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def json_reply(status: int, content: object, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Return a response with a JSON body; pass a `Content-Type` to have another than `application/json`."""
    named = list(headers)
    if not any(name == "Content-Type" for name, _ in named):
        named.insert(0, ("Content-Type", "application/json"))
    return reply(status, named, msgspec.json.encode(content))


def problem(status: int, detail: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Return an error as RFC 9457 has it."""
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return json_reply(status, content, [("Content-Type", "application/problem+json"), *headers])


def allow(claims: Mapping[str, Any], *, state: str) -> bytes:
    """Return the 200 that lets a request pass: no body, all identity headers, empty where unknown."""
    identity = [(header, header_value(claims.get(claim))) for header, claim in _IDENTITY]
    return reply(200, [*identity, (_STATE, header_value(state))])


def challenge(
    *, realm: str = REALM, error: str | None = None, description: str | None = None, scope: str | None = None
) -> str:
    """Return the value of `WWW-Authenticate` for a bearer token (RFC 6750, section 3)."""
    parameters = {"realm": realm, "error": error, "error_description": description, "scope": scope}
    return "Bearer " + ", ".join(
        f'{name}="{_quotable(value)}"' for name, value in parameters.items() if value is not None
    )


def unauthorized(
    *,
    realm: str = REALM,
    error: str | None = "invalid_token",
    description: str | None = None,
    scope: str | None = None,
) -> bytes:
    """Return 401; without any token there is no `error` (RFC 6750, section 3.1): pass None."""
    return _challenged(401, challenge(realm=realm, error=error, description=description, scope=scope))


def insufficient_scope(*, realm: str = REALM, scope: str) -> bytes:
    """Return 403 for a good token that lacks a scope, and name the scope that is needed."""
    value = challenge(realm=realm, error="insufficient_scope", description="the token lacks a scope", scope=scope)
    return _challenged(403, value)


def two_tokens(*, realm: str = REALM, status: int = 400) -> bytes:
    """Return the refusal of two tokens: 400, or 401 behind nginx, which knows no 400."""
    description = "more than one token was sent"
    return _challenged(status, challenge(realm=realm, error="invalid_request", description=description))


def unavailable(*, retry_after_seconds: int = RETRY_AFTER_SECONDS) -> bytes:
    """Return 503: nothing truthful can be said now."""
    return reply(503, [("Retry-After", str(retry_after_seconds))])


def closing(prepared: bytes) -> bytes:
    """Return the same reply, saying that the connection closes after it."""
    status_line, rest = prepared.split(b"\r\n", 1)
    return status_line + b"\r\nConnection: close\r\n" + rest


def without_body(prepared: bytes) -> bytes:
    """Return the reply to HEAD: the same header section, and no body."""
    return prepared[: prepared.index(b"\r\n\r\n") + 4]


def _challenged(status: int, value: str) -> bytes:
    return reply(status, [("WWW-Authenticate", value)])


def _quotable(text: str) -> str:
    r"""Keep what RFC 6750 lets stand in `error_description`: printable ASCII but `"` and `\`."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "?" for char in text)
