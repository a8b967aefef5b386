"""Who works for long lets others have their turn, by the time that has passed and not by what was done."""

from revocation.turns import TURN_SECONDS, Turns
from tests.clocks import ManualClock


async def test_a_turn_lasts_for_its_time_and_the_next_one_as_long() -> None:
    """Else revocations would wait for seconds behind the rows of a million tokens."""
    clock = ManualClock()
    turns = Turns(clock)
    assert turns.is_over()
    for _ in range(3):
        await turns.give_way()
        assert not turns.is_over()
        clock.advance(TURN_SECONDS / 2)
        assert not turns.is_over()
        clock.advance(TURN_SECONDS / 2 + 1e-6)
        assert turns.is_over()
        clock.advance(60.0)  # However long others took: the next turn begins after them.
