"""Who asks: an OAuth client by its secret or its signature (RFC 6749, 2.3; RFC 7523), an operator by an admin token."""

from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_plus

from aiohttp import hdrs, web

from keyturn.contract.credentials import CredentialKind, credential_kind, secret_hash, secret_matches
from keyturn.contract.errors import InvalidToken, ReplicaExpired
from keyturn.contract.trust import ADMIN_SCOPE, Client, Trust
from serving.clientassertions import ASSERTION_TYPE, ClientKeys, SpentAssertions, read_assertion
from serving.failures import Failures
from serving.knowncallers import KnownCallers
from serving.parts import Parts
from serving.problems import BearerError, OAuthError
from serving.records import RecordStore
from serving.routing import note

BASIC, POST, ASSERTION = "client_secret_basic", "client_secret_post", "private_key_jwt"
PUBLIC = "none"
AUTHENTICATION_METHODS = (BASIC, POST, ASSERTION)
LONGEST_CLIENT_ID = 256
_MOST_CLIENT_KEYS: Final = 4096
_NOBODY = Client(secret_hash=secret_hash(""))
_PROOFS: Final = frozenset({"client_secret", "client_assertion", "client_assertion_type"})
_NO_KEYS: Final = ClientKeys()
_REFUSED: Final = "no such client, or not its proof"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated client, and how it proved who it is: by a token of its own, `token_id` is that token's `jti`."""

    client_id: str
    client: Client
    method: str
    token_id: str = ""


class _Presented(NamedTuple):
    """What a request presents as its client's proof."""

    method: str
    client_id: str
    secret: str = ""
    assertion: str = ""


class Authenticator:
    """Says which client sends a request; one for each service.

    Failures are slowed by address and by client (`serving/failures.py`); a proof that holds is never held up.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._spent = SpentAssertions(parts.redis, parts.clock, skew_seconds=parts.skew_seconds)
        self._known: KnownCallers[Caller] = KnownCallers()
        self._failures = Failures(parts.clock)
        self._keys: dict[str, ClientKeys] = {}
        self._keys_of: Trust | None = None
        about = "Requests whose client did not prove who it is."
        self._failed = parts.metrics.counter("keyturn_authentication_failures", about, labels=("method", "slowed"))

    async def authenticate(self, request: web.Request, form: Mapping[str, str], *, public: bool = False) -> Caller:
        """Return the client that sends this request: by HTTP Basic, `client_secret`, or a signed assertion in the form.

        Where `public` clients may ask, these are known by their `client_id` alone (RFC 6749, 2.1 and 3.2.1).

        Raises OAuthError: 400 `invalid_request` for two methods at once, 401 `invalid_client` for everything else,
        whether the client is unknown, public or proves itself wrongly; with `Retry-After` after too many of these.
        Raises ReplicaExpired while no trust document is held, StoreUnavailable where it cannot be said whether an
        assertion is used for the first time.
        """
        trust = self._parts.replica.trust
        if (caller := self._known_caller(request, form, trust)) is not None:
            return caller
        presented = _read_presented(request, form)
        if trust.version == 0:
            raise ReplicaExpired("no trust document has been read yet", silence_seconds=float("inf"))
        if isinstance(presented, OAuthError):
            raise await self._slowed(request, presented, client_id=form.get("client_id", ""), method="none")
        if presented.method == ASSERTION:
            return await self._by_assertion(request, presented, trust)
        if public and presented.method == POST and not presented.secret and trust.is_public(presented.client_id):
            return Caller(presented.client_id, trust.document.clients[presented.client_id], PUBLIC)
        client = _by_secret(presented, trust)
        if client is None:
            raise await self._refusal(request, presented.method, client_id=presented.client_id)
        caller = Caller(presented.client_id, client, presented.method)
        if caller.method == BASIC:
            self._known.keep(_header_bytes(request), trust, caller)
        return caller

    def _known_caller(self, request: web.Request, form: Mapping[str, str], trust: Trust) -> Caller | None:
        """Return who sent this very `Authorization` before and was let in, if there is nothing else to look at."""
        if len(request.headers.getall(hdrs.AUTHORIZATION, [])) != 1 or not form.keys().isdisjoint(_PROOFS):
            return None
        caller = self._known.get(_header_bytes(request), trust)
        return caller if caller is not None and form.get("client_id", caller.client_id) == caller.client_id else None

    async def note_failure(self, request: web.Request, *, client_id: str, method: str) -> int:
        """Count a failure, and return after how many seconds to come back (0: at once); waits where there were many."""
        seconds = await self._failures.note(address=request.remote, client_id=client_id[:LONGEST_CLIENT_ID])
        self._failed.labels(method, str(seconds > 0).lower()).inc()
        return seconds

    async def _refusal(
        self, request: web.Request, method: str, *, client_id: str, description: str = _REFUSED
    ) -> OAuthError:
        """Return the error for a client that did not prove itself, once it may be answered."""
        basic = hdrs.AUTHORIZATION in request.headers
        error = OAuthError("invalid_client", description, status=401, basic=basic)
        return await self._slowed(request, error, client_id=client_id, method=method)

    async def _slowed(self, request: web.Request, error: OAuthError, *, client_id: str, method: str) -> OAuthError:
        error.retry_after_seconds = await self.note_failure(request, client_id=client_id, method=method)
        return error

    async def _by_assertion(self, request: web.Request, presented: _Presented, trust: Trust) -> Caller:
        parts, named = self._parts, presented.client_id
        try:
            assertion = read_assertion(
                presented.assertion,
                issuer=parts.issuer,
                now=parts.replica.no_earlier(parts.clock.now()),
                skew_seconds=parts.skew_seconds,
            )
        except InvalidToken as error:
            note(request, refused=error.reason)
            raise await self._refusal(request, ASSERTION, client_id=named, description=str(error)) from None
        if named not in ("", assertion.client_id):
            raise OAuthError("invalid_request", "client_id is not the client that authenticates")
        client_id = assertion.client_id
        client = trust.document.clients.get(client_id)
        keys = _NO_KEYS if client is None else self._client_keys(client_id, trust)
        if not keys.verify(assertion) or client is None:
            note(request, refused="signature")
            raise await self._refusal(request, ASSERTION, client_id=client_id)
        if not await self._spent.spend(assertion):
            note(request, refused="used_before")
            raise await self._refusal(
                request, ASSERTION, client_id=client_id, description="the assertion was used before"
            )
        return Caller(client_id, client, ASSERTION)

    def _client_keys(self, client_id: str, trust: Trust) -> ClientKeys:
        """Return a client's keys, prepared once for each trust document."""
        if trust is not self._keys_of or len(self._keys) >= _MOST_CLIENT_KEYS:
            self._keys_of, self._keys = trust, {}
        if client_id not in self._keys:
            self._keys[client_id] = ClientKeys(trust.client_keys(client_id))
        return self._keys[client_id]


def _header_bytes(request: web.Request) -> bytes:
    return request.headers[hdrs.AUTHORIZATION].encode("utf-8", "surrogateescape")


def _by_secret(presented: _Presented, trust: Trust) -> Client | None:
    client_id, secret = presented.client_id, presented.secret
    client = trust.document.clients.get(client_id)
    # An unknown client costs the same comparison as a known one.
    proved = secret_matches(secret, (client or _NOBODY).secret_hash or _NOBODY.secret_hash)
    if client is None or not client.secret_hash or not secret or not proved or len(client_id) > LONGEST_CLIENT_ID:
        return None
    return client


def _read_presented(request: web.Request, form: Mapping[str, str]) -> _Presented | OAuthError:
    """Return what the request presents, or the `invalid_client` that it is for presenting nothing that can be read.

    Raises OAuthError 400 for two methods at once.
    """
    headers = request.headers.getall(hdrs.AUTHORIZATION, [])
    signed = "client_assertion" in form or "client_assertion_type" in form
    if len(headers) > 1 or bool(headers) + signed + ("client_secret" in form) > 1:
        raise OAuthError("invalid_request", "authenticate in one way, not in two")
    client_id = form.get("client_id", "")
    if signed:
        if form.get("client_assertion_type") != ASSERTION_TYPE or "client_assertion" not in form:
            return OAuthError("invalid_client", f"client_assertion_type is {ASSERTION_TYPE}", status=401)
        return _Presented(ASSERTION, client_id, assertion=form["client_assertion"])
    if not headers:
        return _Presented(POST, client_id, form.get("client_secret", ""))
    pair = _read_basic(headers[0])
    if pair is None:
        return OAuthError("invalid_client", "not HTTP Basic", status=401, basic=True)
    if client_id not in ("", pair[0]):
        raise OAuthError("invalid_request", "client_id is not the client that authenticates")
    return _Presented(BASIC, *pair)


def _read_basic(value: str) -> tuple[str, str] | None:
    """Return id and secret of an HTTP Basic header, each form-decoded (RFC 6749, 2.3.1); None if it is none."""
    scheme, _, encoded = value.partition(" ")
    try:
        client_id, colon, secret = b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        if scheme.lower() == "basic" and colon:
            return unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except ValueError:  # Neither base64 nor UTF-8; what was sent stays out of every message.
        pass
    return None


async def require_admin(request: web.Request, records: RecordStore, parts: Parts) -> dict[str, Any]:
    """Return the claims of the opaque token, of scope `keyturn:admin`, by which an operator asks.

    Raises as `require_scope`.
    """
    return await require_scope(request, records, parts, scope=ADMIN_SCOPE)


async def require_scope(request: web.Request, records: RecordStore, parts: Parts, *, scope: str) -> dict[str, Any]:
    """Return the claims of the opaque token, of one of our operating scopes, by which somebody asks.

    Raises BearerError (401, 403), ReplicaExpired or StoreUnavailable where nothing can be said (503).
    """
    token = read_bearer(request)
    parts.require_replica()
    if credential_kind(token) is not CredentialKind.ACCESS:
        raise BearerError("invalid_token", "not an opaque access token")
    reading = await records.read(token)
    await parts.reach(reading.positions)
    parts.require_replica()
    claims = reading.record
    replica = parts.replica
    now = replica.no_earlier(parts.clock.now())
    expired = claims is None or claims.get("iss") != replica.issuer or now >= claims.get("exp", 0)
    if claims is None or expired or replica.revokes(replica.names(claims)):
        raise BearerError("invalid_token", "expired, revoked or unknown")
    client = replica.trust.document.clients.get(str(claims.get("client_id")))
    if client is None or scope not in client.scopes:
        raise BearerError("invalid_token", "its client is gone, or may not ask for this (any more)")
    if claims.get("sub") != claims.get("client_id"):
        raise BearerError("invalid_token", "a user's token, and no client's own")
    if scope not in str(claims.get("scope", "")).split(" "):
        raise BearerError("insufficient_scope", "not for these credentials", status=403, scope=scope)
    return claims


def read_bearer(request: web.Request) -> str:
    """Return the token of the one `Authorization: Bearer`; raises BearerError."""
    headers = request.headers.getall(hdrs.AUTHORIZATION, [])
    if not headers:
        raise BearerError("")
    scheme, _, token = headers[0].partition(" ")
    if len(headers) > 1:
        raise BearerError("invalid_request", "authenticate in one way, not in two", status=400)
    if scheme.lower() != "bearer":
        raise BearerError("")
    return token.strip(" ")
