"""Redeems authorization codes (RFC 6749, 4.1.3; RFC 7636, 4.5): each once, for whom it was made."""

from typing import Any, Final

from aiohttp import web

from authorization.asking import read_narrowed
from authorization.codes import Code, Codes, Held, Step
from authorization.grants import Grant
from authorization.issuing import Issuing
from authorization.metadata import REFRESH_TOKEN
from authorization.pkce import is_verifier, verifies
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from serving.authentication import Caller
from serving.endings import Ending, Endings
from serving.forms import Form
from serving.parts import Parts
from serving.problems import OAuthError, json_answer
from serving.routing import note

REUSED: Final = "code_reused"
MOST_ROUNDS: Final = 8
"""So often the lane may move on meanwhile, before the client has to come back later."""
_NOT_GOOD: Final = "the code is expired, revoked, or was not made for this request"
_USED: Final = "the code was used before, and all that came of it ends (RFC 6749, 4.1.2)"


class Redeeming:
    """Answers token requests of grant type `authorization_code`."""

    def __init__(self, parts: Parts, codes: Codes, issuing: Issuing, endings: Endings, *, token_seconds: float) -> None:
        """Issue by `issuing`, whose access tokens live for `token_seconds` at most."""
        self._parts, self._codes, self._issuing, self._endings = parts, codes, issuing, endings
        self._token_seconds = token_seconds

    async def answer(self, request: web.Request, form: Form, caller: Caller) -> web.Response:
        """Answer with the tokens of a sign-in.

        Client, redirect URI and verifier are looked at before the code is touched. Raises OAuthError `invalid_grant`
        for a code that is not good for this request; StoreUnavailable, SignerUnavailable or FeedUnavailable where that
        cannot be said: unless the store was lost in the last step, the code is as good as before.
        """
        for name in ("code", "redirect_uri", "code_verifier"):
            if name not in form:
                raise OAuthError("invalid_request", f"{name} is missing")
        if not is_verifier(form["code_verifier"]):
            raise OAuthError("invalid_request", "code_verifier has 43 to 128 characters (RFC 7636, 4.1)")
        held = await self._codes.read(form["code"])
        code = held.code
        if code is None or not _is_bound(code, form, caller):
            raise self._refusal(request, "unknown" if code is None else "not_for_this")
        await self._parts.reach(held.positions)
        self._parts.require_replica()
        return await self._redeem(request, form, caller, held=held, code=code)

    async def _redeem(
        self, request: web.Request, form: Form, caller: Caller, *, held: Held, code: Code
    ) -> web.Response:
        content: dict[str, Any] | None = None
        ending = self._endings.sealed(Ending(iss=self._parts.issuer, grant_id=code.grant.grant_id, reason=REUSED))
        for _ in range(MOST_ROUNDS):
            replica, now = self._parts.replica, self._now()
            judged_at, revoked = replica.position(Lane.REVOCATIONS), self._is_revoked(code.grant)
            looks = content is None or revoked
            step, ahead = await self._codes.consume(
                held, now=now, judged_at=judged_at, ending=ending,
                keep_until=None if looks else self._ends_at(code.grant, caller, now),
            )  # fmt: skip
            if step is Step.CONSUMED and content is not None:
                return json_answer(content)
            if step is Step.REUSED:
                self._parts.log.warning(REUSED, client_id=caller.client_id, grant_id=code.grant.grant_id)
            if step is Step.BEHIND:
                await self._parts.reach({**held.positions, **ahead})
                self._parts.require_replica()
            elif step is not Step.GOOD or revoked:
                raise self._refusal(request, "revoked" if step is Step.GOOD else step.value)
            else:  # Made before the code is consumed: without a signer nothing is used up.
                asked = read_narrowed(form, caller.client, code.grant)
                note(request, token_format=asked.token_format.value)
                content = await self._issuing.begin(code.grant, asked, caller.client)
        raise FeedUnavailable("the revocations lane moved on all the while")

    def _now(self) -> float:
        return self._parts.replica.no_earlier(self._parts.clock.now())

    def _ends_at(self, grant: Grant, caller: Caller, now: float) -> float:
        """Return when all that comes of a code now has ended (Unix seconds), for whoever's clock it is."""
        refreshed = REFRESH_TOKEN in caller.client.grant_types
        ends_at = grant.ends_at if refreshed else now + self._token_seconds
        return ends_at + 2 * self._parts.skew_seconds

    def _is_revoked(self, grant: Grant) -> bool:
        replica = self._parts.replica
        return replica.revokes(replica.names(grant.claims(self._parts.issuer)))

    def _refusal(self, request: web.Request, reason: str) -> OAuthError:
        note(request, refused=reason)
        used = reason in (Step.REUSED, Step.USED)  # Which is told only to who has all that belongs to it.
        return OAuthError("invalid_grant", _USED if used else _NOT_GOOD)


def _is_bound(code: Code, form: Form, caller: Caller) -> bool:
    """Say whether a code was made for who presents it: client, redirect URI (RFC 6749, 4.1.3) and verifier."""
    same = (code.client_id, code.redirect_uri) == (caller.client_id, form["redirect_uri"])
    return verifies(form["code_verifier"], code.code_challenge) and same
