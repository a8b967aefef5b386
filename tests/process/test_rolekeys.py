"""A publisher takes the key that its file has become, when the root has given that key the role and not before."""

import json
from pathlib import Path
from typing import Any

import pytest

from keyturn import entropy
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import ed25519_private_jwk
from keyturn.contract.positions import Lane
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.publisher import Publisher
from keyturn.process.rolekeys import ROLE_KEY_TAKEN, ROLE_KEY_UNREADABLE, RoleKeyFile
from keyturn.process.values import Secret
from tests.clocks import ManualClock
from tests.world import Member, World

KEYS, REVOCATIONS = Lane


class Desk:
    """A role's file, and the publisher that reads it."""

    def __init__(self, world: World, member: Member, path: Path) -> None:
        """Begin with the key that has the role."""
        self.world, self.member, self.path = world, member, path
        self.noted: list[tuple[str, dict[str, Any]]] = []
        world.roles[KEYS] = self.write()

    def begin(self) -> None:
        """Wire the publisher and its file."""
        world = self.world
        self.publisher = Publisher(KEYS, world.roles[KEYS], world.feed, self.member.replica, world.clock)
        self.file = RoleKeyFile(
            self.publisher, Secret.read(self.path), world.clock, setting="x.role_key_file",
            note=lambda event, **facts: self.noted.append((event, facts)),
        )  # fmt: skip

    def write(self) -> StatementKey:
        """Put a new private key into the file."""
        private = entropy.new_statement_key()
        self.path.unlink(missing_ok=True)
        self.path.touch(mode=0o600)
        self.path.write_text(json.dumps(ed25519_private_jwk(private)))
        return StatementKey(private)

    def events(self) -> list[str]:
        """Name what was noted."""
        return [event for event, _ in self.noted]


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    """Return a publisher whose lane has begun."""
    world = World(feed=MemoryFeed(), clock=ManualClock())
    desk = Desk(world, world.member(), tmp_path / "keys.jwk")
    await world.begin()
    await desk.member.follower._read_all()
    desk.begin()
    return desk


async def test_a_new_key_waits_for_the_document_and_then_signs(desk: Desk) -> None:
    """Taken too early it would sign what nobody believes; taken too late the lane would stand still."""
    assert not await desk.publisher.mend_snapshot()  # It looks once a minute.
    old, new = desk.world.roles[KEYS], desk.write()
    desk.file.look()
    assert (desk.events(), desk.publisher.is_trusted()) == ([], True)
    both = {"keys": (old.public, new.public), "revocations": (desk.world.roles[REVOCATIONS].public,)}
    await desk.world.feed.keep_trust(desk.world.trust_bytes(version=2, roles=both))
    desk.member.replica.adopt_trust(desk.world.trust(version=2, roles=both))
    desk.file.look()
    desk.file.look()
    assert desk.noted == [(ROLE_KEY_TAKEN, {"lane": KEYS, "kid": new.kid})]
    await desk.publisher.append([desk.world.new_key()])
    assert await desk.publisher.mend_snapshot()  # At once, though it looked within this minute.
    only = both | {"keys": (new.public,)}
    await desk.world.feed.keep_trust(desk.world.trust_bytes(version=3, roles=only))
    late = await desk.world.caught_up()
    assert late.replica.place(KEYS) == (1, 1)


@pytest.mark.parametrize("how", ["gone", "garbage", "open to others"])
async def test_a_file_that_holds_no_key_changes_nothing_and_is_said_once(desk: Desk, how: str) -> None:
    """An editor that saves in two steps must not silence a publisher."""
    if how == "gone":
        desk.path.unlink()
    elif how == "garbage":
        desk.path.write_text("{}")
    else:
        desk.path.chmod(0o644)
    desk.file.look()
    desk.file.look()
    assert desk.events() == [ROLE_KEY_UNREADABLE]
    assert desk.publisher.is_trusted()
    await desk.publisher.append([desk.world.new_key()])
