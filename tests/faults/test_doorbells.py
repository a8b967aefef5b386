"""Pub/sub forgets: what a sidecar did not hear, it reads."""

from collections.abc import AsyncIterator

import pytest

from keyturn.contract.positions import Lane
from tests.faults.doorman import Doorman, doorman_before, events, everything, of_lanes
from tests.faults.judging import judge
from tests.faults.mishaps import behind
from tests.faults.people import People
from tests.waiting import eventually

HEARD, DEAF = "sidecar-1", "sidecar-2"
EVENTS_HEARD_SECONDS = 1.5  # By the next heartbeat.
NOTHING_HEARD_SECONDS = 4.0  # By the look after two seconds of silence.


@pytest.fixture
async def doorman(people: People) -> AsyncIterator[Doorman]:
    """Put a doorman between one sidecar and the store, for the time of a test."""
    async with doorman_before(people.fleet.server.port) as doorman, behind(doorman, people.fleet, DEAF):
        yield doorman


async def test_a_dropped_event_is_caught_up_with_the_next_heartbeat(people: People, doorman: Doorman) -> None:
    """The head names a place that we do not hold, so the stream is read: a lost message costs a second, no more."""
    held, untouched = await people.token(), await people.token()
    doorman.drops = events
    assert await people.revoke(held, wait=False) == 200
    await eventually(lambda: doorman.dropped)
    assert doorman.dropped == 1
    assert (await people.check(held, HEARD)).status == 401

    async def refused() -> bool:
        return (await people.check(held, DEAF)).status == 401

    await eventually(refused, within_seconds=EVENTS_HEARD_SECONDS)
    assert await people.statuses(untouched) == [200, 200]


async def test_a_receipt_waits_for_the_sidecar_that_heard_nothing(people: People, doorman: Doorman) -> None:
    """Adoption is what the verifier says that it did, not what was sent to it."""
    held = await people.token()
    doorman.drops = events
    assert await people.revoke(held, wait=True) == 200
    assert await people.statuses(held) == [401, 401]
    assert doorman.dropped == 1


@pytest.mark.parametrize("lanes", [{Lane.REVOCATIONS}, set(Lane)])
async def test_a_deaf_doorbell_is_noticed_by_its_silence(people: People, doorman: Doorman, lanes: set[Lane]) -> None:
    """A connection that stands and says nothing more raises no error; one lane's talk must not hide the other."""
    held, untouched = await people.token(), await people.token()
    doorman.drops = of_lanes(*lanes)
    assert await people.revoke(held, wait=False) == 200

    async def refused() -> bool:
        return (await people.check(held, DEAF)).status == 401

    await eventually(refused, within_seconds=NOTHING_HEARD_SECONDS)
    assert (await people.check(untouched, DEAF)).status == 200
    assert judge(people.recorder, bound_seconds=people.fleet.stale_seconds).rejected == []
    assert doorman.dropped >= 1


async def test_a_token_of_a_key_that_was_not_heard_of_passes_at_once(people: People, doorman: Doorman) -> None:
    """Rule 8: an unknown kid of our own issuer makes the sidecar look before it refuses."""
    doorman.drops = everything
    old = await people.token()
    assert await people.rotate() in (200, 202)
    new = await people.token()
    assert await people.statuses(old) == [200, 200]
    assert await people.statuses(new) == [200, 200]
