"""From a presented token and who asks to one verdict, on what the store holds at this moment."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from introspection.memory import Memory, Remembered
from keyturn.contract.credentials import CredentialKind, credential_kind
from keyturn.contract.errors import FeedUnavailable, InvalidToken, StoreUnavailable
from keyturn.contract.tokens import audiences, check_claims
from keyturn.verifier.freshness import State
from keyturn.verifier.policy import Policy
from keyturn.verifier.replica import Replica
from keyturn.verifier.verdict import Kind, Verdict
from keyturn.verifier.verifier import TokenVerifier
from serving.authentication import Caller
from serving.families import Families, Held
from serving.parts import Parts
from serving.problems import Busy
from serving.promises import GrantLife
from serving.records import RecordStore

_MOST_AUDIENCES = 4096  # Whose policies are kept.


class Judge:
    """Judges tokens for resource servers; `unknown` where nothing can be said, never `inactive` instead.

    The store is asked for its newest position with each question, in the same round trip as for the record, and the
    replica follows up to there before it is asked: what was revoked before the question is never called active. A
    record that was read lately is not read again: what takes a record away stands in the feed before it does.
    """

    def __init__(
        self,
        parts: Parts,
        records: RecordStore,
        families: Families,
        verifier: TokenVerifier,
        memory: Memory,
        *,
        grant_life: GrantLife,
    ) -> None:
        """Let no grant last longer than `grant_life`: what revoked an older one may be forgotten."""
        self._parts, self._records, self._verifier, self._memory = parts, records, verifier, memory
        self._families, self._grant_life = families, grant_life

    async def judge(self, token: str, caller: Caller) -> Verdict:
        """Return the verdict on a token for the audiences of this caller."""
        audiences, now = caller.client.audiences, self._now()
        remembered = self._memory.recall(token, audiences, now) if self._is_fresh(now) else None
        try:
            verdict = None if remembered is None else await self._judge_remembered(remembered, audiences)
            return await self._judge_anew(token, caller) if verdict is None else verdict
        except (StoreUnavailable, FeedUnavailable, Busy) as error:
            self._parts.log.warning("introspection_unavailable", code=error.code, reason=str(error))
            return Verdict(Kind.UNKNOWN, error.code, self._parts.state())

    async def _judge_remembered(self, remembered: Remembered, audiences: tuple[str, ...]) -> Verdict | None:
        """Judge a token by what is remembered of it, with a replica that has been where the store said.

        None where anything speaks against that by now: it may be no more than that it was remembered for long enough.
        """
        await self._parts.reach(await self._records.positions())
        now = self._now()
        if not self._is_fresh(now) or self._memory.objection(remembered, now) is not None:
            return None
        return remembered.verdicts.get(audiences)  # Answers of others may have taken its place meanwhile.

    async def _judge_anew(self, token: str, caller: Caller) -> Verdict:
        """Judge a token by what the store holds of it; raises what says that the store or the feed cannot say."""
        kind = credential_kind(token)
        record: Mapping[str, Any] | None = None
        held: Held | None = None
        life_seconds = 0.0
        # Whatever the token looks like, the store is asked once: the time that it takes tells nothing.
        if kind is CredentialKind.REFRESH:
            life_seconds = await self._grant_life.seconds()
            held, positions, _ = await self._families.read(token)
        elif kind is not None:
            record, positions = await self._records.read(token)
        else:
            positions = await self._records.positions()
        await self._parts.reach(positions)
        state = self._parts.state()
        if state is State.EXPIRED:
            return Verdict(Kind.UNKNOWN, "replica_expired", state)
        if kind is CredentialKind.REFRESH:
            return self._judge_family(token, held, caller, state, life_seconds)
        if kind is not None:
            return self._judge_record(token, record, caller.client.audiences, state)
        return self._judge_signed(token.encode("utf-8", "surrogatepass"), caller, state)

    def _judge_record(
        self, token: str, claims: Mapping[str, Any] | None, audiences: tuple[str, ...], state: State
    ) -> Verdict:
        """Judge an opaque token by its record, by the same rules as a JWT."""
        now = self._now()
        reason = _objection(token, claims, audiences, self._replica, now)
        if claims is None or reason is not None:
            return Verdict(Kind.INACTIVE, reason or "no_record", state)
        verdict = Verdict(Kind.ACTIVE, "active", state, claims)
        if state is State.FRESH:
            self._memory.keep(token, audiences, verdict, now)
        return verdict

    def _judge_family(
        self, token: str, held: Held | None, caller: Caller, state: State, life_seconds: float
    ) -> Verdict:
        """Judge a refresh token: it is for its own client only, and a used one is as good as none.

        It is never remembered: no push tells of a family that turned.
        """
        if held is None:
            return Verdict(Kind.INACTIVE, "no_record", state)
        family, replica, now = held.family, self._replica, self._now()
        claims = family.token_claims(life_seconds=life_seconds)
        reason = None
        if claims["iss"] != replica.issuer:
            reason = "issuer"
        elif family.ended or not family.is_current(token):
            reason = "used"
        elif now >= claims["exp"]:
            reason = "expired"
        elif replica.revokes(replica.names(claims)):
            reason = "revoked"
        elif claims["client_id"] != caller.client_id or not _client_stands(claims, replica):
            reason = "client"
        return Verdict(Kind.INACTIVE, reason, state) if reason else Verdict(Kind.ACTIVE, "active", state, claims)

    def recall(self, token: bytes, audiences: tuple[str, ...]) -> Remembered | None:
        """Return a token that is remembered for these audiences, whatever speaks against it by now: ask `confirm`."""
        return self._memory.find(token, audiences)

    async def follow(self) -> float | None:
        """Follow up to where the store stands; return the time by which to judge then, None if we are not fresh.

        Raises StoreUnavailable, FeedUnavailable or Busy where that cannot be.
        """
        await self._parts.reach(await self._records.positions_alone())
        now = self._now()
        return now if self._is_fresh(now) else None

    def confirm(self, one: Remembered, audiences: tuple[str, ...], now: float) -> Verdict | None:
        """Return the verdict on a token that was remembered if nothing speaks against it after `follow`, else None."""
        verdict = one.verdicts.get(audiences) if self._memory.objection(one, now) is None else None
        self._memory.hits += verdict is not None
        return verdict

    def _now(self) -> float:
        return self._replica.no_earlier(self._parts.clock.now())

    def _is_fresh(self, now: float) -> bool:
        replica = self._replica
        return now < replica.fresh_until and self._parts.clock.boottime() < replica.fresh_until_boottime

    @property
    def _replica(self) -> Replica:
        return self._parts.replica

    def _judge_signed(self, token: bytes, caller: Caller, state: State) -> Verdict:
        """Judge a JWT: for the first of the caller's audiences that it has."""
        verdict = Verdict(Kind.INACTIVE, "audience", state)
        for audience in caller.client.audiences:
            verdict = self._verifier.judge(token, _policy(audience))
            if verdict.reason != "audience":
                break
        if verdict.kind is Kind.ACTIVE and not _client_stands(verdict.claims, self._replica):
            return Verdict(Kind.INACTIVE, "client", state)
        return verdict


@lru_cache(maxsize=_MOST_AUDIENCES)
def _policy(audience: str) -> Policy:
    """Return the one policy of an audience: verdicts are cached under it."""
    return Policy(audience=audience, name="introspection")


def _objection(
    token: str, claims: Mapping[str, Any] | None, callers: tuple[str, ...], replica: Replica, now: float
) -> str | None:
    if credential_kind(token) is not CredentialKind.ACCESS:
        return "type"
    if claims is None:
        return "no_record"
    try:
        check_claims(claims, issuer=replica.issuer, now=now, skew_seconds=replica.freshness.skew_seconds)
    except InvalidToken as error:
        return error.reason
    if replica.revokes(replica.names(claims)):
        return "revoked"
    if not _client_stands(claims, replica):
        return "client"
    return None if set(audiences(claims)) & set(callers) else "audience"


def _client_stands(claims: Mapping[str, Any], replica: Replica) -> bool:
    """Say whether the client that the token was issued to still exists."""
    return claims.get("client_id") in replica.trust.document.clients
