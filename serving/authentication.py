"""Who asks: an OAuth client by its secret (RFC 6749, 2.3), or an operator by an opaque admin token (RFC 6750)."""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from aiohttp import hdrs, web

from keyturn.contract.credentials import CredentialKind, credential_kind, secret_hash, secret_matches
from keyturn.contract.errors import ReplicaExpired
from keyturn.contract.trust import Client
from keyturn.verifier.replica import Replica
from serving.parts import Parts
from serving.problems import BearerError, OAuthError
from serving.records import RecordStore

ADMIN_SCOPE = "keyturn:admin"
AUTHENTICATION_METHODS = ("client_secret_basic", "client_secret_post")
LONGEST_CLIENT_ID = 256
LONGEST_SECRET = 512
_NOBODY = Client(secret_hash=secret_hash(""))


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated client, and how it proved who it is."""

    client_id: str
    client: Client
    method: str


def authenticate_client(request: web.Request, form: Mapping[str, str], replica: Replica) -> Caller:
    """Return the client that sends this request, proved by HTTP Basic or by `client_secret` in the form.

    Raises OAuthError: 400 `invalid_request` for two methods at once, 401 `invalid_client` for everything else,
    whether the client is unknown, public or has another secret. Raises ReplicaExpired while no trust document is held.
    """
    headers = request.headers.getall(hdrs.AUTHORIZATION, [])
    tried_header = bool(headers)
    if len(headers) > 1 or (tried_header and "client_secret" in form):
        raise OAuthError("invalid_request", "authenticate in one way, not in two")
    if "client_assertion" in form or "client_assertion_type" in form:
        raise OAuthError("invalid_client", "client assertions are not supported", status=401, basic=tried_header)
    if tried_header:
        client_id, secret = _read_basic(headers[0])
        if form.get("client_id", client_id) != client_id:
            raise OAuthError("invalid_request", "client_id is not the client that authenticates")
        method = "client_secret_basic"
    else:
        client_id, secret, method = form.get("client_id", ""), form.get("client_secret", ""), "client_secret_post"
    if replica.trust.version == 0:
        raise ReplicaExpired("no trust document has been read yet", silence_seconds=float("inf"))
    client = replica.trust.document.clients.get(client_id)
    # An unknown client costs the same comparison as a known one.
    proved = secret_matches(secret[: LONGEST_SECRET + 1], (client or _NOBODY).secret_hash or _NOBODY.secret_hash)
    if client is None or not client.secret_hash or not secret or not proved or len(client_id) > LONGEST_CLIENT_ID:
        raise OAuthError("invalid_client", "no such client, or not its secret", status=401, basic=tried_header)
    return Caller(client_id, client, method)


def _read_basic(value: str) -> tuple[str, str]:
    """Return id and secret of an HTTP Basic header, each form-decoded (RFC 6749, 2.3.1)."""
    scheme, _, encoded = value.partition(" ")
    try:
        client_id, colon, secret = b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        if scheme.lower() == "basic" and colon:
            return unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except ValueError:  # Neither base64 nor UTF-8; what was sent stays out of every message.
        pass
    raise OAuthError("invalid_client", "not HTTP Basic", status=401, basic=True)


async def require_admin(request: web.Request, records: RecordStore, parts: Parts) -> dict[str, Any]:
    """Return the claims of the opaque token, of scope `keyturn:admin`, by which an operator asks.

    Raises BearerError (401, 403), ReplicaExpired or StoreUnavailable where nothing can be said (503).
    """
    token = _read_bearer(request)
    parts.require_replica()
    if credential_kind(token) is not CredentialKind.ACCESS:
        raise BearerError("invalid_token", "not an opaque access token")
    reading = await records.read(token)
    await parts.reach(reading.positions)
    parts.require_replica()
    claims = reading.record
    now, replica = parts.clock.now(), parts.replica
    expired = claims is None or claims.get("iss") != replica.issuer or now >= claims.get("exp", 0)
    if claims is None or expired or replica.revokes(replica.names(claims)):
        raise BearerError("invalid_token", "expired, revoked or unknown")
    client = replica.trust.document.clients.get(str(claims.get("client_id")))
    if client is None or ADMIN_SCOPE not in client.scopes:
        raise BearerError("invalid_token", "its client is gone")
    if ADMIN_SCOPE not in str(claims.get("scope", "")).split(" "):
        raise BearerError("insufficient_scope", "operators only", status=403, scope=ADMIN_SCOPE)
    return claims


def _read_bearer(request: web.Request) -> str:
    headers = request.headers.getall(hdrs.AUTHORIZATION, [])
    if not headers:
        raise BearerError("")
    scheme, _, token = headers[0].partition(" ")
    if len(headers) > 1:
        raise BearerError("invalid_request", "authenticate in one way, not in two", status=400)
    if scheme.lower() != "bearer":
        raise BearerError("")
    return token.strip(" ")
