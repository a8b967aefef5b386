"""A decision that others overtook while its keys were made."""

import asyncio
import threading

import msgspec
import pytest

from keyturn import entropy
from keyturn.contract.keys import Phase
from keyturn.contract.positions import Lane
from tests.clocks import HastyClock
from tests.keyservice.building import POLICY, inside
from tests.waiting import eventually
from tests.world import World


async def test_what_was_decided_before_the_lane_moved_is_decided_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """RSA keys take a while, in a thread: the set that another worker appends meanwhile stays the only one."""
    world = await World(clock=HastyClock()).begin()
    one, other = [await inside(world, msgspec.structs.replace(POLICY, algorithms=("RS256",))) for _ in range(2)]
    making, let_go = threading.Event(), threading.Event()

    def make_slowly(alg: str) -> entropy.PrivateKey:
        making.set()
        let_go.wait(10)
        return new_key(alg)

    new_key = entropy.new_key
    monkeypatch.setattr(entropy, "new_key", make_slowly)
    tick = asyncio.create_task(one.rotator.tick())
    await eventually(making.is_set)
    monkeypatch.undo()
    await other.rotator.tick()
    await one.member.follower._read_all()
    let_go.set()
    assert await tick == 0
    assert [key.phase for key in one.member.replica.keys] == [Phase.ACTIVE, Phase.PUBLISHED, Phase.PUBLISHED]
    assert one.member.replica.place(Lane.KEYS) == (1, 1)
