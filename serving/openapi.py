"""What `/openapi.json` says (OpenAPI 3.1): the words in which routes describe themselves, and the whole of them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from aiohttp import web

from serving.forms import JSON_TYPE, LONGEST_NAME, LONGEST_VALUE, MOST_FIELDS
from serving.problems import Style
from serving.receipts import DEFAULT_WAIT_SECONDS, LONGEST_WAIT_SECONDS, Quorum
from serving.routing import OPERATIONS, Described

OPENAPI: Final = "3.1.0"
PROBLEM_TYPE: Final = "application/problem+json"
PAGE_TYPE: Final = "text/plain"
Schema: TypeAlias = Mapping[str, Any]


def text(longest: int, *, shortest: int = 1, about: str = "", **more: Any) -> Schema:
    """Return the schema of a string of so many characters."""
    told = {"description": about} if about else {}
    return {"type": "string", "minLength": shortest, "maxLength": longest, **told, **more}


CLIENT: Final[Sequence[Schema]] = ({"client": []},)
"""The security of a route for OAuth clients."""
RESOURCE_SERVER: Final[Sequence[Schema]] = ({"resourceServer": []}, {"introspectionToken": []})
"""The security of a route for clients that may introspect."""
OPERATOR: Final[Sequence[Schema]] = ({"operator": []},)
"""The security of a route for operators."""
SIGN_IN_PAGE: Final[Sequence[Schema]] = ({"signInPage": []},)
"""The security of a route for the page where users sign in."""
EVERYBODY: Final[Sequence[Schema]] = ()
"""The security of a route that asks nobody who he is."""

OTHER_FIELDS: Final[Schema] = {
    "additionalProperties": text(LONGEST_VALUE, shortest=0),
    "propertyNames": {"maxLength": LONGEST_NAME},
    "maxProperties": MOST_FIELDS,
}
"""What else a form may have: parameters that nobody knows are ignored (RFC 6749, 3.2), but each stands at most once."""
RECEIPT: Final[Schema] = {"$ref": "#/components/schemas/Receipt"}
_ERRORS: Final[Mapping[Style, tuple[str, str]]] = {
    Style.OAUTH: (JSON_TYPE, "OAuthError"),
    Style.PROBLEM: (PROBLEM_TYPE, "Problem"),
    Style.PAGE: (PAGE_TYPE, "Page"),
}
_BY_HTTP: Final[Mapping[str, str]] = {
    "400": "The request is not what this route takes",
    "413": "The body is too large",
    "415": "The body has another content type, or a content coding",
    "431": "A header field is too large, or there are too many",
    "503": "Nothing can be said now, which means neither yes nor no; try again after Retry-After",
}
_BEFORE_ROUTES: Final = "431"  # Answered before it is known which route was meant.
_OF_BODIES: Final = frozenset({"413", "415"})
_BY_SECURITY: Final[Mapping[str, Mapping[str, str]]] = {
    "client": {"401": "invalid_client: no such client, or not proved to be it"},
    "resourceServer": {"401": "invalid_client: not a client that may introspect, or not proved to be it"},
    "operator": {"401": "No token of an operator", "403": "A token of another scope"},
    "signInPage": {"401": "No token of a sign-in page", "403": "A token of another scope"},
}


def record(
    properties: Mapping[str, Schema], *, optional: Sequence[str] = (), closed: bool = True, **more: Any
) -> Schema:
    """Return the schema of an object whose members are all required but for `optional`; `closed` allows no others."""
    required = [name for name in properties if name not in optional]
    told = {"type": "object", "properties": dict(properties), **({"required": required} if required else {})}
    return told | ({"additionalProperties": False} if closed else {}) | more


def array(items: Schema, *, most: int | None = None, least: int = 0) -> Schema:
    """Return the schema of a list."""
    limit = {} if most is None else {"maxItems": most}
    return {"type": "array", "items": items, **limit, **({"minItems": least} if least else {})}


def body(kind: str, schema: Schema, *, required: bool = True) -> Schema:
    """Return what a route takes as its body."""
    return {"required": required, "content": {kind: {"schema": schema}}}


def answer(about: str, schema: Schema | None = None, *, kind: str = JSON_TYPE, **more: Any) -> Schema:
    """Return one answer of a route; without a schema it has no body."""
    content = {} if schema is None else {"content": {kind: {"schema": schema}}}
    return {"description": about, **content, **more}


def in_query(name: str, schema: Schema, about: str) -> Schema:
    """Return a parameter of the query, which may be left out."""
    return {"name": name, "in": "query", "required": False, "description": about, "schema": schema}


def in_path(name: str, schema: Schema, about: str) -> Schema:
    """Return a parameter of the path."""
    return {"name": name, "in": "path", "required": True, "description": about, "schema": schema}


def in_header(name: str, schema: Schema, about: str) -> Schema:
    """Return a header field, which may be left out."""
    return {"name": name, "in": "header", "required": False, "description": about, "schema": schema}


def describe(app: web.Application, names: Sequence[str]) -> dict[str, Any]:
    """Return the description of all routes of an application that serves the services of these names."""
    paths = {
        path: {method: _whole(described) for method, described in methods.items()}
        for path, methods in app[OPERATIONS].items()
    }
    info = {"title": f"Keyturn: {', '.join(names)}", "version": "1", "license": {"name": "Apache-2.0"}}
    return {"openapi": OPENAPI, "info": info, "paths": paths, "components": _COMPONENTS}


def _whole(described: Described) -> dict[str, Any]:
    """Add to a route's own words what it answers because of what all routes share."""
    operation = {"responses": {}, **described.operation}
    told = dict(_BY_HTTP)
    if "requestBody" not in operation:
        told = {status: about for status, about in told.items() if status not in _OF_BODIES}
    for requirement in operation.get("security", ()):
        for scheme in requirement:
            told |= _BY_SECURITY.get(scheme, {})
    own = {status: dict(one) for status, one in operation["responses"].items()}
    answers = {status: {"description": about} for status, about in told.items()} | own
    return operation | {
        "responses": {status: _told(status, answers[status], described.style) for status in sorted(answers)}
    }


def _told(status: str, one: Mapping[str, Any], style: Style) -> dict[str, Any]:
    """Add the body of an error, as the route speaks of them, and the headers that always come with it."""
    if status < "400":
        return dict(one)
    kind, name = _ERRORS[Style.PROBLEM if status == _BEFORE_ROUTES else style]
    shared: dict[str, Any] = {"content": {kind: {"schema": {"$ref": f"#/components/schemas/{name}"}}}}
    headers = dict(one.get("headers", {}))
    if status == "503":
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if status == "401" and style is Style.PROBLEM:
        headers["WWW-Authenticate"] = {"$ref": "#/components/headers/Challenge"}
    return {**shared, **one, **({"headers": headers} if headers else {})}


_ERROR_TEXT: Final = {"type": "string", "pattern": r"^[ !#-\[\]-~]*$"}  # RFC 6749, 5.2.
_MILLISECONDS: Final = {"type": ["number", "null"], "minimum": 0}
_COUNT: Final = {"type": "integer", "minimum": 0}
_CLIENTS: Final = (
    "client_secret_basic (RFC 6749, 2.3.1), id and secret each form-encoded. "
    "Instead of the header, client_id and client_secret may stand in the form, or client_assertion and "
    "client_assertion_type (private_key_jwt, RFC 7523)."
)
_COMPONENTS: Final[Schema] = {
    "schemas": {
        "OAuthError": record(
            {"error": {**_ERROR_TEXT, "minLength": 1}, "error_description": _ERROR_TEXT},
            optional=["error_description"],
            description="RFC 6749, 5.2",
        ),
        "Problem": record(
            {
                "type": {"const": "about:blank"},
                "title": text(200),
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "code": text(64, about="Stable: what programs compare"),
                "detail": text(2000, about="For people"),
            },
            optional=["detail"],
            description="RFC 9457",
        ),
        "Page": text(1000, about="For the person whose browser it is"),
        "Receipt": record(
            {
                "lane": {"enum": ["keys", "revocations"]},
                "epoch": {"type": "integer", "minimum": 1},
                "sequence": _COUNT,
                "durability": {"enum": ["replicated", "local", "memory"]},
                "adopted": {**_COUNT, "description": "Live verifiers that hold the event"},
                "live": {**_COUNT, "description": "Live verifiers"},
                "slowest_ms": {**_MILLISECONDS, "description": "The last adopter's, of adopted_ms"},
                "adopted_ms": {
                    "type": "object",
                    "additionalProperties": _MILLISECONDS,
                    "description": "By verifier, when its word arrived, after the event was begun",
                },
                "status_list": {
                    "type": "boolean",
                    "description": "Whether status lists show a revocation that POST /revocations ordered",
                },
                "laggards": array(text(256, about="A live verifier that has not said yet that it holds it")),
            },
            optional=["status_list"],
            closed=False,
            description="Where an event stands, how durable it is, and which verifiers hold it",
        ),
    },
    "headers": {
        "RetryAfter": {
            "description": "Seconds to wait before asking again",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        },
        "Challenge": {"description": "RFC 6750, 3", "required": True, "schema": {"type": "string", "minLength": 1}},
    },
    "securitySchemes": {
        "client": {"type": "http", "scheme": "basic", "description": f"An OAuth client: {_CLIENTS}"},
        "resourceServer": {"type": "http", "scheme": "basic", "description": f"A resource server: {_CLIENTS}"},
        "introspectionToken": {
            "type": "http",
            "scheme": "bearer",
            "description": "An access token of a resource server, of scope introspection, whose aud is the issuer",
        },
        "operator": {
            "type": "http",
            "scheme": "bearer",
            "description": "An opaque access token of scope keyturn:admin (RFC 6750)",
        },
        "signInPage": {
            "type": "http",
            "scheme": "bearer",
            "description": "An opaque access token of scope keyturn:login (RFC 6750)",
        },
    },
}


WAIT: Final = (
    in_query(
        "wait",
        {"enum": [Quorum.ALL, Quorum.MOST]},
        "Answer once all live verifiers hold it, or more than half of them; or at the timeout (202)",
    ),
    in_query(
        "timeout",
        {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT_SECONDS, "default": DEFAULT_WAIT_SECONDS},
        "How many seconds to wait at most",
    ),
)
IDEMPOTENCY_KEY: Final = in_header(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[!-~]{1,128}$"},
    "By it an order that is repeated is recognised, and carried out once",
)
