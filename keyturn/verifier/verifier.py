"""From a token to a verdict, in memory: strict form, signature, time, revocation, policy; and a bounded cache."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from keyturn.clock import Clock
from keyturn.contract.errors import InvalidToken, IssuerKeysUnavailable, ReplicaExpired
from keyturn.contract.keys import Phase
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.rotation import APPEND_SECONDS
from keyturn.contract.selectors import TokenNames
from keyturn.contract.tokens import ACCESS_TOKEN_TYPES, Token, check_claims, parse_token
from keyturn.verifier.foreign import ForeignIssuers, ForeignToken, verified
from keyturn.verifier.freshness import State
from keyturn.verifier.issuers import IssuerKeys
from keyturn.verifier.policy import Policy
from keyturn.verifier.replica import Replica, VerificationKey
from keyturn.verifier.verdict import Kind, Verdict

CACHED_TOKENS = 65_536
_VERDICTS_OF_A_TOKEN = 64

_VERIFIES = frozenset({Phase.PUBLISHED, Phase.ACTIVE, Phase.RETIRING})


class _Checked(msgspec.Struct, eq=False, gc=False):
    """A token of ours whose signature held once: what must be asked again, and the verdicts that were made of it."""

    claims: Mapping[str, Any]
    key: VerificationKey
    expires: float
    generation: int = -1
    indexes: tuple[RevocationIndex, ...] = ()
    names: tuple[TokenNames, ...] = ()
    fresh: dict[Policy, Verdict] = msgspec.field(default_factory=dict)
    stale: dict[Policy, Verdict] = msgspec.field(default_factory=dict)

    def stands(self, replica: Replica, now: float, boottime: float) -> bool:  # noqa: ARG002 - as ForeignToken does
        """Say whether nothing has changed since it was asked about, and it has not expired."""
        return self.generation == replica.generation and now < self.expires


class CacheFigures:
    """How the verdict cache fared, in plain counts."""

    __slots__ = ("evictions", "hits", "misses", "rechecks")

    def __init__(self) -> None:
        self.hits = self.misses = self.rechecks = self.evictions = 0


class TokenVerifier:
    """Judges access tokens of the replica's issuer, and of `issuers`; never waits, and reads nothing but memory.

    Tokens that are bound to a key (`cnf`) are judged like others only where `admit_bound` says that the key is somebody
    else's to look at; else they are inactive, since here nobody proves that he has it.
    """

    def __init__(
        self,
        replica: Replica,
        clock: Clock,
        *,
        cached_tokens: int = CACHED_TOKENS,
        admit_bound: bool = False,
        issuers: Sequence[IssuerKeys] = (),
    ) -> None:
        self.replica, self.clock = replica, clock
        self.figures = CacheFigures()
        self._most, self._admit_bound = cached_tokens, admit_bound
        self._foreign = ForeignIssuers(issuers)
        self._cache: OrderedDict[bytes, _Checked | ForeignToken] = OrderedDict()  # The oldest leaves at no cost.
        self._now, self._boottime = clock.now, clock.boottime

    def __len__(self) -> int:
        """Count the tokens in the cache."""
        return len(self._cache)

    def judge(self, token: bytes, policy: Policy) -> Verdict:
        """Return the verdict on a token under a policy; never raises for anything about the token."""
        now, boottime, replica = self._now(), self._boottime(), self.replica
        # The usual case, spelled out: a fresh replica that has not moved since the token was looked at.
        if replica.time_floor <= now < replica.fresh_until and boottime < replica.fresh_until_boottime:
            checked = self._cache.get(token)
            if checked is not None and checked.generation == replica.generation and now < checked.expires:
                verdict = checked.fresh.get(policy)
                if verdict is not None and policy.max_staleness_seconds is None:
                    self.figures.hits += 1
                    return verdict
        return self._judge(token, policy, now, boottime)

    def _judge(self, token: bytes, policy: Policy, now: float, boottime: float) -> Verdict:
        state = self.replica.state(now, boottime)
        if state is State.EXPIRED:
            return Verdict(Kind.UNKNOWN, "replica_expired", state)
        strict = policy.max_staleness_seconds
        if strict is not None and self.replica.age(now, boottime) > strict:
            return Verdict(Kind.UNKNOWN, "replica_too_old_for_policy", state)
        try:
            checked = self._checked(token, policy, self.replica.no_earlier(now), boottime)
        except InvalidToken as error:
            return Verdict(Kind.INACTIVE, error.reason, state)
        except IssuerKeysUnavailable as error:
            return Verdict(Kind.UNKNOWN, error.code, state)
        verdicts = checked.fresh if state is State.FRESH else checked.stale
        verdict = verdicts.get(policy)
        if verdict is None:
            if len(verdicts) >= _VERDICTS_OF_A_TOKEN:
                verdicts.clear()
            takes = policy.takes(checked.claims["iss"], ours=self.replica.issuer)
            objection = policy.objection(dict(checked.claims)) if takes else "issuer"
            kind = Kind.ACTIVE if objection is None else Kind.INACTIVE
            claims = checked.claims if objection is None else {}
            verdict = verdicts[policy] = Verdict(kind, objection or "active", state, claims)
        return verdict

    def claims(self, token: bytes, policy: Policy) -> Mapping[str, Any]:
        """Return an active token's claims; raises InvalidToken, or ReplicaExpired where nothing can be said."""
        verdict = self.judge(token, policy)
        if verdict.kind is Kind.ACTIVE:
            return verdict.claims
        if verdict.reason == IssuerKeysUnavailable.code and (issuer := self.issuer_of(token)) is not None:
            raise IssuerKeysUnavailable(issuer=issuer.issuer.name, silence_seconds=issuer.age(self.clock.boottime()))
        if verdict.kind is Kind.UNKNOWN:
            age = self.replica.age(self.clock.now(), self.clock.boottime())
            raise ReplicaExpired(silence_seconds=age)
        raise InvalidToken(verdict.reason)

    def genuine(self, token: bytes, *, allow_expired: bool = False) -> Mapping[str, Any]:
        """Return the claims of any token that we signed, whoever it is for; raises InvalidToken.

        With `allow_expired` time is not looked at: a token that is not valid yet can be revoked too.
        """
        return self._genuine(parse_token(token), allow_expired=allow_expired)[0]

    def issuer_of(self, token: bytes) -> IssuerKeys | None:
        """Return the other issuer that a token, not verified, names; None for any other token."""
        try:
            return self._foreign.of(parse_token(token, types=self._foreign.types).claims)
        except InvalidToken:
            return None

    def _genuine(self, parsed: Token, *, allow_expired: bool) -> tuple[Mapping[str, Any], VerificationKey]:
        key = self._key(parsed.header.kid, parsed.header.alg)
        if not key.algorithm.verify(parsed.signing_input, key.key, parsed.signature):
            raise InvalidToken("signature")
        now = self.replica.no_earlier(self.clock.now())
        if not allow_expired:
            check_claims(parsed.claims, issuer=self.replica.issuer, now=now, skew_seconds=self._skew)
        self._check_key_limits(parsed.claims, key)
        return parsed.claims, key

    @property
    def _skew(self) -> float:
        return self.replica.freshness.skew_seconds

    def _checked(self, token: bytes, policy: Policy, now: float, boottime: float) -> _Checked | ForeignToken:
        checked = self._cache.get(token)
        figures = self.figures
        if checked is None:
            figures.misses += 1
            checked = self._admit(token, policy, now, boottime)
        elif checked.stands(self.replica, now, boottime):
            figures.hits += 1
            return checked
        else:
            figures.rechecks += 1
        try:
            if isinstance(checked, ForeignToken):
                checked.recheck(self.replica, now, boottime)
            else:
                self._recheck(checked, now)
                checked.generation = self.replica.generation
        except InvalidToken:
            self._cache.pop(token, None)
            raise
        return checked

    def _admit(self, token: bytes, policy: Policy, now: float, boottime: float) -> _Checked | ForeignToken:
        parsed = parse_token(token, types=self._foreign.types)
        issuer = self._foreign.of(parsed.claims)
        checked: _Checked | ForeignToken
        if issuer is None:
            checked = self._ours(parsed)
        elif policy.takes(issuer.issuer.url, ours=self.replica.issuer):
            checked = verified(parsed, issuer, now=now, boottime=boottime, skew_seconds=self._skew)
        else:  # Before its key is looked for: nobody is asked about tokens that are not taken anyway.
            raise InvalidToken("issuer", "not an issuer that the policy takes")
        if "cnf" in checked.claims and not self._admit_bound:
            raise InvalidToken("bound", "a sender-constrained token does not pass as Bearer (RFC 9449, 7.2)")
        if len(self._cache) >= self._most:
            self.figures.evictions += 1
            self._cache.popitem(last=False)
        self._cache[token] = checked
        return checked

    def _ours(self, parsed: Token) -> _Checked:
        if parsed.header.typ not in ACCESS_TOKEN_TYPES:  # The types of other issuers are not ours.
            raise InvalidToken("type", "not an access token (typ at+jwt)")
        claims, key = self._genuine(parsed, allow_expired=False)
        return _Checked(claims, key, float(claims["exp"]) + self._skew)

    def _recheck(self, checked: _Checked, now: float) -> None:
        """Ask again all that may have changed since the signature was checked."""
        if now >= checked.expires:
            raise InvalidToken("expired")
        record = checked.key.record
        key = self._key(record.kid, record.alg)
        if key is not checked.key:
            if key.record.jwk != record.jwk:
                raise InvalidToken("signature")
            checked.key = key
        self._check_key_limits(checked.claims, key)
        if checked.indexes != self.replica.indexes:
            checked.indexes, checked.names = self.replica.indexes, self.replica.names(checked.claims)
        if self.replica.revokes(checked.names):
            raise InvalidToken("revoked")

    def _key(self, kid: str, alg: str) -> VerificationKey:
        key = self.replica.verification.get(kid)
        if key is None:
            raise InvalidToken("unknown_kid")
        phase = key.record.phase
        if phase is Phase.REVOKED:
            raise InvalidToken("key_revoked")
        if phase not in _VERIFIES:
            raise InvalidToken("key_removed")
        if key.record.alg != alg or key.record.use != "access":
            raise InvalidToken("algorithm", "not this key's algorithm or use")
        return key

    def _check_key_limits(self, claims: Mapping[str, Any], key: VerificationKey) -> None:
        """Refuse what is dated after the key's time: sign_until, or its early retirement, + G + S (rule 2).

        A retirement is dated when it is signed, and a signer may renew its lease until the store has taken it.
        """
        record = key.record
        if record.verify_until is not None:
            latest = record.verify_until - record.token_seconds - self._skew  # = sign_until + G + S
            if record.retiring_at is not None and record.sign_until is not None:
                retired_at = record.retiring_at + APPEND_SECONDS
                latest += min(0.0, retired_at - record.sign_until)  # = retired_at + G + S
            issued = claims.get("iat")
            if not isinstance(issued, int | float) or issued > latest:
                raise InvalidToken("key_limits", "issued after its key stopped signing")
