"""A worker that dies at any await, or hears nothing back, leaves a key set that the next one completes."""

import asyncio
from typing import Any

import pytest

from keyservice.rotator import Order
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.keys import Phase, Use
from keyturn.contract.positions import Lane
from keyturn.feed.memory import MemoryFeed
from tests.clocks import HastyClock
from tests.keyservice.building import inside
from tests.world import World


class Deadly(MemoryFeed):
    """Ends the caller at its n-th call, before or after the effect, by cancellation or by silence."""

    def __init__(self, *, at: int, after_effect: bool, silence: bool) -> None:
        super().__init__()
        self.calls, self.armed, self.struck = 0, False, False
        self._at, self._after_effect, self._silence = at, after_effect, silence

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in {"append", "events", "top", "snapshot", "sealed_keys", "trust", "reports", "server_run"}:
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            self.calls += self.armed
            strike = self.armed and not self.struck and self.calls == self._at
            if strike and not self._after_effect:
                self._strike()
            answer = await found(*arguments, **named)
            if strike:
                self._strike()
            return answer

        return call

    def _strike(self) -> None:
        self.struck = True
        raise FeedUnavailable("no answer came") if self._silence else asyncio.CancelledError


async def begun(at: int, *, after_effect: bool, silence: bool) -> tuple[World, Deadly]:
    """Return a world on such a feed."""
    feed = Deadly(at=at, after_effect=after_effect, silence=silence)
    return await World(feed=feed, clock=HastyClock()).begin(), feed


@pytest.mark.parametrize("silence", [True, False], ids=["silence", "death"])
@pytest.mark.parametrize("after_effect", [True, False], ids=["after", "before"])
@pytest.mark.parametrize("what", ["tick", "rotate", "revoke"])
async def test_whatever_was_cut_off_the_next_worker_completes(what: str, after_effect: bool, silence: bool) -> None:
    """Rule 7: nothing signs before it was persisted, and nothing is made twice."""
    struck = 0
    for at in range(1, 12):
        world, feed = await begun(at, after_effect=after_effect, silence=silence)
        one = await inside(world)
        if what != "tick":
            await one.rotator.tick()
        first = one.member.replica.keys.active("ES256", Use.ACCESS)
        feed.armed = True
        try:
            match what, first:
                case "rotate", _:
                    await one.rotator.rotate("ES256", Order(event_id="order:1"))
                case "revoke", record if record is not None:
                    await one.rotator.revoke(record.kid, Order(event_id="order:1"))
                case _:
                    await one.rotator.tick()
        except (FeedUnavailable, asyncio.CancelledError):
            struck += 1
        feed.armed = False
        other = await inside(world)
        match what, first:
            case "rotate", _:
                await other.rotator.rotate("ES256", Order(event_id="order:1"))
            case "revoke", record if record is not None:
                await other.rotator.revoke(record.kid, Order(event_id="order:1"))
        await other.rotator.tick()
        keys = other.member.replica.keys
        assert len(keys.of("ES256", Use.ACCESS, Phase.ACTIVE)) == 1
        assert len(keys.of("ES256", Use.ACCESS, Phase.PUBLISHED)) == 2
        ended = {"tick": 0, "rotate": 1, "revoke": 1}[what]
        assert len(keys) == 3 + ended, f"made twice, or lost, when struck at call {at}"
        assert other.member.replica.place(Lane.KEYS)[1] == 1 + ended
        assert await other.keyring.refresh() == [], "an active or published key without its private half"
        signing = {key.kid for key in keys if key.phase in (Phase.ACTIVE, Phase.PUBLISHED)}
        assert (await feed.sealed_keys()).keys() == signing, "a private half that nobody can use, or one too few"
    assert struck >= 1, "the feed was never cut off"
