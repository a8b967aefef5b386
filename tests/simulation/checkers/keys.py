"""After every event exactly one key of an algorithm signs."""

from keyturn.contract.positions import Lane
from tests.rotation.invariants import one_key_signs
from tests.simulation.checkers.base import Checker


class OneKeySigns(Checker):
    """Looks at the key set that the store's events add up to."""

    def landed(self, lane: Lane) -> None:
        """Check what the server now holds."""
        if lane is Lane.KEYS:
            one_key_signs(self.truth.keys, self.rules.algorithms[0])
            self.world.reached["key events"] += 1
