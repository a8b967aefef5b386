"""What `/openapi.json` says of introspection's routes."""

from typing import Final

from introspection.batch import MOST_TOKENS
from introspection.negotiating import Rendering
from serving.forms import FORM_TYPE, JSON_TYPE, LONGEST_VALUE
from serving.openapi import OTHER_FIELDS, RESOURCE_SERVER, Schema, answer, array, body, record, text

_MOMENT: Final = {"type": "number", "description": "Unix seconds"}
_TEXT: Final = {"type": "string"}
_INACTIVE: Final = record({"active": {"const": False}})
_ACTIVE: Final = record(
    {
        "active": {"const": True},
        "token_type": {"enum": ["Bearer", "DPoP"]},
        **dict.fromkeys(("scope", "client_id", "username", "sub", "iss", "jti", "grant_id", "sid"), _TEXT),
        **dict.fromkeys(("exp", "iat", "nbf"), _MOMENT),
        "aud": {"type": ["string", "array"], "items": {"type": "string"}},
        "cnf": {"type": "object"},
    },
    optional=["scope", "username", "sub", "client_id", "nbf", "cnf", "grant_id", "sid"],
)
_JWT: Final = {"type": "string", "pattern": r"^[\w-]+\.[\w-]+\.[\w-]+$"}
_ANSWER: Final = {"oneOf": [_ACTIVE, _INACTIVE]}
_TOKEN: Final = text(LONGEST_VALUE, about="One of more than 8 KiB is inactive")
INTROSPECT: Final[Schema] = {
    "operationId": "introspect",
    "summary": "Say whether a token is active for the resource server that asks (RFC 7662)",
    "tags": ["introspection"],
    "security": RESOURCE_SERVER,
    "requestBody": body(
        FORM_TYPE,
        record(
            {
                "token": _TOKEN,
                "token_type_hint": text(
                    LONGEST_VALUE, shortest=0, about="Changes nothing: a token's form says what it is"
                ),
            },
            optional=["token_type_hint"],
            **OTHER_FIELDS,
        ),
    ),
    "responses": {
        "200": {
            "description": 'The claims of an active token, or exactly {"active":false}, in the form that Accept names',
            "content": {
                Rendering.JSON.value: {"schema": _ANSWER},
                Rendering.SIGNED.value: {"schema": {**_JWT, "description": "RFC 9701"}},
                Rendering.PHANTOM.value: {
                    "schema": {
                        **_JWT,
                        "description": "An access token in place of an opaque one; of active tokens only",
                    }
                },
            },
        },
        "406": {"description": "Nothing that Accept names is made here"},
        "501": {"description": "Nothing signed is made here: the service was told of no signer"},
    },
}
INTROSPECT_BATCH: Final[Schema] = {
    "operationId": "introspectBatch",
    "summary": "Say of each of up to 100 tokens whether it is active for the resource server that asks",
    "tags": ["introspection"],
    "security": RESOURCE_SERVER,
    "requestBody": body(JSON_TYPE, record({"tokens": array({"type": "string"}, least=1, most=MOST_TOKENS)})),
    "responses": {
        "200": answer(
            "In the order of tokens, what /introspect would answer to each",
            record({"results": array(_ANSWER, least=1, most=MOST_TOKENS)}),
        ),
        "406": {"description": "Accept leaves JSON out"},
        "503": {"description": "Nothing can be said of one of them now; try again after Retry-After"},
    },
}
