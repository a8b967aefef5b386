"""What `/openapi.json` says of the routes for security events of others."""

from typing import Final

from serving.forms import FORM_TYPE, LONGEST_VALUE
from serving.openapi import EVERYBODY, OTHER_FIELDS, Schema, answer, body, record, text

_REFUSED: Final = record(
    {
        "err": {
            "enum": ["invalid_request", "invalid_key", "invalid_issuer", "invalid_audience", "authentication_failed"]
        },
        "description": {"type": "string"},
    },
)
EVENTS: Final[Schema] = {
    "operationId": "takeEvent",
    "summary": "Take a Security Event Token of an issuer that settings describe (RFC 8935)",
    "tags": ["events"],
    "security": EVERYBODY,
    "requestBody": body("application/secevent+jwt", {"type": "string"}),
    "responses": {
        "202": {"description": "Taken: what it ends is durably revoked, or it ends nothing here"},
        "400": answer("Not taken (RFC 8935, 2.4)", _REFUSED),
    },
}
LOGOUT: Final[Schema] = {
    "operationId": "backchannelLogout",
    "summary": "Take a logout token of an issuer that settings describe (OpenID Connect Back-Channel Logout 1.0)",
    "tags": ["events"],
    "security": EVERYBODY,
    "requestBody": body(FORM_TYPE, record({"logout_token": text(LONGEST_VALUE)}, **OTHER_FIELDS)),
    "responses": {"200": answer("What it ends is durably revoked")},
}
