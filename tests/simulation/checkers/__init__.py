"""What must hold in every run, each invariant in a file of its own."""

from tests.simulation.checkers.acknowledgements import Acknowledgements
from tests.simulation.checkers.base import Checker
from tests.simulation.checkers.exposure import Exposure
from tests.simulation.checkers.keys import OneKeySigns
from tests.simulation.checkers.liveness import WellInTheEnd
from tests.simulation.checkers.positions import Positions
from tests.simulation.checkers.receipts import Receipts
from tests.simulation.checkers.rejects import FalseRejects
from tests.simulation.checkers.signing import Signing
from tests.simulation.checkers.tombstones import Tombstones

CHECKERS: tuple[type[Checker], ...] = (
    Acknowledgements, Exposure, FalseRejects, OneKeySigns, Positions, Receipts, Signing, Tombstones, WellInTheEnd,
)  # fmt: skip
