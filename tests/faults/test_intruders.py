"""The store is in a stranger's hands: no key, no revocation, no token comes of it, and who looks can see it."""

import pytest

from tests.faults import attacks_on_the_store as store
from tests.faults.attack_table import ATTACKS, Row
from tests.faults.intruder import Intruder
from tests.faults.judging import judge
from tests.faults.mishaps import all_are
from tests.faults.people import People
from tests.faults.withstanding import Attack, scene_of, withstand


@pytest.mark.parametrize(
    "attack", [store.locked_out("revocation"), store.deaf], ids=["silences a publisher", "takes the doorbell away"]
)
async def test_what_is_withheld_makes_everybody_stale_and_then_expired(people: People, attack: Attack) -> None:
    """He need not forge anything to hide a revocation; what he withholds he can hide for so long and no longer."""
    async with people.fleet.redis() as redis:
        scene = await scene_of(people, Intruder(redis))
        async with attack(scene):
            await all_are("stale")(people)
            assert await people.statuses(scene.live) == [200, 200]
            assert await people.statuses(scene.revoked) == [401, 401]
            await all_are("expired")(people)
            assert await people.statuses(scene.live) == [503, 503]
            assert await people.statuses(scene.revoked) == [503, 503]
    await all_are("fresh")(people)
    assert await people.statuses(scene.live) == [200, 200]
    verdict = judge(people.recorder, bound_seconds=people.fleet.stale_seconds)
    assert (verdict.false_accepts, verdict.rejected_though_fresh) == ([], [])


@pytest.mark.parametrize("row", ATTACKS, ids=lambda row: row.does)
async def test_nothing_is_accepted_and_all_is_well_again_once_he_has_left(people: People, row: Row) -> None:
    """He can stop the lanes while he is there. He cannot make, unmake or bring back anything that is signed."""
    outcome = await withstand(people, row.attack, row.notices)
    assert outcome.accepted == []
