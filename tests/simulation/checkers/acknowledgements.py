"""An acknowledged revocation stands in the feed when it is acknowledged, and everybody obeys it until it runs out."""

from keyturn.verifier.verdict import Kind
from tests.rotation.facts import Broken
from tests.simulation.checkers.base import Checker
from tests.simulation.facts import Revocation

IN_THE_FEED = "an acknowledged revocation stands in the feed"
NOT_LOST = "an acknowledged revocation is never lost"


class Acknowledgements(Checker):
    """Looks when a client is answered, and again in the end."""

    def acknowledged(self, revocation: Revocation) -> None:
        """Whoever acknowledges must have appended before."""
        if not revocation.ever_landed:
            raise Broken(IN_THE_FEED, selector=revocation.selector)
        self.world.reached["acknowledged"] += 1

    def ended(self) -> None:
        """No verifier has forgotten any."""
        for revocation in self.truth.revocations:
            if revocation.acknowledged is None:
                continue
            for token in revocation.tokens:
                for verifier in self.world.verifiers:
                    verdict = verifier.judge(token)
                    if verdict.kind is Kind.ACTIVE:
                        raise Broken(NOT_LOST, verifier=verifier.name, selector=revocation.selector)
                    self.world.reached["refused in the end"] += 1
