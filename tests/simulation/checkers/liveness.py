"""Once faults are over, everybody is fresh again within bounded time, at the one position that the server has."""

from keyturn.contract.positions import Lane
from keyturn.verifier.freshness import State
from tests.rotation.facts import Broken
from tests.simulation.checkers.base import Checker

FRESH = "everybody is fresh in the end"
ONE_POSITION = "everybody stands at one position in the end"
SIGNS = "a key service signs in the end"


class WellInTheEnd(Checker):
    """Looks once, when the time for settling is over."""

    def ended(self) -> None:
        """Nobody is left behind, and somebody signs."""
        for process in self.world.processes.values():
            state = process.member.replica.state(process.clock.now(), process.clock.boottime())
            if state is not State.FRESH:
                raise Broken(FRESH, name=process.name, state=state)
        for lane in Lane:
            stands = {name: one.member.replica.position(lane) for name, one in self.world.processes.items()}
            stands["server"] = self.world.server_position(lane)
            if len(set(stands.values())) > 1:
                raise Broken(ONE_POSITION, lane=lane, stands=stands)
        for service in self.world.key_services:
            if (reason := service.inside.signer.unready()) is not None:
                raise Broken(SIGNS, name=service.name, reason=reason)
        self.world.reached["well in the end"] += 1
