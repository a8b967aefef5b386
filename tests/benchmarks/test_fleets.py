"""What a fleet that is measured tells of itself."""

import asyncio

import pytest

from benchmarks.adoption import Adoption
from benchmarks.fleets import Fleet, Part, Told, printed
from benchmarks.load import MeasurementSpoiledError
from keyturn.contract.positions import Lane
from keyturn.feed.memory import MemoryFeed
from tests.clocks import ManualClock
from tests.verifier.followed import revoke
from tests.world import World


def _lines(*lines: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(b"".join(line + b"\n" for line in lines))
    reader.feed_eof()
    return reader


async def test_an_event_is_told_when_the_last_follower_holds_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The last one is what is measured; a follower that jumps over several events holds them all."""
    world = await World(feed=MemoryFeed(), clock=ManualClock()).begin()
    publisher, *followers = [await world.caught_up() for _ in range(3)]
    adoption = Adoption(len(followers))
    for member in followers:
        adoption.watch(member.follower)
    await revoke(world, publisher, "one", "two")
    await followers[0].follower.catch_up()
    assert capsys.readouterr().out == ""
    await followers[1].follower.catch_up()
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in told] == ["1", "2"]
    assert publisher.replica.place(Lane.REVOCATIONS) == (1, 2)


async def test_a_fleet_in_two_processes_is_as_late_as_the_later_one() -> None:
    """Events before the one that is asked about are passed over, and what was read is added up."""
    one = Part(_lines(b"1 10.0 5 2", b"2 20.5 6 2"), [])
    two = Part(_lines(b"2 20.0 7 3"), [])
    assert await Fleet([one, two]).told(2) == Told(20.5, 13, 5)


async def test_a_process_that_ended_spoils_the_measurement() -> None:
    """Silence is no figure."""
    with pytest.raises(MeasurementSpoiledError, match="ended"):
        await printed(_lines(), 1)
    with pytest.raises(MeasurementSpoiledError, match="nothing was heard"):
        await printed(asyncio.StreamReader(), 0.01)
