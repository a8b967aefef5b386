"""Redeems refresh tokens: each turns once, and one that comes back later ends its grant (RFC 9700, 4.14.2)."""

from typing import Any, Final, NamedTuple

from aiohttp import web

from authorization.asking import read_narrowed
from authorization.grants import Grant
from authorization.issuing import Issuing, Lives
from authorization.metadata import REFRESH_TOKEN
from authorization.turning import Step, ended, step_of, turned
from keyturn import entropy
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane, Position
from serving.authentication import Caller
from serving.endings import Ending, Endings
from serving.families import Families, Family, FamilyReading, Held, Swap, end_of, is_refresh_token, successor_of
from serving.forms import Form
from serving.parts import Parts
from serving.problems import OAuthError, json_answer
from serving.routing import note

REUSED: Final = "refresh_token_reused"
MOST_ROUNDS: Final = 8
"""So often another may be first, or the lane move on, before the client has to come back later."""
_SALT_BYTES: Final = 32
_SHORTEST_SECONDS: Final = 1.0  # A token's `exp` has whole seconds.


class _Judged(NamedTuple):
    """A family as it stands, of a grant that was not revoked at a position of the lane; and what is asked of it."""

    held: Held
    step: Step
    now: float
    store_now: float
    judged_at: Position | None
    life_seconds: float


class Refreshing:
    """Answers token requests of grant type `refresh_token`.

    A request replaces the family once, or not at all: where several come at once one is first, and the others find
    the family turned and tell the same successor.
    """

    def __init__(
        self,
        parts: Parts,
        issuing: Issuing,
        families: Families,
        endings: Endings,
        *,
        lives: Lives,
        grace_seconds: float,
    ) -> None:
        self._parts, self._issuing, self._families, self._endings = parts, issuing, families, endings
        self._lives, self._grace_seconds = lives, grace_seconds
        about = "Refresh tokens that were presented, by what came of it."
        self._outcomes = parts.metrics.counter("keyturn_refreshes", about, labels=("outcome",))

    async def answer(self, request: web.Request, form: Form, caller: Caller) -> web.Response:
        """Answer with an access token and the next refresh token (RFC 6749, 6).

        Raises OAuthError `invalid_grant` for a token that is not good, or not this client's, and what `read_narrowed`
        raises. Where the store, the signer or the feed cannot say (503), the token is as good as before, or the same
        request within the grace gets what it would have got.
        """
        token = form.get(REFRESH_TOKEN)
        if token is None:
            raise OAuthError("invalid_request", "refresh_token is missing")
        content: dict[str, Any] | None = None
        for _ in range(MOST_ROUNDS):
            judged = await self._judge(request, token, caller)
            family = judged.held.family
            if judged.step is Step.REUSED:
                await self._end(request, judged, caller)
                continue
            if content is None:  # Made before the family turns: without a signer nothing is used up.
                content = await self._access(request, judged, form, caller)
            if judged.step is Step.TURN:
                family = turned(
                    family, token, salt=entropy.token_bytes(_SALT_BYTES), now=judged.now, store_now=judged.store_now,
                    idle_seconds=self._lives.idle_seconds,
                )  # fmt: skip
                if not await self._replaced(judged, family):
                    continue
            self._count(request, judged.step.value)
            return json_answer({**content, REFRESH_TOKEN: successor_of(token, family.salt)})
        raise FeedUnavailable("others were first each time")

    async def _judge(self, request: web.Request, token: str, caller: Caller) -> _Judged:
        """Read a token's family, and judge its grant by a replica that has been where the store stood."""
        parts, replica = self._parts, self._parts.replica
        if not is_refresh_token(token):
            raise self._refusal(request, "unknown")
        life_seconds = await self._lives.grant.seconds()
        reading = await self._families.read(token)
        await parts.reach(reading.positions)
        parts.require_replica()
        held = self._belonging(request, reading, caller)
        if replica.revokes(replica.names(held.family.claims)):
            raise self._refusal(request, "revoked")
        now = replica.no_earlier(parts.clock.now())
        step = step_of(
            held.family, token, now=now, store_now=reading.store_now, grace_seconds=self._grace_seconds,
            life_seconds=life_seconds, margin_seconds=parts.skew_seconds + _SHORTEST_SECONDS,
        )  # fmt: skip
        if step is Step.ENDED:
            raise self._refusal(request, step.value)
        return _Judged(held, step, now, reading.store_now, replica.position(Lane.REVOCATIONS), life_seconds)

    def _belonging(self, request: web.Request, reading: FamilyReading, caller: Caller) -> Held:
        """Return the family if it is this client's: before that is known, nothing comes of a token (RFC 6749, 6)."""
        held = reading.held
        if held is None:
            raise self._refusal(request, "unknown")
        claims = held.family.claims
        if claims["iss"] != self._parts.issuer or claims["client_id"] != caller.client_id:
            raise self._refusal(request, "other_client")
        return held

    async def _access(self, request: web.Request, judged: _Judged, form: Form, caller: Caller) -> dict[str, Any]:
        family = judged.held.family
        grant = Grant.of(family.claims, ends_at=end_of(family, life_seconds=judged.life_seconds))
        asked = read_narrowed(form, caller.client, grant)
        note(request, token_format=asked.token_format.value)
        return await self._issuing.access(grant, asked)

    async def _end(self, request: web.Request, judged: _Judged, caller: Caller) -> None:
        """End a family whose used token came back, and have its grant revoked; returns if it changed meanwhile."""
        family = judged.held.family
        grant_id = family.claims["grant_id"]
        ending = Ending(iss=self._parts.issuer, grant_id=grant_id, reason=REUSED)
        if await self._replaced(judged, ended(family), ending=self._endings.sealed(ending)):
            self._parts.log.warning(REUSED, client_id=caller.client_id, grant_id=grant_id)
            raise self._refusal(request, Step.REUSED.value)

    async def _replaced(self, judged: _Judged, family: Family, *, ending: bytes = b"") -> bool:
        """Say whether the family was replaced; if not, the replica knows by now what it did not know before."""
        outcome, positions = await self._families.swap(
            judged.held, family, judged_at=judged.judged_at, keep_seconds=self._parts.skew_seconds, ending=ending
        )
        if outcome is Swap.BEHIND:
            await self._parts.reach(positions)
        return outcome is Swap.DONE

    def _refusal(self, request: web.Request, outcome: str) -> OAuthError:
        self._count(request, outcome)
        return OAuthError("invalid_grant", "the refresh token is expired, revoked or used, or another client's")

    def _count(self, request: web.Request, outcome: str) -> None:
        self._outcomes.labels(outcome).inc()
        note(request, refresh=outcome)
