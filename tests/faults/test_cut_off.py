"""Somebody is cut off from the store in one direction while every connection stands: only the heartbeat tells."""

from collections.abc import AsyncIterator

import pytest

from tests.faults.doorman import Doorman, Way, doorman_before
from tests.faults.drills import LATE_SECONDS, Until, drill
from tests.faults.mishaps import all_are, answers, behind, cut
from tests.faults.people import People

PUBLISHERS, CUT_OFF, WELL = ("keyservice", "revocation"), "sidecar-2", "sidecar-1"


@pytest.fixture
async def door_of_a_sidecar(people: People) -> AsyncIterator[Doorman]:
    """Put a door between one sidecar and the store."""
    async with doorman_before(people.fleet.server.port) as doorman, behind(doorman, people.fleet, CUT_OFF):
        yield doorman


@pytest.fixture
async def door_of_publishers(people: People) -> AsyncIterator[Doorman]:
    """Put a door between the voices of both lanes and the store."""
    async with doorman_before(people.fleet.server.port) as doorman, behind(doorman, people.fleet, *PUBLISHERS):
        yield doorman


@pytest.mark.parametrize(
    ("way", "until"),
    [(Way.FROM_STORE, all_are("stale", [CUT_OFF])), (Way.TO_STORE, answers)],
    ids=["hears nothing", "is not heard"],
)
async def test_a_sidecar_that_is_cut_off_one_way_passes_nothing_that_a_receipt_had_ended(
    people: People, door_of_a_sidecar: Doorman, way: Way, until: Until
) -> None:
    """A deaf one says that it is stale, a mute one still obeys, and no receipt of all counts either of them in."""
    outcome = await drill(people, cut(door_of_a_sidecar, way), until)
    assert outcome.verdict.false_accepts == []
    assert outcome.verdict.rejected_though_fresh == []
    assert outcome.back_seconds[WELL] == 0
    assert outcome.back_seconds[CUT_OFF] <= LATE_SECONDS


@pytest.mark.parametrize("way", list(Way), ids=["are not heard", "hear nothing"])
async def test_publishers_that_are_cut_off_one_way_promise_nothing(
    people: People, door_of_publishers: Doorman, way: Way
) -> None:
    """What cannot be known to be durable is 503, all sidecars get stale, and the first heartbeat ends it."""
    outcome = await drill(people, cut(door_of_publishers, way), all_are("stale"))
    assert outcome.verdict.false_accepts == []
    assert outcome.verdict.rejected == []
    assert outcome.verdict.signed_by_old == []
    assert set(people.refused) <= {(503, "1")}
    assert max(outcome.back_seconds.values()) <= LATE_SECONDS
