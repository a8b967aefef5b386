"""What `/openapi.json` says of the key service's routes."""

from typing import Final

from keyservice.orders import LONGEST_REASON
from keyturn.contract.keys import Phase, Use
from keyturn.contract.positions import Lane
from keyturn.feed.lines import HIGHEST_SEQUENCE
from keyturn.verifier.freshness import State
from serving.forms import JSON_TYPE
from serving.openapi import (
    EVERYBODY,
    IDEMPOTENCY_KEY,
    OPERATOR,
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

JWKS_TYPE: Final = "application/jwk-set+json"
LINES_TYPE: Final = "application/x-ndjson"
SNAPSHOT_TYPE: Final = "application/jose"
CHUNK_TYPE: Final = "application/octet-stream"
LONGEST_DIGEST: Final = 64
_KID: Final = text(256, about="The key's name, in the header of what it signs")
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_MOMENT: Final[Schema] = {"type": "number", "description": "Unix seconds"}
_MOMENT_OR_NOT_YET: Final[Schema] = {"type": ["number", "null"], "description": "Unix seconds; null: not yet"}
_USE: Final[Schema] = {"enum": list(Use)}
_PHASE: Final[Schema] = {"enum": list(Phase)}
_REASON: Final = text(LONGEST_REASON, shortest=0, about="For people; it stands in the signed event")


def _receipt(**more: Schema) -> Schema:
    """Return the schema of a receipt with the key that signs next, and more."""
    members: dict[str, Schema] = {
        "kid": {**_KID, "description": "The key that signs next"},
        "phase": {"enum": [*Phase, None], "description": "Where that key stands now; null if it is gone"},
    }
    return {"allOf": [RECEIPT, record(members | more, closed=False)]}


_TAG: Final[Schema] = {"ETag": {"required": True, "schema": {"type": "string"}}}
JWKS: Final[Schema] = {
    "operationId": "jwks",
    "summary": "The public keys (RFC 7517)",
    "tags": ["keys"],
    "security": EVERYBODY,
    "parameters": [in_header("If-None-Match", {"type": "string"}, "The ETag of the set that the caller has")],
    "responses": {
        "200": answer(
            "Every key that verifies, or will",
            record(
                {
                    "keys": array(
                        record(
                            {
                                "kty": {"enum": ["EC", "OKP", "RSA"]}, "kid": _KID, "alg": text(16),
                                "use": {"const": "sig"}, "crv": text(16), "x": text(1024), "y": text(1024),
                                "n": text(2048), "e": text(16),
                            },
                            optional=["crv", "x", "y", "n", "e"],
                        ),
                        least=1,
                    )
                }
            ),
            kind=JWKS_TYPE, headers=_TAG,
        ),
        "304": answer("The caller has it", headers=_TAG),
    },
}  # fmt: skip

_KEY: Final = record(
    {
        "kid": _KID, "alg": text(16), "use": _USE, "phase": _PHASE, "published_at": _MOMENT,
        "active_at": _MOMENT_OR_NOT_YET, "retiring_at": _MOMENT_OR_NOT_YET, "removed_at": _MOMENT_OR_NOT_YET,
        "revoked_at": _MOMENT_OR_NOT_YET, "sign_until": _MOMENT_OR_NOT_YET, "verify_until": _MOMENT_OR_NOT_YET,
        "token_seconds": {"type": "number", "description": "How long what it signs may live"},
    }
)  # fmt: skip
_REQUEST: Final = record(
    {"alg": text(16), "use": _USE, "at": _MOMENT, "not_before": _MOMENT_OR_NOT_YET, "kid": {"type": ["string", "null"]}}
)
KEYS: Final[Schema] = {
    "operationId": "listKeys",
    "summary": "Every key and its phase, and the orders that are still to be carried out",
    "tags": ["keys"],
    "security": OPERATOR,
    "responses": {
        "200": answer("By use, in order of publication", record({"keys": array(_KEY), "requests": array(_REQUEST)}))
    },
}

ROTATE: Final[Schema] = {
    "operationId": "rotate",
    "summary": "Let the next key sign, now or at a moment to come",
    "tags": ["keys"],
    "security": OPERATOR,
    "parameters": [*WAIT, IDEMPOTENCY_KEY],
    "requestBody": body(
        JSON_TYPE,
        record(
            {
                "alg": text(16, about="The first of the use's algorithms unless named"),
                "use": {**_USE, "default": Use.ACCESS},
                "reason": _REASON,
                "at": {
                    "type": ["number", "string"],
                    "description": "Not before: Unix seconds, or RFC 3339; a year away at most",
                },
            },
            optional=["alg", "use", "reason", "at"],
        ),
        required=False,
    ),
    "responses": {
        "200": answer("The key signs, and whoever was waited for holds it", _receipt()),
        "202": answer(
            "The order stands; the key signs later, or the laggards did not hold it at the timeout", _receipt()
        ),
    },
}

REVOKE_KEY: Final[Schema] = {
    "operationId": "revokeKey",
    "summary": "Reject a key by name; its successor signs at once",
    "tags": ["keys"],
    "security": OPERATOR,
    "parameters": [in_path("kid", _KID, "The key, as GET /keys names it"), *WAIT, IDEMPOTENCY_KEY],
    "requestBody": body(
        JSON_TYPE, record({"alg": text(16), "reason": _REASON}, optional=["alg", "reason"]), required=False
    ),
    "responses": {
        status: answer(
            about,
            _receipt(
                exposure=record(
                    {"push_until": _MOMENT, "pull_until": _MOMENT},
                    description="Until when a verifier that heard nothing could still accept the key",
                )
            ),
        )
        for status, about in (
            ("200", "Rejected, and whoever was waited for holds that"),
            ("202", "Rejected; the laggards did not hold that at the timeout"),
        )
    }
    | {"404": {"description": "No key has that kid"}},
}

RESEAL: Final[Schema] = {
    "operationId": "reseal",
    "summary": "Seal every private key anew by the newest key-encryption key",
    "tags": ["keys"],
    "security": OPERATOR,
    "responses": {
        status: answer(
            about,
            record(
                {
                    "kek": text(256, about="The key-encryption key that seals now"),
                    "resealed": _COUNT,
                    "left": array(_KID),
                }
            ),
        )
        for status, about in (("200", "All of them"), ("409", "All but those in `left`, which do not open"))
    },
}

_IMPORTED: Final = {
    "imported": array(record({"kid": _KID, "alg": text(16), "phase": _PHASE})),
    "left_out": array(_KID),
}
IMPORT: Final[Schema] = {
    "operationId": "importKeys",
    "summary": "Bring keys of another issuer, to verify what they signed or to sign next",
    "tags": ["keys"],
    "security": OPERATOR,
    "parameters": [*WAIT],
    "requestBody": body(
        JSON_TYPE,
        record(
            {
                "keys": array({"type": ["object", "string"], "description": "A JWK, or PEM text"}),
                "as": {"enum": ["retiring", "active"]},
                "alg": text(16),
                "kid": _KID,
                "token": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "description": "With retiring: how long their tokens live",
                },
            },
            optional=["alg", "kid", "token"],
        ),
    ),
    "responses": {
        "200": answer("They are in the set; one that is to sign does", _receipt(**_IMPORTED)),
        "202": answer(
            "They are in the set; the key signs later, or the laggards did not hold it yet", _receipt(**_IMPORTED)
        ),
    },
}

VERIFIERS: Final[Schema] = {
    "operationId": "listVerifiers",
    "summary": "Every live verifier and its positions",
    "tags": ["verifiers"],
    "security": OPERATOR,
    "responses": {
        "200": answer(
            "By what each last reported",
            record(
                {
                    "verifiers": array(
                        record(
                            {
                                "id": text(256), "keys": _COUNT, "revocations": _COUNT, "state": {"enum": list(State)},
                                "seen_ms": {"type": "number", "description": "How long ago it reported"},
                            }
                        )
                    )
                }
            ),
        )
    },
}  # fmt: skip

TRUST: Final[Schema] = {
    "operationId": "trust",
    "summary": "The signed trust document",
    "tags": ["feed"],
    "security": OPERATOR,
    "responses": {
        "200": answer("As the store has it", record({"trust": {"type": "string", "description": "A compact JWS"}}))
    },
}

_LANE: Final = in_path("lane", {"enum": list(Lane)}, "The lane")
_SEQUENCE: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": HIGHEST_SEQUENCE}
FEED: Final[Schema] = {
    "operationId": "feed",
    "summary": "The signed events of a lane",
    "tags": ["feed"],
    "security": OPERATOR,
    "parameters": [
        _LANE,
        in_query("after", {**_SEQUENCE, "default": 0}, "Begin behind this event"),
        in_query("epoch", _SEQUENCE, "The epoch, by default the one that runs"),
    ],
    "responses": {
        "200": answer(
            "One JSON object a line: lane, epoch, sequence and event, a compact JWS",
            {"type": "string"}, kind=LINES_TYPE,
            headers={"Keyturn-Epoch": {"required": True, "description": "The epoch that runs", "schema": _COUNT}},
        )
    },
}  # fmt: skip
_NOT_THERE: Final = {"description": "There is no such lane, or the store does not hold it"}
_CACHED: Final = {"Cache-Control": {"required": True, "schema": {"type": "string"}}}
SNAPSHOT: Final[Schema] = {
    "operationId": "snapshot",
    "summary": "The newest signed snapshot of a lane",
    "tags": ["feed"],
    "security": EVERYBODY,
    "parameters": [_LANE, in_header("If-None-Match", {"type": "string"}, "The ETag of the one that is held")],
    "responses": {
        "200": answer(
            "As the store has it, a compact JWS", {"type": "string"}, kind=SNAPSHOT_TYPE,
            headers={**_CACHED, "ETag": {"required": True, "schema": {"type": "string"}}},
        ),
        "304": {"description": "It is the one that is held"},
        "404": _NOT_THERE,
    },
}  # fmt: skip
CHUNK: Final[Schema] = {
    "operationId": "chunk",
    "summary": "A chunk that a snapshot names",
    "tags": ["feed"],
    "security": EVERYBODY,
    "parameters": [_LANE, in_path("digest", text(LONGEST_DIGEST), "Its SHA-256, in base64url")],
    "responses": {"200": answer("Its bytes", {"type": "string"}, kind=CHUNK_TYPE, headers=_CACHED), "404": _NOT_THERE},
}
