"""After a receipt has said that all live verifiers adopted a revocation, nobody whom it counted accepts the token."""

from keyturn.verifier.verdict import Kind, Verdict
from tests.rotation.facts import Broken
from tests.simulation.checkers.base import Checker
from tests.simulation.facts import Minted
from tests.simulation.processes import VerifierProcess

NO_FALSE_ACCEPT = "no false accept after a receipt"


class Receipts(Checker):
    """Holds every verifier to what was said of it, its later incarnations included."""

    def judged(self, process: VerifierProcess, token: Minted, verdict: Verdict) -> None:
        """Refuse an acceptance that contradicts a receipt."""
        for one in self.truth.revoked(token):
            if one.receipt is None or process.name not in one.adopters:
                continue
            if verdict.kind is Kind.ACTIVE:
                raise Broken(
                    NO_FALSE_ACCEPT, verifier=process.name, selector=one.selector, after=self.moment - one.receipt
                )
            self.world.reached["refused after a receipt"] += 1
