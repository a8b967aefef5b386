"""The server comes back without what it had acknowledged: its publishers bring that back, under load."""

import pytest

from tests.faults.drills import LATE_SECONDS, Fault, drill
from tests.faults.mishaps import answers, emptied, failing_over, restored
from tests.faults.people import People


@pytest.mark.parametrize("fault", [emptied, restored], ids=["comes back empty", "comes back from an older copy"])
async def test_a_server_that_lost_what_it_had_acknowledged_gets_it_back(people: People, fault: Fault) -> None:
    """A receipt is a promise about the future: what revoked a token must outlive the disk that it was written to."""
    outcome = await drill(people, fault, answers)
    assert outcome.verdict.false_accepts == []
    assert outcome.verdict.rejected_though_fresh == []
    assert outcome.verdict.signed_by_old == []
    assert max(outcome.back_seconds.values()) <= LATE_SECONDS


async def test_a_replica_that_lacks_the_newest_writes_gets_them_when_it_becomes_the_primary() -> None:
    """Asynchronous replication loses what was acknowledged last: to everybody it looks like a rollback."""
    async with failing_over() as (people, fault):
        outcome = await drill(people, fault, answers)
    assert outcome.verdict.false_accepts == []
    assert outcome.verdict.rejected_though_fresh == []
    assert outcome.verdict.signed_by_old == []
    assert max(outcome.back_seconds.values()) <= LATE_SECONDS
