"""What a checker may hear of; each overrides what it needs, and raises Broken."""

from typing import TYPE_CHECKING

from keyturn.contract.positions import Lane
from keyturn.verifier.verdict import Verdict
from tests.simulation.facts import Minted, Revocation

if TYPE_CHECKING:
    from tests.simulation.processes import KeyServiceProcess, Process, VerifierProcess
    from tests.simulation.world import Simulation


class Checker:
    """Hears of everything at the moment at which it happens."""

    def __init__(self, world: "Simulation") -> None:
        """Look at a world that is about to run."""
        self.world, self.truth, self.rules = world, world.truth, world.plan.rules

    @property
    def moment(self) -> float:
        """Return the virtual seconds since the beginning."""
        return self.world.loop.time()

    def landed(self, lane: Lane) -> None:
        """Hear that the server took an event, or began an epoch; `truth` has it already."""

    def signed(self, process: "KeyServiceProcess", token: Minted) -> None:
        """Hear that a token was handed out."""

    def moved(self, process: "Process") -> None:
        """Hear that a replica has taken something in."""

    def judged(self, process: "VerifierProcess", token: Minted, verdict: Verdict) -> None:
        """Hear what a verifier answered."""

    def acknowledged(self, revocation: Revocation) -> None:
        """Hear that a client was told that its revocation is durable."""

    def ended(self) -> None:
        """Hear that the faults have been over for long enough."""
