"""A clock that is set back under the revocation service: what it is told to end, it ends all the same."""

from revocation.keeping import Keeping
from revocation.reading import OrderReader
from tests.building import FickleRedis, standing
from tests.clocks import LeapingClock

GRANT_SECONDS = 90_000.0
KEEPING = Keeping(longest_token_seconds=300, grant_seconds=GRANT_SECONDS, skew_seconds=2, leeway_seconds=60)
HOUR = 3600.0


async def test_a_clock_that_was_set_back_dates_no_cutoff_into_the_past() -> None:
    """Whoever signed in within that hour would stay, and what names him be forgotten that hour too early.

    Checklist, revocation (9) and (10); RFC 7009, 2.1.
    """
    clock = LeapingClock()
    async with standing(FickleRedis(), clock=clock) as stage:
        reader, truth = OrderReader(stage.parts, KEEPING), stage.parts.replica.heard_at
        assert abs(truth - clock.now()) < HOUR / 2
        clock.ahead_seconds = -HOUR
        entries = [
            reader.order({"selector": {"sub": "alice"}}).entry,
            reader.line(b'{"jti": "one"}', before=truth),
            reader.line(b'{"grant_id": "one"}', before=truth),
        ]
    lives = [GRANT_SECONDS, KEEPING.longest_token_seconds, GRANT_SECONDS]
    assert entries[0].selector.before is not None
    assert entries[0].selector.before >= truth - stage.parts.skew_seconds
    assert all(one.until >= truth + life for one, life in zip(entries, lives, strict=True))
