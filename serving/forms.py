"""Reads request bodies: one form or one JSON object, within limits, each name at most once."""

import re
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from keyturn.contract.encoding import decode_object
from keyturn.contract.errors import MalformedInput
from serving.problems import OAuthError

FORM_TYPE = "application/x-www-form-urlencoded"
JSON_TYPE = "application/json"
MOST_FIELDS = 64
LONGEST_NAME = 64
LONGEST_VALUE = 16 * 1024


_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_NO_FORM = "not a form in UTF-8 with at most 64 fields"


class Form(dict[str, str]):
    """A form's parameters; those that may repeat are in `repeated`, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.repeated: dict[str, list[str]] = {}
        self.twice: set[str] = set()
        """What stands twice and must not: the first one counts, if any does."""

    def every(self, name: str) -> tuple[str, ...]:
        """Return all values of a parameter that may repeat; of any other its one value, or none."""
        if name in self.repeated:
            return tuple(self.repeated[name])
        return (self[name],) if name in self else ()


async def read_form(request: web.Request, *, repeatable: Collection[str] = ()) -> Form:
    """Return the parameters of a form body; those without a value count as left out (RFC 6749, 3.2).

    Raises HTTPUnsupportedMediaType (415) for another content type, HTTPRequestEntityTooLarge (413), and OAuthError
    `invalid_request` for a parameter that stands twice, is too long or is not UTF-8. Nothing is read from the query.
    """
    form = await _read_body(request, repeatable)
    if form.twice:
        raise OAuthError("invalid_request", "a parameter stands twice")
    return form


async def read_parameters(request: web.Request, *, repeatable: Collection[str] = ()) -> Form:
    """Return the parameters of a request that a browser brings: of the body of a POST, else of the query.

    Raises as `read_form`, but for parameters that stand twice: whom to tell of these, the caller has to find out.
    """
    if request.method == hdrs.METH_POST:
        return await _read_body(request, repeatable)
    return _parse(request.raw_path.partition("?")[2], repeatable)


async def _read_body(request: web.Request, repeatable: Collection[str]) -> Form:
    if request.content_type != FORM_TYPE or (request.charset or "utf-8").lower() not in ("utf-8", "us-ascii"):
        raise web.HTTPUnsupportedMediaType
    return _parse((await request.read()).decode("latin-1"), repeatable)


def _parse(text: str, repeatable: Collection[str]) -> Form:
    if not text.isascii():
        raise OAuthError("invalid_request", _NO_FORM)
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=MOST_FIELDS
        )
    except ValueError:  # A UnicodeError is one.
        raise OAuthError("invalid_request", _NO_FORM) from None
    form, seen = Form(), set[str]()
    for name, value in pairs:
        if len(name) > LONGEST_NAME or len(value) > LONGEST_VALUE:
            raise OAuthError("invalid_request", "a parameter is too long")
        if name in seen and name not in repeatable:
            form.twice.add(name)
        seen.add(name)
        if value:
            form.setdefault(name, value)
            if name in repeatable:
                form.repeated.setdefault(name, []).append(value)
    return form


async def read_json(request: web.Request, *, largest_bytes: int | None = None) -> dict[str, Any]:
    """Return the JSON object of a body, `{}` for an empty one; `largest_bytes` in place of the application's limit.

    Raises HTTPUnsupportedMediaType (415), HTTPRequestEntityTooLarge (413) and MalformedInput (400).
    """
    limited = request if largest_bytes is None else request.clone(client_max_size=largest_bytes)
    body = await limited.read()
    if not body:
        return {}
    if request.content_type != JSON_TYPE or (request.charset or "utf-8").lower() != "utf-8":
        raise web.HTTPUnsupportedMediaType
    try:
        return decode_object(body)
    except MalformedInput as error:
        raise MalformedInput(f"the body is {error}") from None


def read_idempotency_key(request: web.Request) -> str | None:
    """Return the `Idempotency-Key` of a request, None without one; raises MalformedInput."""
    keys = request.headers.getall("Idempotency-Key", [])
    if not keys:
        return None
    if len(keys) > 1 or _IDEMPOTENCY_KEY.fullmatch(keys[0]) is None:
        raise MalformedInput("Idempotency-Key stands once, with 1 to 128 visible ASCII characters")
    return keys[0]
