"""The store freezes, or is killed: what was acknowledged holds, and what cannot be known is not said."""

import asyncio

import pytest

from tests.faults.drills import LATE_SECONDS, Fault, Until, drill
from tests.faults.fleet import EXPIRED_SECONDS, LEASE_SECONDS, STALE_SECONDS
from tests.faults.judging import judge
from tests.faults.mishaps import all_are, answers, frozen, killed
from tests.faults.people import People
from tests.faults.recorder import CLOCK
from tests.waiting import eventually


async def test_a_frozen_server_makes_sidecars_stale_then_expired_and_a_thawed_one_fresh(people: People) -> None:
    """A silent store is no reason to refuse anybody, until a revocation may have passed everybody by."""
    server, live = people.fleet.server, await people.token()
    revoked = await people.token()
    assert await people.revoke(revoked) == 200
    server.freeze()
    try:
        await eventually(lambda: people.are("stale"), within_seconds=STALE_SECONDS + 2)
        for sidecar in people.sidecars():
            assert (await people.check(live, sidecar)).state == "stale"
        assert await people.statuses(revoked) == [401, 401]
        assert judge(people.recorder, bound_seconds=STALE_SECONDS).rejected == []
        await eventually(lambda: people.are("expired"), within_seconds=EXPIRED_SECONDS)
        assert await people.statuses(live) == [503, 503]
        assert await people.statuses(revoked) == [503, 503]
    finally:
        server.thaw()
    await eventually(lambda: people.are("fresh"), within_seconds=LATE_SECONDS)
    assert await people.statuses(live) == [200, 200]
    assert await people.statuses(revoked) == [401, 401]


async def test_a_frozen_server_makes_services_say_that_they_cannot_tell(people: People) -> None:
    """Never an inactive that is not sure, a 200 for a revocation that is not durable, or a token without a lease."""
    server, live = people.fleet.server, await people.token()
    server.freeze()
    frozen = CLOCK.boottime()
    try:
        await eventually(lambda: people.are("stale"), within_seconds=STALE_SECONDS + 2)
        await eventually(lambda: CLOCK.boottime() > frozen + LEASE_SECONDS)
        told = await asyncio.gather(people.introspect(live), people.sign_in(), people.revoke(live), people.rotate())
    finally:
        server.thaw()
    assert all(one is None for one in told)
    assert people.refused == [(503, "1")] * 4


@pytest.mark.parametrize(
    ("fault", "until"),
    [(killed, answers), (killed, all_are("stale")), (frozen, all_are("stale"))],
    ids=["killed, and back at once", "killed, and away until stale", "frozen until stale"],
)
async def test_whatever_happens_to_the_server_under_load_nothing_is_lost_or_mixed_up(
    people: People, fault: Fault, until: Until
) -> None:
    """Revocations and rotations go on throughout: what was acknowledged holds from its receipt on, for good."""
    outcome = await drill(people, fault, until)
    assert outcome.verdict.false_accepts == []
    assert outcome.verdict.rejected == []
    assert outcome.verdict.signed_by_old == []
    assert set(people.refused) <= {(503, "1")}
    assert max(outcome.back_seconds.values()) <= LATE_SECONDS
