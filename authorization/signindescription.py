"""What `/openapi.json` says of signing users in."""

from typing import Final

from authorization.asking import LONGEST_SCOPE, LONGEST_TARGET
from authorization.authorizing import LONGEST_STATE
from authorization.logins import LONGEST_CHALLENGE
from keyturn.contract.redirects import LONGEST_REDIRECT
from keyturn.contract.selectors import LONGEST_VALUE
from serving.authentication import LONGEST_CLIENT_ID
from serving.forms import FORM_TYPE, JSON_TYPE
from serving.openapi import (
    EVERYBODY,
    OTHER_FIELDS,
    SIGN_IN_PAGE,
    Schema,
    answer,
    array,
    body,
    in_path,
    in_query,
    record,
    text,
)

_FIELDS: Final[dict[str, tuple[Schema, str]]] = {
    "response_type": (text(64), "`code`"),
    "client_id": (text(LONGEST_CLIENT_ID), "The client"),
    "redirect_uri": (text(LONGEST_REDIRECT), "Where the user goes back to: exactly as the root vouches for it"),
    "code_challenge": (text(128), "RFC 7636: 43 characters"),
    "code_challenge_method": (text(64), "`S256`"),
    "state": (text(LONGEST_STATE), "Comes back with the answer"),
    "scope": (text(LONGEST_SCOPE), "RFC 6749, 3.3"),
    "resource": (text(LONGEST_TARGET), "RFC 8707; may stand several times"),
    "audience": (text(LONGEST_TARGET), "Likewise, for an audience that is no URI"),
    "login_verifier": (
        text(64),
        "In place of all others: what the sign-in page was told to send the browser here with",
    ),
}
_ANSWERS: Final[dict[str, Schema]] = {
    "303": answer(
        "On to the sign-in page; or back to the client, with code, state and iss (RFC 9207) or with an error",
        headers={"Location": {"required": True, "schema": {"type": "string", "minLength": 1}}},
    ),
    "400": answer("Client or redirect URI are not right, or the sign-in is over: the person is told"),
}
AUTHORIZE: Final[Schema] = {
    "operationId": "authorize",
    "summary": "Sign a user in (RFC 6749, 4.1.1; RFC 7636)",
    "tags": ["authorization"],
    "security": EVERYBODY,
    "parameters": [in_query(name, schema, about) for name, (schema, about) in _FIELDS.items()],
    "responses": _ANSWERS,
}
AUTHORIZE_FORM: Final[Schema] = {
    "operationId": "authorizeByForm",
    "summary": "Sign a user in, as a form (RFC 6749, 3.1)",
    "tags": ["authorization"],
    "security": EVERYBODY,
    "requestBody": body(
        FORM_TYPE,
        record(
            {name: {**schema, "description": about} for name, (schema, about) in _FIELDS.items()},
            optional=list(_FIELDS),
            **OTHER_FIELDS,
        ),
    ),
    "responses": _ANSWERS,
}
_CHALLENGE: Final = in_path("challenge", text(LONGEST_CHALLENGE), "`login_challenge`, as the browser brought it")
_NO_LOGIN: Final[Schema] = {"description": "No such sign-in, or its ten minutes are over"}
SHOW_LOGIN: Final[Schema] = {
    "operationId": "showLogin",
    "summary": "Say which client asks a user for what",
    "tags": ["authorization"],
    "security": SIGN_IN_PAGE,
    "parameters": (_CHALLENGE,),
    "responses": {
        "200": answer(
            "What is asked",
            record({
                "client_id": text(LONGEST_CLIENT_ID), "scopes": array({"type": "string"}),
                "audiences": array({"type": "string"}),
            }),
        ),
        "404": _NO_LOGIN,
    },
}  # fmt: skip
_NAMED: Final = {"type": "string", "minLength": 1, "maxLength": LONGEST_VALUE}
ANSWER_LOGIN: Final[Schema] = {
    "operationId": "answerLogin",
    "summary": "Say who the user is, or that nobody signs in",
    "tags": ["authorization"],
    "security": SIGN_IN_PAGE,
    "parameters": (_CHALLENGE,),
    "requestBody": body(
        JSON_TYPE,
        {
            "oneOf": [
                record(
                    {
                        "sub": _NAMED,
                        "sid": {**_NAMED, "description": "The session at the page"},
                        "auth_time": {
                            "type": "number",
                            "exclusiveMinimum": 0,
                            "description": "Unix seconds; in the past",
                        },
                    },
                    optional=["sid", "auth_time"],
                ),
                record({"error": {"const": "access_denied"}}),
            ]
        },
    ),
    "responses": {
        "200": answer("Where to send the browser", record({"redirect_to": {"type": "string", "format": "uri"}})),
        "404": _NO_LOGIN,
    },
}
