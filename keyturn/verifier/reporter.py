"""A verifier's presence: its signed report, once a second, and at once when a receipt asks."""

import asyncio

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.contract.reports import Report, sign_report
from keyturn.feed.log import PresenceBoard
from keyturn.verifier.replica import Replica

REPORT_EVERY_SECONDS = 1.0


class Reporter:
    """Writes the reports of one verifier; at most one write is under way, and what changed meanwhile follows."""

    def __init__(
        self, board: PresenceBoard, key: StatementKey, replica: Replica, clock: Clock, *, verifier: str
    ) -> None:
        self._board, self._key, self._replica, self._clock = board, key, replica, clock
        self._verifier, self._incarnation, self._count = verifier, entropy.uuid7(clock.now()), 0
        self._asked = asyncio.Event()
        self._reported, self._told_state = ((0, 0), (0, 0)), ""

    def notice(self) -> None:
        """Look at the replica after a change: report at once if a receipt asks or our state is another, else soon."""
        asked = self._replica.report_asked and self._places() != self._reported
        if asked or self._state() != self._told_state:
            self._asked.set()

    async def run(self) -> None:
        """Report until cancelled; then say goodbye, so that nobody waits for us."""
        try:
            while True:
                await self._report(goodbye=False)
                try:
                    async with asyncio.timeout(REPORT_EVERY_SECONDS):
                        await self._asked.wait()
                except TimeoutError:
                    pass  # A second has passed.
                self._asked.clear()
        finally:
            await self._report(goodbye=True)

    def _places(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return self._replica.place(Lane.KEYS), self._replica.place(Lane.REVOCATIONS)

    def _hash(self, lane: Lane) -> str:
        position = self._replica.position(lane)
        return "" if position is None else position.hash

    def _state(self) -> str:
        return self._replica.state(self._clock.now(), self._clock.boottime())

    async def _report(self, *, goodbye: bool) -> None:
        now = self._clock.now()
        self._replica.report_asked = False
        keys, revocations = places = self._places()
        self._count += 1
        report = Report(
            verifier=self._verifier, incarnation=self._incarnation, count=self._count, at=now,
            keys=keys, revocations=revocations, state=self._state(),
            goodbye=goodbye, keys_hash=self._hash(Lane.KEYS), revocations_hash=self._hash(Lane.REVOCATIONS),
        )  # fmt: skip
        freshness = self._replica.freshness
        ttl = freshness.expired_after_seconds + freshness.skew_seconds
        try:
            await self._board.report(self._verifier, sign_report(self._key, report), ttl_seconds=ttl)
        except FeedUnavailable:
            return  # The next second tries again; a report only ever helps others.
        self._reported, self._told_state = places, report.state
