"""The signer's lease across stopped processes, several key services, and a store that went back in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path

import jwt
import pytest

from keyservice.rotator import Order
from keyservice.signer import Request
from keyturn.contract.errors import SignerUnavailable
from keyturn.contract.keys import Use
from keyturn.contract.positions import Lane
from keyturn.feed.memory import MemoryFeed
from tests.clocks import HastyClock
from tests.faults.fleet import LEASE_SECONDS, Fleet, running_fleet, spawn
from tests.faults.recorder import CLOCK
from tests.faults.test_the_processes import sign
from tests.keyservice.building import POLICY, Inside, allowed, inside
from tests.keyservice.stopping import ARM
from tests.waiting import eventually
from tests.world import World

AT_ONCE = 20


@asynccontextmanager
async def stopping(arm: Path) -> AsyncIterator[Fleet]:
    """Run a fleet with a key service that stops itself in a signature when that file is there."""
    async with running_fleet() as fleet:
        fleet.start("revocation")
        start_stopping(fleet, arm)
        await fleet.until_ready("revocation", "keyservice")
        yield fleet


def start_stopping(fleet: Fleet, arm: Path) -> None:
    """Start that key service under the name of the usual one."""
    settings = fleet._settings | {
        "REDIS__URL": fleet.server.url(), "KEYSERVICE__LISTEN": fleet.address("keyservice"),
        "KEYSERVICE__SIGNING_LISTEN": f"unix:{fleet.socket('keyservice')}", ARM: str(arm),
    }  # fmt: skip
    with (fleet.directory / "keyservice.log").open("ab") as log:
        kind = "tests.keyservice.stopping"
        fleet.processes["keyservice"] = spawn(fleet.directory / "keyturn.toml", kind, settings, stderr=log)


def is_stopped(pid: int) -> bool:
    """Say whether a process's time stands still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_who_is_stopped_between_look_and_signature_past_the_lease_signs_nothing(tmp_path: Path) -> None:
    """It wakes with a signature in its hands that nobody may see, and goes on once the store has confirmed."""
    arm = tmp_path / "stop"
    async with stopping(arm) as fleet:
        assert (await sign(fleet, "keyservice"))[0] == 200
        arm.touch()
        asked = asyncio.create_task(sign(fleet, "keyservice"))
        pid = fleet.processes["keyservice"].pid
        try:
            await eventually(lambda: is_stopped(pid))
            stopped = CLOCK.boottime()
            await eventually(lambda: CLOCK.boottime() > stopped + LEASE_SECONDS, within_seconds=LEASE_SECONDS + 2)
        finally:
            fleet.thaw("keyservice")
        assert (await asked)[0] == 503

        async def signs() -> bool:
            return (await sign(fleet, "keyservice"))[0] == 200

        await eventually(signs, within_seconds=5, saying=fleet.last_words)


async def test_who_is_stopped_for_less_than_the_lease_answers(tmp_path: Path) -> None:
    """A lease that ended with every pause would answer nobody on a busy machine."""
    arm = tmp_path / "stop"
    async with stopping(arm) as fleet:
        arm.touch()
        asked = asyncio.create_task(sign(fleet, "keyservice"))
        await eventually(lambda: is_stopped(fleet.processes["keyservice"].pid))
        fleet.thaw("keyservice")
        assert (await asked)[0] == 200


async def test_two_key_services_sign_at_once_and_by_the_same_key() -> None:
    """Their heartbeats must not take the lease from each other."""
    async with running_fleet("revocation", "keyservice", "keyservice-2") as fleet:
        for _ in range(3):
            names = ["keyservice", "keyservice-2"] * AT_ONCE
            answers = await asyncio.gather(*(sign(fleet, name) for name in names))
            assert {status for status, _ in answers} == {200}
            assert len({kid for _, kid in answers}) == 1
            moment = CLOCK.boottime()
            await eventually(lambda: CLOCK.boottime() > moment + LEASE_SECONDS / 2)  # noqa: B023 - waited for here


@pytest.fixture
async def world() -> World:
    """Return a world whose feed has begun."""
    return await World(clock=HastyClock()).begin()


def sign_here(world: World, one: Inside) -> str:
    """Return the kid that signs."""
    token = one.signer.sign(Request("at+jwt", world.claims(iss=None, iat=None)), identity=allowed())
    return str(jwt.get_unverified_header(token)["kid"])


async def test_after_a_failover_to_an_older_copy_nothing_is_signed_by_a_key_that_is_not_active_there(
    world: World,
) -> None:
    """Who knows of a rotation that the store has lost stops at its lease's end; who knows what is there signs."""
    feed, clock = world.feed, world.clock
    assert isinstance(feed, MemoryFeed)
    assert isinstance(clock, HastyClock)
    ahead = await inside(world)
    await ahead.rotator.tick()
    await ahead.keyring.refresh()
    copy = deepcopy((feed._chains, feed._sealed))
    outcome = await ahead.rotator.rotate("ES256", Order())
    await ahead.keyring.refresh()
    assert sign_here(world, ahead) == outcome.kid
    feed._chains, feed._sealed = copy
    feed.run = "run-2"
    clock.advance(POLICY.lease_seconds / 2)
    assert not await ahead.publisher.beat()
    clock.advance(POLICY.lease_seconds / 2)
    with pytest.raises(SignerUnavailable, match="lease"):
        sign_here(world, ahead)
    there = await inside(world)
    await there.keyring.refresh()
    assert await there.publisher.beat()
    active = there.member.replica.keys.active("ES256", Use.ACCESS)
    assert active is not None
    assert sign_here(world, there) == active.kid != outcome.kid
    for _ in range(3):
        clock.advance(1)
        assert await there.publisher.beat()
        assert not await ahead.publisher.beat()
        with pytest.raises(SignerUnavailable, match="lease"):
            sign_here(world, ahead)
    assert ahead.member.replica.place(Lane.KEYS) > there.member.replica.place(Lane.KEYS)
