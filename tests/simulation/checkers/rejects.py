"""No verifier that says `fresh` rejects a live token."""

from keyturn.verifier.freshness import State
from keyturn.verifier.verdict import Kind, Verdict
from tests.rotation.facts import Broken
from tests.simulation.checkers.base import Checker
from tests.simulation.clock import START
from tests.simulation.facts import Minted
from tests.simulation.plan import FRESHNESS
from tests.simulation.processes import VerifierProcess

NO_FALSE_REJECT = "no false reject while fresh"


class FalseRejects(Checker):
    """A token is live until shortly before it expires, unless anybody has asked for its end."""

    def judged(self, process: VerifierProcess, token: Minted, verdict: Verdict) -> None:
        """Refuse a rejection that has no reason."""
        if verdict.state is not State.FRESH or START + self.moment > token.exp - FRESHNESS.skew_seconds:
            return
        if verdict.kind is Kind.ACTIVE:
            self.world.reached["accepted while fresh"] += 1
        elif self.truth.losses and self.truth.keys.get(token.kid) is None:
            self.world.reached["signed by a key that the store has lost"] += 1
        elif verdict.kind is Kind.INACTIVE and not self.truth.in_doubt(token):
            raise Broken(NO_FALSE_REJECT, verifier=process.name, why=verdict.reason, signer=token.signer)
