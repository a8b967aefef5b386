"""What `/openapi.json` says of revocation's routes."""

from collections.abc import Sequence
from typing import Final

from keyturn.contract.selectors import LONGEST_VALUE as LONGEST_NAMED
from keyturn.contract.selectors import SelectorKind
from keyturn.contract.statuslists import MEDIA_TYPE
from serving.forms import FORM_TYPE, JSON_TYPE, LONGEST_VALUE
from serving.openapi import (
    CLIENT,
    EVERYBODY,
    IDEMPOTENCY_KEY,
    OPERATOR,
    OTHER_FIELDS,
    RECEIPT,
    WAIT,
    Schema,
    answer,
    array,
    body,
    in_header,
    in_path,
    in_query,
    record,
    text,
)

LONGEST_REASON: Final = 200
MOST_LINES: Final = 10_000_000  # Of a list.
MOST_DIGITS: Final = 15  # Of a sequence: a number that JSON carries exactly.
_ADOPTION: Final = {
    "adoption": {
        "operationId": "adoption",
        "parameters": {"seq": "$response.body#/sequence"},
        "description": "Who holds it later",
    }
}
_NOT_ALL: Final = answer("It is durable; the laggards did not hold it at the timeout", RECEIPT, links=_ADOPTION)

REVOKE: Final[Schema] = {
    "operationId": "revoke",
    "summary": "Revoke a token for the client that it was issued to (RFC 7009)",
    "tags": ["revocation"],
    "security": CLIENT,
    "parameters": WAIT,
    "requestBody": body(
        FORM_TYPE,
        record(
            {
                "token": text(LONGEST_VALUE),
                "token_type_hint": text(
                    LONGEST_VALUE, shortest=0, about="Changes nothing: a token's form says what it is"
                ),
            },
            optional=["token_type_hint"],
            **OTHER_FIELDS,
        ),
    ),
    "responses": {
        "200": answer("Durable, or there was nothing left to revoke. With wait the body is a receipt, as with 202."),
        "202": _NOT_ALL,
        "400": {"description": "invalid_request, or invalid_grant: the token was issued to another client"},
    },
}


def _selector(kind: SelectorKind, issuers: Sequence[str], *, cutoff: bool) -> Schema:
    named: dict[str, Schema] = {} if kind is SelectorKind.ALL else {kind.value: text(LONGEST_NAMED)}
    before: Schema = {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1e11,
        "description": "Unix seconds, not later than now; what was granted before is revoked",
    }
    # Only our tokens name their grant.
    issuer: Schema = {"enum": [*(issuers[:1] if kind is SelectorKind.GRANT else issuers)], "default": issuers[0]}
    properties = named | ({"before": before} if cutoff else {}) | {"iss": issuer}
    return record(properties, optional=["iss", *(["before"] if named else [])])


_EXACT: Final = (SelectorKind.JTI, SelectorKind.GRANT, SelectorKind.SESSION)
_NUMBER_FOUND: Final = {"type": "integer", "minimum": 0}
_SHOWN: Final = record(
    {
        "dry_run": {"const": True},
        "lane": {"const": "revocations"},
        "selector": {"type": "object"},
        "until": {"type": "number"},
        "grants": {**_NUMBER_FOUND, "description": "Live sign-ins with opaque tokens that it would end"},
        "records": {**_NUMBER_FOUND, "description": "Live opaque tokens that it would end; JWTs are recorded nowhere"},
        "scanned": {**_NUMBER_FOUND, "description": "Records that were looked at"},
        "complete": {"type": "boolean", "description": "Whether those were all, within the limits of time and number"},
    },
    closed=False,
)
ADOPTION: Final[Schema] = {
    "operationId": "adoption",
    "summary": "Say who holds a revocation of the running epoch by now",
    "tags": ["revocation"],
    "security": OPERATOR,
    "parameters": [
        in_path(
            "seq", {"type": "integer", "minimum": 0, "maximum": 10**MOST_DIGITS - 1}, "The sequence of its receipt"
        ),
    ],
    "responses": {
        "200": answer("Its receipt, as it stands now", RECEIPT),
        "404": {"description": "The running epoch has no such event"},
    },
}


def revoke_selected(issuers: Sequence[str]) -> Schema:
    """Return what is said of `POST /revocations`, which takes selectors of these issuers, the first unless named."""
    selector = {"oneOf": [_selector(kind, issuers, cutoff=kind not in _EXACT) for kind in SelectorKind]}
    return {
    "operationId": "revokeSelected",
    "summary": "Revoke all that a selector names",
    "tags": ["revocation"],
    "security": OPERATOR,
    "parameters": [*WAIT, IDEMPOTENCY_KEY],
    "requestBody": body(
        JSON_TYPE,
        record(
            {
                "selector": selector,
                "reason": text(LONGEST_REASON, shortest=0),
                "dry_run": {"type": "boolean", "default": False},
            },
            optional=["reason", "dry_run"],
        ),
    ),
    "responses": {
        "200": answer(
            "The receipt of a durable revocation; with dry_run what it would be", {"anyOf": [RECEIPT, _SHOWN]},
            links=_ADOPTION,
        ),
        "202": _NOT_ALL,
        "422": {"description": "The Idempotency-Key came with another body before; nothing was done"},
    },
}  # fmt: skip


def _caching(about: str) -> Schema:
    headers = {"Cache-Control": {"description": "public, and max-age", "required": True, "schema": text(200)}}
    return {"description": about, "headers": headers}


STATUS_LISTS: Final[Schema] = {
    "operationId": "statusLists",
    "summary": "Say where all status lists are (draft-ietf-oauth-status-list, 9)",
    "tags": ["status lists"],
    "security": EVERYBODY,
    "responses": {
        "200": answer("All lists of live tokens", record({"status_lists": array(text(2048))})),
        "404": {"description": "No lists are kept: statuslists.enabled is off"},
    },
}
STATUS_LIST: Final[Schema] = {
    "operationId": "statusList",
    "summary": "Return a Status List Token as it stands (draft-ietf-oauth-status-list, 8)",
    "tags": ["status lists"],
    "security": EVERYBODY,
    "parameters": [
        in_path("id", text(64), "The last part of the uri in a token's status claim"),
        in_header("If-None-Match", {"type": "string"}, "The ETag of a list that the caller has"),
    ],
    "responses": {
        "200": {**answer("The list, a JWT", text(500_000), kind=MEDIA_TYPE), **_caching("The list, a JWT")},
        "304": _caching("The caller has it"),
        "404": {"description": "No live token names such a list"},
        "406": {"description": "Accept leaves no room for the JWT format"},
        "501": {"description": "`time` asks for the past, which is not kept; or the service was told of no signer"},
    },
}

REVOKE_LIST: Final[Schema] = {
    "operationId": "revokeList",
    "summary": "Revoke all that a list of selectors names, one JSON object a line",
    "tags": ["revocation"],
    "security": OPERATOR,
    "parameters": [
        in_query(
            "from_line",
            {"type": "integer", "minimum": 1, "maximum": 10_000_000},
            "The number of the first line: where to go on",
        ),
        in_query("on_bad", {"enum": ["stop", "skip"]}, "What to do about a line that is no selector"),
        in_query(
            "before",
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e11},
            "The moment of cutoffs that name none, in Unix seconds, not later than now",
        ),
        *WAIT,
    ],
    "requestBody": body("application/x-ndjson", {"description": "A selector a line, as POST /revocations takes it"}),
    "responses": {
        "200": answer(
            "One JSON object a line, while the list is read; the last has status done or stopped",
            {"description": "status, line, accepted, skipped, epoch, sequence, and what the status brings along"},
            kind="application/x-ndjson",
        ),
    },
}
