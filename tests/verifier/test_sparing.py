"""Notes within measure."""

from keyturn.verifier.sparing import MOST_A_SECOND, Sparing
from tests.clocks import ManualClock


def test_a_flood_is_noted_in_measure_and_counted() -> None:
    """Garbage on the doorbell once wrote a sidecar's log at 600 kB a second."""
    noted: list[tuple[str, dict[str, object]]] = []
    clock = ManualClock()
    note = Sparing(lambda event, **facts: noted.append((event, facts)), clock)
    for _ in range(1000):
        note("statement_refused", lane="keys")
    note("trust_adopted", version=2)
    assert len(noted) == MOST_A_SECOND + 1
    assert noted[-1] == ("trust_adopted", {"version": 2})
    clock.advance(1)
    note("statement_refused", lane="keys")
    assert noted[-1] == ("statement_refused", {"lane": "keys", "left_out": 1000 - MOST_A_SECOND})
    clock.advance(1)
    note("statement_refused", lane="keys")
    assert noted[-1] == ("statement_refused", {"lane": "keys"})
