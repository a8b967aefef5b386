"""Sealed private keys that the store has lost, or holds where it should not, and who puts that right."""

from pathlib import Path

import pytest

from keyservice.keyring import Keyring
from keyservice.restoring import RESTORE_EVERY_SECONDS, Restoring
from keyservice.rotator import Order
from keyservice.sealing import KeySealer
from keyservice.wrapping import FileWrapper
from keyturn.cli.kekfile import new_kek
from keyturn.contract.keys import Phase, Use
from keyturn.contract.positions import Lane
from keyturn.feed.memory import MemoryFeed
from keyturn.process.logging import logger
from keyturn.verifier.statefiles import StateDirectory
from tests.clocks import ManualClock
from tests.keyservice.building import Inside, inside, kek_file
from tests.world import World


@pytest.fixture
async def world() -> World:
    """Return a world whose feed has begun."""
    return await World(clock=ManualClock()).begin()


@pytest.fixture
async def one(world: World) -> Inside:
    """Return a key service that has its first keys open."""
    made = await inside(world)
    await made.rotator.tick()
    assert await made.keyring.refresh() == []
    return made


def boxes(world: World) -> dict[str, bytes]:
    """Return what the store holds, to be twisted."""
    assert isinstance(world.feed, MemoryFeed)
    return world.feed._sealed


async def test_what_the_store_has_lost_is_put_back(world: World, one: Inside) -> None:
    """Else the next restart of the key service would find keys that verify everywhere and sign nowhere."""
    held = dict(boxes(world))
    boxes(world).clear()
    put_back, erased = await one.keyring.restore()
    assert (set(put_back), erased) == (set(held), ())
    assert boxes(world) == held
    assert await one.keyring.restore() == ((), ())


async def test_the_store_is_looked_at_now_and_then_and_in_each_new_epoch(world: World, one: Inside) -> None:
    """A restore from backup opens an epoch: what it lost of the sealed keys is back with the next look."""
    assert isinstance(world.clock, ManualClock)
    restoring = Restoring(one.keyring, one.member.replica, world.clock, logger("tests"))
    held = dict(boxes(world))
    await restoring.look()
    boxes(world).clear()
    await restoring.look()
    assert boxes(world) == {}
    world.clock.advance(RESTORE_EVERY_SECONDS)
    await restoring.look()
    assert boxes(world) == held
    boxes(world).clear()
    assert await one.publisher.open_epoch(2, after=str(one.member.replica.position(Lane.KEYS)))
    await restoring.look()
    assert boxes(world) == held


async def test_what_somebody_has_overwritten_is_replaced_and_what_was_sealed_anew_is_kept(
    world: World, one: Inside
) -> None:
    """A thief's garbage must go; another key service's `kek rotate` must not be undone."""
    first, second = list(boxes(world))[:2]
    good = boxes(world)[second]
    fresh = await one.keyring._sealer.reseal(first, one.member.replica.keys.get(first).use, boxes(world)[first])  # type: ignore[union-attr]
    anew = fresh or boxes(world)[first]
    boxes(world)[first], boxes(world)[second] = anew, b"garbage"
    put_back, _ = await one.keyring.restore()
    assert put_back == (second,)
    assert boxes(world)[first] == anew
    assert boxes(world)[second] == good


async def test_a_seal_by_a_key_encryption_key_that_is_not_held_here_is_left_alone(world: World, one: Inside) -> None:
    """Another key service has rotated the KEK and ours has not read the new file yet: its seals must not be undone."""
    kid = next(iter(boxes(world)))
    elsewhere = KeySealer(FileWrapper(kek_file(new_kek(2.0))))
    private = one.keyring.get(kid)
    record = one.member.replica.keys.get(kid)
    assert private is not None
    assert record is not None
    boxes(world)[kid] = by_the_new_one = await elsewhere.seal(kid, record.use, private)
    assert await one.keyring.restore() == ((), ())
    assert boxes(world)[kid] == by_the_new_one


async def test_a_key_that_has_ended_is_erased_wherever_a_backup_brought_it_back(world: World, one: Inside) -> None:
    """A restored store must not offer the private half of a revoked key."""
    kid = one.member.replica.keys.active("ES256", Use.ACCESS)
    assert kid is not None
    held = boxes(world)[kid.kid]
    await one.rotator.revoke(kid.kid, Order())
    assert kid.kid not in boxes(world)
    boxes(world)[kid.kid] = held
    boxes(world)["of-a-key-that-we-never-heard-of"] = b"not ours to judge"
    assert await one.keyring.restore() == ((), (kid.kid,))
    assert "of-a-key-that-we-never-heard-of" in boxes(world)


async def test_a_restart_on_an_emptied_store_opens_the_keys_from_its_own_disk(world: World, tmp_path: Path) -> None:
    """The store is gone and the process too: what the state directory holds is all that there is."""
    wrapper = FileWrapper(kek_file())
    made = await inside(world)
    with StateDirectory(tmp_path) as files:
        before = Keyring(KeySealer(wrapper), world.feed, made.member.replica, files=files)
        made.rotator._keyring = before
        await made.rotator.tick()
        assert await before.refresh() == []
    signing = {key.kid for key in made.member.replica.keys if key.phase in (Phase.PUBLISHED, Phase.ACTIVE)}
    boxes(world).clear()
    with StateDirectory(tmp_path) as files:
        after = Keyring(KeySealer(wrapper), world.feed, made.member.replica, files=files)
        assert await after.refresh() == []
        assert all(after.get(kid) is not None for kid in signing)
        put_back, _ = await after.restore()
        assert set(put_back) == signing
        active = made.member.replica.keys.active("ES256", Use.ACCESS)
        assert active is not None
        await made.rotator.revoke(active.kid, Order())
        await after.refresh()
        assert active.kid not in files.sealed(), "what has ended is not kept"
    (tmp_path / "sealed.json").write_bytes(b"\xff")
    with StateDirectory(tmp_path) as files:
        assert files.sealed() == {}
