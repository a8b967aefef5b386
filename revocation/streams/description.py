"""What `/openapi.json` says of the routes of streams."""

from typing import Final

from revocation.streams.letters import MOST_AGAIN
from revocation.streams.polling import DEFAULT_MOST, LONGEST_WAIT_SECONDS, MOST_NAMED
from revocation.streams.store import MOST_DEAD_LETTERS
from revocation.streams.stream import MOST_AT_A_TIME
from serving.forms import JSON_TYPE
from serving.openapi import CLIENT, OPERATOR, Schema, answer, array, body, in_path, record, text

_COUNT: Final = {"type": "integer", "minimum": 0}
_MOMENT: Final = {"type": "number", "description": "Unix seconds"}
_TEXT: Final = {"type": "string"}
_NAME: Final = in_path("name", text(64), "The stream, as [streams.NAME] names it")
_NONE: Final = {"description": "There is no such stream, or it is another client's"}
_REFUSAL: Final = record({"err": text(1024), "description": _TEXT}, optional=["description"], closed=False)
POLL: Final[Schema] = {
    "operationId": "pollStream",
    "summary": "Fetch Security Event Tokens, and say which were taken (RFC 8936)",
    "tags": ["streams"],
    "security": CLIENT,
    "parameters": [_NAME],
    "requestBody": body(
        JSON_TYPE,
        record(
            {
                "maxEvents": {**_COUNT, "default": DEFAULT_MOST, "description": f"{MOST_AT_A_TIME} at most come"},
                "returnImmediately": {
                    "type": "boolean", "default": False,
                    "description": f"Whether not to wait, up to {LONGEST_WAIT_SECONDS:g} s, where there is none",
                },
                "ack": array(_TEXT, most=MOST_NAMED),
                "setErrs": {"type": "object", "maxProperties": MOST_NAMED, "additionalProperties": _REFUSAL},
            },
            optional=["maxEvents", "returnImmediately", "ack", "setErrs"], closed=False,
        ),
        required=False,
    ),
    "responses": {
        "200": answer(
            "The next ones by their jti, the oldest first",
            record({"sets": {"type": "object", "additionalProperties": _TEXT}, "moreAvailable": {"type": "boolean"}},
                   optional=["moreAvailable"]),
        ),
        "404": _NONE,
    },
}  # fmt: skip
_STREAM: Final = record(
    {
        "name": text(64), "delivery": {"enum": ["push", "poll"]}, "audience": _TEXT, "epoch": _COUNT,
        "sequence": _COUNT, "waiting": _COUNT, "dead": _COUNT, "trouble": _TEXT,
    },
    optional=["epoch", "sequence", "waiting", "dead", "trouble"],
)  # fmt: skip
LIST: Final[Schema] = {
    "operationId": "listStreams",
    "summary": "Say how far each stream is, and what is in its way",
    "tags": ["streams"],
    "security": OPERATOR,
    "responses": {"200": answer("All streams", record({"streams": array(_STREAM)}))},
}
_LETTER: Final = record(
    {
        "kind": {"enum": ["refused", "gap"]}, "at": _MOMENT, "jti": _TEXT, "err": _TEXT, "description": _TEXT,
        "epoch": _COUNT, "first": _COUNT, "last": {"type": ["integer", "null"]}, "reason": _TEXT,
    },
    optional=["jti", "err", "description", "epoch", "first", "last", "reason"],
)  # fmt: skip
DEAD_LETTERS: Final[Schema] = {
    "operationId": "deadLetters",
    "summary": "Say what a receiver refused, and what could not be told",
    "tags": ["streams"],
    "security": OPERATOR,
    "parameters": [_NAME],
    "responses": {
        "200": answer("The newest first", record({"dead_letters": array(_LETTER, most=MOST_DEAD_LETTERS)})),
        "404": _NONE,
    },
}
SEND_AGAIN: Final[Schema] = {
    "operationId": "sendAgain",
    "summary": "Have what a receiver refused told again",
    "tags": ["streams"],
    "security": OPERATOR,
    "parameters": [_NAME],
    "requestBody": body(
        JSON_TYPE,
        record({"jti": array(_TEXT, most=MOST_AGAIN)}, optional=["jti"]),
        required=False,
    ),
    "responses": {
        "200": answer(
            "Which are told again; how many letters are left",
            record({"sent_again": array(_TEXT, most=MOST_AGAIN), "dead": _COUNT}),
        ),
        "404": _NONE,
    },
}
