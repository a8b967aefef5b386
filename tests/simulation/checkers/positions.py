"""A replica's position never goes back, and one place has one hash, whoever holds it; but for what the server lost."""

from typing import TYPE_CHECKING

from keyturn.contract.positions import Lane, Position
from tests.rotation.facts import Broken
from tests.simulation.checkers.base import Checker

if TYPE_CHECKING:
    from tests.simulation.processes import Process
    from tests.simulation.world import Simulation

NEVER_BACK = "a position never goes back"
ONE_HASH = "one place has one hash"


class Positions(Checker):
    """Remembers every place of every incarnation."""

    def __init__(self, world: "Simulation") -> None:
        """Begin with nothing seen."""
        super().__init__(world)
        self._last: dict[tuple[str, int, Lane], Position] = {}
        self._hashes: dict[tuple[Lane, tuple[int, int]], str] = {}

    def moved(self, process: "Process") -> None:
        """Compare with what this incarnation, and anybody else, held before."""
        for lane in Lane:
            position = process.member.replica.position(lane)
            if position is None:
                continue
            incarnation = (process.name, process.incarnation, lane)
            last = self._last.get(incarnation)
            if last == position:
                continue
            if last is not None and position.place <= last.place and str(last) not in self.truth.orphans:
                raise Broken(NEVER_BACK, name=process.name, lane=lane, last=last, position=position)
            self._last[incarnation] = position
            held = self._hashes.setdefault((lane, position.place), position.hash)
            if held != position.hash and not self.truth.losses:  # After a loss there may be two histories for a while.
                raise Broken(ONE_HASH, name=process.name, lane=lane, place=position.place)
            self.world.reached["steps forward"] += 1
            if last is not None and position.sequence > last.sequence + 1:
                self.world.reached["leaps forward"] += 1
