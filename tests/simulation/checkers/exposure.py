"""A verifier that says `fresh` knows what was revoked longer ago than `stale`; one that serves at all, than E + S."""

from keyturn.verifier.freshness import State
from keyturn.verifier.verdict import Kind, Verdict
from tests.rotation.facts import Broken
from tests.simulation.checkers.base import Checker
from tests.simulation.facts import Minted
from tests.simulation.plan import FRESHNESS
from tests.simulation.processes import VerifierProcess

FRESH = "who says fresh knows of every revocation that is older than that"
SERVING = "a revoked token is accepted for E + S at most"
_ROUNDING_SECONDS = 0.01


class Exposure(Checker):
    """Measures from when the revocation, or the key's tombstone, landed; anew from when the store lost writes."""

    def judged(self, process: VerifierProcess, token: Minted, verdict: Verdict) -> None:
        """Refuse an acceptance that is too late to be excused."""
        if verdict.kind is not Kind.ACTIVE:
            return
        moments = [one.landed for one in self.truth.revoked(token) if one.landed is not None]
        if (tombstone := self.truth.keys_revoked.get(token.kid)) is not None:
            moments.append(tombstone)
        if not moments:
            return
        seconds = self.moment - max([min(moments), *self.truth.losses])
        self.world.reached["accepted though revoked, not knowing"] += 1
        slack = FRESHNESS.skew_seconds + _ROUNDING_SECONDS
        if verdict.state is State.FRESH and seconds > FRESHNESS.stale_after_seconds + slack:
            raise Broken(FRESH, verifier=process.name, seconds=seconds)
        if seconds > FRESHNESS.expired_after_seconds + slack:
            raise Broken(SERVING, verifier=process.name, seconds=seconds)
