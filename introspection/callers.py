"""Who may ask about tokens: a client that may introspect, proved as at /token, or by a token (RFC 7662, 2.1)."""

from collections.abc import Collection
from typing import Final

from aiohttp import hdrs, web

from introspection.judge import Judge
from keyturn.contract.trust import Client
from keyturn.verifier.verdict import Kind, Verdict
from serving.authentication import Authenticator, Caller, read_bearer
from serving.forms import Form
from serving.parts import Parts
from serving.problems import BearerError, Busy, OAuthError
from serving.routing import note

SCOPE: Final = "introspection"
BEARER: Final = "bearer"
_NOT_THIS_TOKEN: Final = "not a token that may introspect"  # noqa: S105 - what it says of it


class Callers:
    """Authenticates whoever asks, and says no to everybody that the trust document does not let introspect."""

    def __init__(self, parts: Parts, judge: Judge) -> None:
        self._parts, self._judge, self._authenticator = parts, judge, Authenticator(parts)
        # The token has to be for this very server: an API that was shown one must not be able to ask with it.
        self._ourselves = Caller("", Client(secret_hash="", audiences=(parts.issuer,)), BEARER)

    async def identify(self, request: web.Request, form: Form) -> Caller:
        """Return the caller; its `token_id` is that of the token by which it asks, if it does so by one.

        Raises OAuthError 401 `invalid_client` for a client that is not proved or may not introspect, BearerError 401
        for a token that is not good for this (RFC 7662, 2.3), and what says that nothing can be said now.
        """
        if not _bears(request):
            caller = await self._authenticator.authenticate(request, form)
            note(request, client_id=caller.client_id)
            if not caller.client.may_introspect:
                basic = hdrs.AUTHORIZATION in request.headers
                raise OAuthError("invalid_client", "not a client that may introspect", status=401, basic=basic)
            return caller
        if form.keys() & {"client_secret", "client_assertion", "client_assertion_type"}:
            raise OAuthError("invalid_request", "authenticate in one way, not in two")
        caller = await self._by_token(request, read_bearer(request))
        note(request, client_id=caller.client_id)
        if form.get("client_id", caller.client_id) != caller.client_id:
            raise OAuthError("invalid_request", "client_id is not the client that authenticates")
        return caller

    def refuse_own(self, request: web.Request, caller: Caller, tokens: Collection[str]) -> None:
        """Raise BearerError where the token by which somebody asks is among those that it asks about."""
        if caller.token_id and read_bearer(request) in tokens:
            raise _own()

    def refuse_own_form(self, caller: Caller, verdict: Verdict) -> None:
        """Raise BearerError where it is among them in another form: a JWT in place of an opaque token has its `jti`."""
        if caller.token_id and verdict.claims.get("jti") == caller.token_id:
            raise _own()

    async def _by_token(self, request: web.Request, token: str) -> Caller:
        trust = self._parts.replica.trust
        verdict = await self._judge.judge(token, self._ourselves)
        if verdict.kind is Kind.UNKNOWN:
            raise Busy("whether this token may introspect cannot be said now")
        claims = verdict.claims
        client = trust.document.clients.get(str(claims.get("client_id")))
        # A bound token needs a proof of its key, which nobody asks for here.
        if verdict.kind is not Kind.ACTIVE or client is None or not client.may_introspect or "cnf" in claims:
            note(request, refused=verdict.reason)
            raise await self._refusal(request, "invalid_token", _NOT_THIS_TOKEN)
        if SCOPE not in str(claims.get("scope", "")).split(" "):
            raise await self._refusal(request, "insufficient_scope", "its scope is not enough", scope=SCOPE)
        return Caller(str(claims["client_id"]), client, BEARER, token_id=str(claims["jti"]))

    async def _refusal(self, request: web.Request, error: str, description: str, *, scope: str = "") -> BearerError:
        seconds = await self._authenticator.note_failure(request, client_id="", method=BEARER)
        return BearerError(error, description, scope=scope, retry_after_seconds=seconds)


def _own() -> BearerError:
    return BearerError("invalid_token", "a token does not authorise its own introspection (RFC 7662, 2.1)")


def _bears(request: web.Request) -> bool:
    return any(value.partition(" ")[0].lower() == "bearer" for value in request.headers.getall(hdrs.AUTHORIZATION, []))
