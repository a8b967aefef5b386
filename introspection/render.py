"""Renders a verdict for the resource server that asked, as the RFC 7662 object that every form of answer says."""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from keyturn.contract.encoding import encode_json
from keyturn.verifier.verdict import Kind, Verdict
from serving.families import REFRESH, TOKEN_USE
from serving.problems import NO_STORE, Style, answer_status

JSON: Final = "application/json"
INACTIVE: Final = encode_json({"active": False})
# RFC 7662, 2.2, and `cnf` (RFC 8705, RFC 9449); `grant_id` and `sid`, so that an operator can revoke what he sees.
MEMBERS: Final = (
    "scope", "client_id", "username", "exp", "iat", "nbf", "sub", "aud", "iss", "jti", "cnf", "grant_id", "sid",
)  # fmt: skip
_KEPT_AS: Final = "rfc7662"


def render(verdict: Verdict) -> web.Response:
    """Return the answer to one question: 503 where nothing could be said, the same bytes for every inactive token."""
    if verdict.kind is Kind.UNKNOWN:
        return answer_status(503, Style.OAUTH)
    return web.Response(body=as_json(verdict), headers=NO_STORE, content_type=JSON)


def as_json(verdict: Verdict) -> bytes:
    """Return the RFC 7662 object of an active or inactive verdict; kept with the verdict, which may be cached."""
    if verdict.kind is not Kind.ACTIVE:
        return INACTIVE
    kept = verdict.rendered.get(_KEPT_AS)
    if kept is None:
        kept = verdict.rendered[_KEPT_AS] = encode_json(content(verdict))
    return kept


def content(verdict: Verdict) -> dict[str, Any]:
    """Return the members of an active token's introspection response."""
    claims = verdict.claims
    known = {name: claims[name] for name in MEMBERS if name in claims}
    if claims.get(TOKEN_USE) == REFRESH:  # `token_type` is of access tokens (RFC 6749, 5.1 and 7.1).
        return {"active": True, **known}
    return {"active": True, "token_type": _token_type(claims.get("cnf")), **known}


def _token_type(confirmation: object) -> str:
    """Return how the token is to be presented: bound to a key of DPoP's (RFC 9449, 6.2), else as a bearer."""
    return "DPoP" if isinstance(confirmation, Mapping) and "jkt" in confirmation else "Bearer"
