"""The inequalities that a rotation policy has to keep, each with its numbers, so that a broken one can be named."""

from collections.abc import Iterator
from typing import Final

import msgspec

from keyturn.contract.rotation import Barrier, RotationPolicy, jwks_max_age

REQUEST_SECONDS: Final = 10.0
"""As long as a service may take for an answer: what it judged at the beginning it may mint at the end."""
_NEGATED = {">=": "<", ">": "<=", "<=": ">", "=": "is not"}


class Inequality(msgspec.Struct, frozen=True, kw_only=True):
    """Two sides with their numbers, whether the relation holds between them, and what would follow if it did not."""

    rule: int | None  # Of those that the architecture numbers under "Rotation"; None: it stands under "Revocation".
    left: str
    relation: str  # One of >=, >, <= and =.
    right: str
    holds: bool
    why: str
    mend: str

    @property
    def stated(self) -> str:
        """Return it as it should be, with the numbers as they are."""
        return f"{self.left} {self.relation} {self.right}"

    @property
    def refusal(self) -> str:
        """Return how it is broken, what follows from that, and the mend."""
        return f"{self.breach}; {self.mend}"

    @property
    def breach(self) -> str:
        """Return how it is broken, and what follows from that."""
        return f"{self.left} {_NEGATED[self.relation]} {self.right}: {self.why}"


def violations(policy: RotationPolicy) -> list[str]:
    """Name each rule that the policy breaks, with the numbers; empty if it can work."""
    return [one.refusal for one in inequalities(policy) if not one.holds]


def inequalities(policy: RotationPolicy) -> list[Inequality]:
    """Return all that the policy has to keep, in order of their rules."""
    rules = (*_barrier(policy), *_periods(policy), *_limits(policy), *_lease(policy), *_cache(policy))
    return sorted((*rules, *_standbys(policy)), key=lambda one: one.rule or 0)


def leeway_lasts(*, leeway_seconds: float, skew_seconds: float) -> Inequality:
    """Return whether T + G + 2S + leeway is long enough to keep a revocation for.

    A token that was being minted when the revocation became durable ends up to G and a request later, by an issuer's
    clock that may be S ahead, and verifiers forgive S. One whose clock was set back goes by the publisher's time less
    S: when it forgets it may take it to be S earlier.
    """
    needed = REQUEST_SECONDS + skew_seconds
    return Inequality(
        rule=None, left=f"leeway {leeway_seconds:.12g} s", relation=">=",
        right=f"request {REQUEST_SECONDS:.12g} s + skew {skew_seconds:.12g} s = {needed:.12g} s",
        holds=leeway_seconds >= needed, why="a revocation could be forgotten before the last token that it names",
        mend=f"set revocation.leeway to at least {needed:.12g} s, or shorten freshness.skew",
    )  # fmt: skip


def grants_outlast_tokens(
    *, grant_seconds: float, access_token_seconds: float, refresh_token_seconds: float
) -> list[Inequality]:
    """Return whether tokens may live as long as settings say: none is good for longer than its grant."""
    return [
        Inequality(
            rule=None, left=f"{name} {seconds:.12g} s", relation="<=", right=f"grants.life {grant_seconds:.12g} s",
            holds=seconds <= grant_seconds, why="each would end with its grant before that",
            mend=f"shorten authorization.{name}, or lengthen grants.life everywhere",
        )
        for name, seconds in (("access_token", access_token_seconds), ("refresh_token", refresh_token_seconds))
    ]  # fmt: skip


def _barrier(p: RotationPolicy) -> Iterator[Inequality]:
    needed = p.expired_seconds + p.skew_seconds
    yield Inequality(
        rule=1, left=f"distribution {p.distribution_seconds:.12g} s", relation=">=",
        right=f"expired {p.expired_seconds:.12g} s + skew {p.skew_seconds:.12g} s = {needed:.12g} s",
        holds=p.distribution_seconds >= needed, why="a verifier could still serve without the new key",
        mend=f"set distribution to at least {needed:.12g} s",
    )  # fmt: skip
    if p.barrier is Barrier.REPORTS:
        yield Inequality(
            rule=1, left=f"barrier reports with cache {p.cache_seconds:.12g} s", relation="=", right="0 s",
            holds=p.cache_seconds <= 0, why="who pulls the JWKS never reports",
            mend="set cache to 0, or barrier to both",
        )  # fmt: skip
    yield _more_than_nothing("expired", p.expired_seconds, rule=1)
    for name, value in (("skew", p.skew_seconds), ("cache", p.cache_seconds), ("deadline", p.deadline_seconds)):
        yield _not_negative(name, value)


def _periods(p: RotationPolicy) -> Iterator[Inequality]:
    for alg in p.algorithms:
        period = p.period_seconds(alg)
        yield _more_than_nothing(f"active ({alg})", period, rule=1)
        if p.barrier is Barrier.REPORTS:
            continue
        yield Inequality(
            rule=1, left=f"active {period:.12g} s ({alg})", relation=">",
            right=f"distribution {p.distribution_seconds:.12g} s + cache {p.cache_seconds:.12g} s"
            f" + skew {p.skew_seconds:.12g} s = {p.publication_seconds:.12g} s",
            holds=period > p.publication_seconds, why="a successor could not be ready in time", mend="lengthen active",
        )  # fmt: skip
    named = len(p.algorithms)
    yield Inequality(
        rule=6, left=f"algorithms {named}", relation=">=", right="1", holds=named >= 1,
        why="nothing could be signed", mend="name at least one",
    )  # fmt: skip
    yield Inequality(
        rule=6, left=f"algorithms {named}", relation="=", right=f"different ones {len(set(p.algorithms))}",
        holds=named == len(set(p.algorithms)), why="one is named twice", mend="name each once",
    )  # fmt: skip
    for alg in sorted(p.active_by_algorithm.keys() - set(p.algorithms)):
        yield Inequality(
            rule=6, left=f"active_of {alg}", relation="=", right="one of the algorithms", holds=False,
            why=f"no key is made for {alg}", mend="name it among them, or leave its period out",
        )  # fmt: skip


def _limits(p: RotationPolicy) -> Iterator[Inequality]:
    yield _more_than_nothing("token", p.token_seconds, rule=2)
    needed = p.token_seconds + 2 * p.skew_seconds
    yield Inequality(
        rule=2, left=f"removal after {p.aftermath_seconds:.12g} s", relation=">=",
        right=f"token {p.token_seconds:.12g} s + 2 skew {p.skew_seconds:.12g} s = {needed:.12g} s",
        holds=p.aftermath_seconds >= needed, why="a key would go while its tokens live", mend="lengthen lease",
    )  # fmt: skip


def _lease(p: RotationPolicy) -> Iterator[Inequality]:
    yield _more_than_nothing("lease", p.lease_seconds, rule=3)
    yield Inequality(
        rule=3, left=f"lease {p.lease_seconds:.12g} s", relation=">", right=f"skew {p.skew_seconds:.12g} s",
        holds=p.lease_seconds > p.skew_seconds or p.skew_seconds <= 0,
        why="a signer would stop between two heartbeats of a store whose clock is off", mend="lengthen lease",
    )  # fmt: skip


def _cache(p: RotationPolicy) -> Iterator[Inequality]:
    age, unpublished = jwks_max_age(p), p.publication_seconds - p.skew_seconds
    yield Inequality(
        rule=4, left=f"JWKS max-age {age} s", relation="<=",
        right=f"cache {p.cache_seconds:.12g} s, and distribution + cache {unpublished:.12g} s",
        holds=age <= max(0.0, min(p.cache_seconds, unpublished)), why="a pulled set could lack a key that signs",
        mend="lengthen distribution",
    )  # fmt: skip


def _standbys(p: RotationPolicy) -> Iterator[Inequality]:
    yield Inequality(
        rule=6, left=f"standbys {p.standbys}", relation=">=", right="1", holds=p.standbys >= 1,
        why="an emergency would have no key that verifiers know", mend="set at least 1",
    )  # fmt: skip


def _more_than_nothing(name: str, value: float, *, rule: int) -> Inequality:
    return Inequality(
        rule=rule, left=f"{name} {value:.12g} s", relation=">", right="0 s", holds=value > 0,
        why="no time at all cannot work", mend="lengthen it",
    )  # fmt: skip


def _not_negative(name: str, value: float) -> Inequality:
    return Inequality(
        rule=1, left=f"{name} {value:.12g} s", relation=">=", right="0 s", holds=value >= 0,
        why="there is no such time", mend="set 0 or more",
    )  # fmt: skip
