"""A feed in the hands of somebody who can do everything but sign."""

import asyncio
from typing import Any

from keyturn.contract.positions import Lane
from keyturn.feed.log import Rung, Top
from keyturn.feed.memory import MemoryFeed


class TwistedFeed(MemoryFeed):
    """Memory, with the ways in which a store can fail or lie."""

    def __init__(self) -> None:
        super().__init__()
        self.deaf = False  # Nothing rings.
        self.deaf_lanes: set[Lane] = set()
        self.false_tops: dict[Lane, Top] = {}
        self.trimmed = dict.fromkeys(Lane, 0)  # Events up to that sequence are gone.
        self.gate: asyncio.Event | None = None  # Reads of `gated_lane` wait for it.
        self.gated_lane: Lane | None = None
        self.reads = self.tops = self.trust_reads = self.subscriptions = self.waiting = 0

    def ring(self, word: Rung) -> None:
        """Ring with whatever one likes."""
        super()._ring(word)

    def _ring(self, word: Rung) -> None:
        if not self.deaf and word.lane not in self.deaf_lanes:
            super()._ring(word)

    def stream(self, lane: Lane) -> list[bytes]:
        """Return the events of the first epoch, to be changed."""
        return self._chains[lane].events[1]

    def forget_events(self, lane: Lane) -> None:
        """Go back to the snapshot, as a failover to a replica that lagged."""
        chain = self._chains[lane]
        chain.events.clear()
        chain.statement = chain.snapshot.compact
        chain.position = str(chain.snapshot.position)

    def put_trust(self, compact: bytes | None) -> None:
        """Store another trust document, or none."""
        self._trust = compact

    async def top(self, lane: Lane) -> Top | None:
        """Return the newest place, or what somebody claims to be it."""
        self.reads += 1
        self.tops += 1
        if self.gate is not None and lane is self.gated_lane and not self.gate.is_set():
            self.waiting += 1
            await self.gate.wait()
        return self.false_tops.get(lane) or await super().top(lane)

    async def events(self, lane: Lane, *, epoch: int, after: int) -> list[bytes]:
        """Return events that were not trimmed."""
        self.reads += 1
        return await super().events(lane, epoch=epoch, after=max(after, self.trimmed[lane]))

    async def snapshot(self, lane: Lane) -> bytes | None:
        """Return the newest snapshot."""
        self.reads += 1
        return await super().snapshot(lane)

    async def trust(self) -> bytes | None:
        """Return the stored trust document."""
        self.trust_reads += 1
        return await super().trust()

    def listen(self) -> Any:
        """Subscribe, and be counted."""
        self.subscriptions += 1
        return super().listen()
