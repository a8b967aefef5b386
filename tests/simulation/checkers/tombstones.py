"""A revoked key never verifies again where its tombstone is known."""

from typing import TYPE_CHECKING

from keyturn.contract.keys import Phase
from keyturn.verifier.verdict import Kind, Verdict
from tests.rotation.facts import Broken
from tests.simulation.checkers.base import Checker
from tests.simulation.facts import Minted
from tests.simulation.processes import VerifierProcess

if TYPE_CHECKING:
    from tests.simulation.processes import Process
    from tests.simulation.world import Simulation

ABSORBING = "a revoked key never verifies again"


class Tombstones(Checker):
    """Remembers which incarnation has held which tombstone."""

    def __init__(self, world: "Simulation") -> None:
        """Begin with nothing seen."""
        super().__init__(world)
        self._known: dict[tuple[str, int], set[str]] = {}

    def moved(self, process: "Process") -> None:
        """Take note of the tombstones that a replica holds; none may have gone."""
        if not self.truth.keys_revoked:
            return
        keys = process.member.replica.keys
        known = self._known.setdefault((process.name, process.incarnation), set())
        for kid in known:
            record = keys.get(kid)
            if record is None or record.phase is not Phase.REVOKED:
                raise Broken(ABSORBING, name=process.name, kid=kid)
        known.update(key.kid for key in keys if key.phase is Phase.REVOKED)

    def judged(self, process: VerifierProcess, token: Minted, verdict: Verdict) -> None:
        """Whoever knows the tombstone refuses the key's tokens."""
        if token.kid in self._known.get((process.name, process.incarnation), ()):
            if verdict.kind is Kind.ACTIVE:
                raise Broken(ABSORBING, verifier=process.name, kid=token.kid)
            self.world.reached["refused a revoked key"] += 1
