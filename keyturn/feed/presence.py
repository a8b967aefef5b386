"""Who is live and what they have adopted, told from signed reports alone."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from keyturn.clock import Clock
from keyturn.contract.errors import FeedUnavailable, TrustError
from keyturn.contract.positions import Lane
from keyturn.contract.reports import Report, open_report
from keyturn.contract.rotation import Adoption
from keyturn.contract.trust import IdentityKind, Trust
from keyturn.feed.log import Listening, PresenceBoard

_POLL_SECONDS = 1.0
_LOOKED_WITHIN_SECONDS = 3 * _POLL_SECONDS


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest report of a verifier, and when it reached us (boot-time seconds)."""

    report: Report
    boottime: float
    compact: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Adopters:
    """Which live verifiers hold a place and when each of them said so; which do not."""

    boottimes: Mapping[str, float]  # By name, when an adopter's first word of it reached us.
    laggards: tuple[str, ...]

    @property
    def adopted(self) -> tuple[str, ...]:
        """Return the names of those who hold it."""
        return tuple(self.boottimes)

    @property
    def slowest_boottime(self) -> float | None:
        """Return when the last adopter's word reached us, None before the first."""
        return max(self.boottimes.values(), default=None)

    @property
    def are_most(self) -> bool:
        """Say whether more than half of the live verifiers hold it, or nobody lags."""
        return not self.laggards or len(self.boottimes) > len(self.laggards)


class PresenceWatch:
    """Keeps the newest valid report of every verifier that the root knows.

    `live_seconds` is E + S: a verifier that said no goodbye counts for so long after its last report. The set
    counts as complete once it was watched that long on one server run; with `durable` (one server that loses no
    acknowledged write and never fails over) it is complete as soon as it was read. Either way the board must have
    been read within the last 3 s: who was cut off or stopped himself would take everybody else for dead, so that is
    no watching either.

    `hash_at` tells what stands at a place of our own chain: after a failover that lost a tail a verifier may stand at
    the same numbers of another history, which is no adoption. Without it places are believed as they are reported.
    """

    def __init__(
        self,
        board: PresenceBoard,
        trust: Callable[[], Trust],
        clock: Clock,
        *,
        live_seconds: float,
        durable: bool = False,
        hash_at: Callable[[Lane, tuple[int, int]], str | None] | None = None,
    ) -> None:
        self._board, self._trust, self._clock = board, trust, clock
        self._live_seconds, self._durable, self._hash_at = live_seconds, durable, hash_at
        self._seen: dict[str, Seen] = {}
        self._run: str | None = None
        self._watching_since: float | None = None
        self._looked_at = float("-inf")
        self._began_here = False
        self._changed = asyncio.Condition()
        self._moments: dict[tuple[str, Lane], list[tuple[tuple[int, int], float]]] = {}

    async def run(self) -> None:
        """Watch until cancelled; survives the loss of the store."""
        while True:
            try:
                async with self._board.watch() as bell:
                    while True:
                        match await bell.next(_POLL_SECONDS):
                            case (verifier, report):
                                self._take(verifier, report)
                            case Listening() | None:
                                await self.look()
                        if self._clock.boottime() - self._looked_at >= _POLL_SECONDS:
                            await self.look()
                        async with self._changed:
                            self._changed.notify_all()
            except FeedUnavailable:
                await self._clock.sleep(_POLL_SECONDS / 4)

    def adoption(self) -> Adoption:
        """Return what live verifiers have adopted of the keys lane."""
        live = {name: self._stands_at(seen.report, Lane.KEYS) for name, seen in self._live().items()}
        return Adoption(live, complete=self.complete)

    def lane_began(self) -> None:
        """Take note that the feed began just now, by our hand: nobody can have been live before.

        It holds for the present server run, as watching does.
        """
        self._began_here = True

    @property
    def complete(self) -> bool:
        """Say whether no live verifier can be missing from the set."""
        since, now = self._watching_since, self._clock.boottime()
        if since is None or now - self._looked_at > _LOOKED_WITHIN_SECONDS:
            return False
        return self._durable or self._began_here or now - since >= self._live_seconds

    def adopters(self, lane: Lane, place: tuple[int, int]) -> Adopters:
        """Sort the live verifiers into those that hold a place of a lane and those that lag."""
        boottimes, laggards = {}, []
        for name, seen in sorted(self._live().items()):
            if self._stands_at(seen.report, lane) >= place:
                boottimes[name] = self._first_at(name, lane, place, seen)
            else:
                laggards.append(name)
        return Adopters(boottimes, tuple(laggards))

    async def adopted(self, lane: Lane, place: tuple[int, int], *, within_seconds: float) -> Adopters:
        """Wait until every live verifier holds a place, or until the time is up; return who does."""
        try:
            async with asyncio.timeout(within_seconds), self._changed:
                await self._changed.wait_for(lambda: not self.adopters(lane, place).laggards)
        except TimeoutError:
            pass  # The laggards are in the answer.
        return self.adopters(lane, place)

    async def change(self, *, within_seconds: float) -> None:
        """Wait for the next report, or until the time is up."""
        try:
            async with asyncio.timeout(within_seconds), self._changed:
                await self._changed.wait()
        except TimeoutError:
            return

    def all(self) -> list[Seen]:
        """Return every live verifier's newest report, by name."""
        return [seen for _, seen in sorted(self._live().items())]

    async def look(self) -> None:
        """Read every report, now. Raises FeedUnavailable."""
        asked = self._clock.boottime()
        identities = self._trust().document.identities
        known = [name for name, one in identities.items() if one.kind is IdentityKind.VERIFIER]
        run = await self._board.server_run()
        reports = await self._board.reports(known)
        if self._trust().version == 0:
            return  # Before we know who is a verifier, nobody can be called absent.
        # Who does not look for a while cannot tell what stood on the board and was taken from it.
        interrupted = run != self._run or asked - self._looked_at > _LOOKED_WITHIN_SECONDS
        if self._watching_since is None or (interrupted and not self._durable):
            self._began_here = self._began_here and self._run is None
            self._watching_since = self._clock.boottime()
        self._run, self._looked_at = run, asked
        for verifier, report in reports.items():
            self._take(verifier, report)

    def _take(self, verifier: str, compact: bytes) -> None:
        held = self._seen.get(verifier)
        if held is not None and held.compact == compact:
            return  # The board still shows what the bell brought.
        try:
            report = open_report(compact, verifier, self._trust().identity(verifier, IdentityKind.VERIFIER))
        except TrustError:
            return  # Not a verifier that the root knows, or not its word.
        now = self._clock.boottime()
        # Past its time the held report protects from no replay: those are too old as well. A verifier that came back
        # with an earlier clock must count as live.
        if held is not None and report.order <= held.report.order and now - held.boottime < self._live_seconds:
            return
        if self._clock.now() - report.at >= self._live_seconds:
            return  # A replay from long ago, or a verifier that has been dead for longer than it could serve.
        self._seen[verifier] = Seen(report, now, compact)
        for lane in Lane:
            moments = self._moments.setdefault((verifier, lane), [])
            place = _place(report, lane)
            if not moments or place > moments[-1][0]:
                moments.append((place, now))
                del moments[:-256]

    def _stands_at(self, report: Report, lane: Lane) -> tuple[int, int]:
        """Return where a verifier stands on our chain; nowhere, where it is not known to be ours."""
        place = _place(report, lane)
        told = report.keys_hash if lane is Lane.KEYS else report.revocations_hash
        if self._hash_at is not None and self._hash_at(lane, place) != told:
            return 0, 0
        return place

    def _first_at(self, name: str, lane: Lane, place: tuple[int, int], seen: Seen) -> float:
        moments = self._moments.get((name, lane), [])
        return next((moment for held, moment in moments if held >= place), seen.boottime)

    def _live(self) -> dict[str, Seen]:
        horizon = self._clock.boottime() - self._live_seconds
        return {name: seen for name, seen in self._seen.items() if not seen.report.goodbye and seen.boottime > horizon}


def _place(report: Report, lane: Lane) -> tuple[int, int]:
    return report.keys if lane is Lane.KEYS else report.revocations
