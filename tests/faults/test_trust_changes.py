"""The root's commands on a fleet that runs: nobody is restarted, no good token is refused, no thief is believed."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from keyturn.cli.main import main
from keyturn.contract.encoding import decode_object
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import load_ed25519_private
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from tests.faults.fleet import EVERYTHING, Fleet, running_fleet
from tests.faults.intruder import Intruder
from tests.faults.people import People, people_of
from tests.faults.recorder import CLOCK
from tests.waiting import eventually
from tests.world import World

LOOKING_SECONDS = 60.0
PAUSE_SECONDS = 0.05
KEYS, REVOCATIONS = Lane
VOICES = {KEYS: ("keyservice", "worker"), REVOCATIONS: ("revocation",)}


async def trust(fleet: Fleet, *argv: str) -> None:
    """Run a command of `trust` where the fleet's files are."""
    assert await asyncio.to_thread(main, ["trust", *argv, "--dir", str(fleet.directory), "--json"]) == 0


async def in_force(people: People, version: int) -> None:
    """Wait until every sidecar has a version of the trust document."""

    async def adopted() -> bool:
        return all([(await people.state(name))["trust_version"] == version for name in people.sidecars()])

    await eventually(adopted, within_seconds=LOOKING_SECONDS, saying=people.fleet.last_words)


async def switched(fleet: Fleet, lane: Lane, times: int) -> None:
    """Wait until every publisher of a lane has taken a new role key so many times."""

    def taken() -> bool:
        return all(fleet.log(name).count('"role_key_taken"') == times for name in VOICES[lane])

    await eventually(taken, within_seconds=LOOKING_SECONDS, saying=fleet.last_words)


@asynccontextmanager
async def under_load(people: People) -> AsyncIterator[None]:
    """Have tokens issued and checked all the while; fail if one is refused that is good."""

    async def use() -> None:
        while True:
            held = await people.sign_in()
            if held is not None:
                statuses = await people.statuses(held)
                assert set(statuses) <= {200, 503}, statuses  # Late on a busy machine, but never refused.
            await CLOCK.sleep(PAUSE_SECONDS)

    using = asyncio.create_task(use())
    try:
        yield
    finally:
        using.cancel()
        done = await asyncio.gather(using, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError), done


async def test_roles_and_root_change_hands_under_load_without_a_restart() -> None:
    """The orderly way: two steps for each role, one for the root, and who comes late with an old pin is led on."""
    async with running_fleet(*EVERYTHING) as fleet, people_of(fleet) as people:
        version = 1
        async with under_load(people):
            for lane in Lane:
                await trust(fleet, "rotate-role", lane)
                await in_force(people, version := version + 1)
                await switched(fleet, lane, 1)
                await trust(fleet, "rotate-role", lane, "--finish")
                await in_force(people, version := version + 1)
            shutil.copy(fleet.directory / "root.jwk", fleet.directory / "first-root.jwk")
            await trust(fleet, "rotate-root")
            await in_force(people, version := version + 1)
        held, dead = await people.token(), await people.token()
        assert await people.revoke(dead) == 200
        await fleet.end("sidecar-2")
        fleet.start("sidecar-2", TRUST__ROOT=str(fleet.directory / "first-root.jwk"))
        await fleet.until_ready("sidecar-2")
        assert await people.statuses(held) == [200, 200]
        assert await people.statuses(dead) == [401, 401]
        assert await people.rotate() in (200, 202)
        assert not [line for line in fleet.log("sidecar-1").splitlines() if "statement_unreadable" in line]


@pytest.mark.parametrize("lane", Lane)
async def test_a_stolen_role_key_is_worth_nothing_within_seconds(lane: Lane) -> None:
    """The runbook's commands, against a thief who writes to the store and signs by the stolen key all the while."""
    async with running_fleet(*EVERYTHING) as fleet, people_of(fleet) as people:
        stolen = StatementKey(
            load_ed25519_private(decode_object((fleet.directory / f"roles/{lane}.jwk").read_bytes()))
        )  # fmt: skip
        before, dead = await people.token(), await people.token()
        assert await people.revoke(dead) == 200
        await trust(fleet, "revoke-role", lane)
        await in_force(people, 2)
        async with fleet.redis() as redis:
            thief = Intruder(redis)

            async def begun() -> bool:
                return (await thief.position(lane)).epoch == 2

            await eventually(begun, within_seconds=LOOKING_SECONDS, saying=fleet.last_words)
            await eventually(people.well, within_seconds=LOOKING_SECONDS, saying=fleet.last_words)
            await fleet.until_ready("keyservice", "authorization", "introspection", "revocation")
            live = await people.token()
            if lane is KEYS:  # Every signing key was dropped: what they signed is refused, and new keys sign.
                assert await people.statuses(before) == [401, 401]
            else:  # Every revocation was dropped, as the command says: the operator ends what is older.
                assert await people.statuses(dead) == [200, 200]
                cutoff = {"selector": {"before": CLOCK.now()}}
                assert await people.order("revocation", "/revocations?wait=all&timeout=5", cutoff)
                assert await people.statuses(dead) == await people.statuses(before) == [401, 401]
                live = await people.token()
            world = World(issuer=fleet.issuer)
            refused = await people.metric("sidecar-1", "keyturn_replica_statements_refused_total")
            forged = world.first_key() if lane is KEYS else [world.entry(SelectorKind.ALL, before=CLOCK.now())]
            await thief.push(lane, await thief.event(lane, forged, stolen), stolen)
            await eventually(partial(more_refused, people, refused))
            assert await people.statuses(live) == [200, 200]
        # The store itself is mended, too.
        await eventually(people.well, within_seconds=LOOKING_SECONDS, saying=fleet.last_words)
        assert await people.statuses(live) == [200, 200]


async def test_a_verifier_joins_and_leaves_a_running_fleet() -> None:
    """Identity and user of the store by one command each; receipts count it from its first report to its removal."""
    names = ("keyservice", "authorization", "introspection", "revocation", "sidecar-1")
    async with running_fleet(*names) as fleet, people_of(fleet) as people, fleet.redis() as redis:
        await trust(fleet, "add-verifier", "sidecar-9")
        await in_force(people, 2)
        await redis.acl_load()
        fleet.start("sidecar-9")
        await fleet.until_ready("sidecar-9")
        held = await people.token()
        assert await people.statuses(held) == [200, 200]

        async def both_are_counted() -> bool:
            selector = {"selector": {"jti": "of a token that never was"}}
            counted = await people.order("revocation", "/revocations?wait=all&timeout=5", selector)
            return counted is not None and counted[1]["live"] == 2

        # Its reports count once the revocation service has the new document, and has looked at the board since.
        await eventually(both_are_counted, within_seconds=LOOKING_SECONDS, saying=fleet.last_words)
        told = await people.order("revocation", "/revocations?wait=all&timeout=5", {"selector": {"jti": held.jti}})
        assert told is not None
        assert (told[0], told[1]["live"], told[1]["adopted"]) == (200, 2, 2)
        assert await people.statuses(held) == [401, 401]
        await trust(fleet, "remove-verifier", "sidecar-9")
        await in_force(people, 3)
        assert await people.look("sidecar-9", "/readyz") == 503
        assert await people.look("sidecar-1", "/readyz") == 200
        await redis.acl_load()
        assert "sidecar-9" not in await redis.acl_users()
        await eventually(partial(is_expired, people, "sidecar-9"), within_seconds=LOOKING_SECONDS)
        held = await people.token()
        told = await people.order("revocation", "/revocations?wait=all&timeout=5", {"selector": {"jti": held.jti}})
        assert told is not None
        assert (told[0], told[1]["live"], told[1]["adopted"]) == (200, 1, 1)


async def is_expired(people: People, sidecar: str) -> bool:
    """Say whether a sidecar has ceased to serve."""
    return str((await people.state(sidecar))["state"]) == "expired"


async def more_refused(people: People, before: float) -> bool:
    """Say whether a sidecar has met another statement that it does not believe."""
    return await people.metric("sidecar-1", "keyturn_replica_statements_refused_total") > before
