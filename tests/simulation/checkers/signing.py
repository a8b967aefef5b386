"""Nothing is signed by a key that is not active, nor by a signer whose lease has run out."""

from tests.rotation.invariants import signed_in_time
from tests.simulation.checkers.base import Checker
from tests.simulation.facts import Minted
from tests.simulation.processes import KeyServiceProcess


class Signing(Checker):
    """Compares with what the server took, and when."""

    def signed(self, process: KeyServiceProcess, token: Minted) -> None:
        """Refuse a signature that no write covers which the server has accepted lately."""
        ended = self.truth.keys_ended.get(token.kid)
        signed_in_time(
            signer=process.name, record=self.truth.signing(token.kid), lease_seconds=self.rules.lease_seconds,
            accepted_ago=self.moment - process.channel.accepted,
            ended_ago=None if ended is None else self.moment - ended,
        )  # fmt: skip
        self.world.reached["signed"] += 1
        self.world.reached["signed by a key that had just ended"] += ended is not None
