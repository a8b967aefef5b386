"""Each process's own way to the one store, and its own clock: what a test cuts, slows and puts wrong."""

from collections.abc import Awaitable, Callable

from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.events import SignedEvent, SignedHead
from keyturn.contract.positions import Lane, Position
from keyturn.feed.log import NOTHING_BESIDE, Beside
from keyturn.feed.memory import MemoryFeed
from tests.clocks import HastyClock


class OwnClock:
    """A process's clock: a little off the true one, and stopped together with its process."""

    def __init__(self, true: HastyClock, *, off_seconds: float = 0.0) -> None:
        """Begin in step, but for the offset of the wall clock."""
        self._true, self._off_seconds = true, off_seconds
        self.pause_seconds = 0.0  # The process is stopped for so long when it next looks at its wall clock.

    def now(self) -> float:
        """Return the wall time as this machine has it."""
        paused, self.pause_seconds = self.pause_seconds, 0.0
        self._true.advance(paused)
        return self._true.now() + self._off_seconds

    def boottime(self) -> float:
        """Return seconds on the clock that never goes back."""
        return self._true.boottime()

    async def sleep(self, seconds: float) -> None:
        """Let that much time pass."""
        await self._true.sleep(seconds)


class Line(MemoryFeed):
    """The shared store as one process reaches it."""

    def __init__(self, store: MemoryFeed, clock: OwnClock, landed: Callable[[SignedEvent], None]) -> None:
        """Share the store's content; `landed` hears of each event that the store took from here."""
        super().__init__()
        self.severed = self.loses_answer = False
        self.meanwhile: Callable[[], Awaitable[None]] | None = None  # What others do while the next append travels.
        self.accepted_at = float("-inf")  # When the store last took a write at our position and we heard so.
        self._store, self._clock, self._landed = store, clock, landed
        self._chains, self._sealed, self._reports = store._chains, store._sealed, store._reports
        self._bells, self._watchers = store._bells, store._watchers

    async def append(self, event: SignedEvent, *, after: Position, beside: Beside = NOTHING_BESIDE) -> None:
        """Add an event, perhaps after a while, and perhaps without hearing of it."""
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        await super().append(event, after=after, beside=beside)
        self._landed(event)
        if self.loses_answer:
            self.loses_answer = False
            raise FeedUnavailable("the answer was lost on the way")
        self.accepted_at = self._clock.boottime()

    async def beat(self, head: SignedHead, *, beater: str) -> bool:
        """Store a head."""
        done = await super().beat(head, beater=beater)
        if done:
            self.accepted_at = self._clock.boottime()
        return done

    async def confirm(self, lane: Lane, position: Position) -> bool:
        """Write if the lane stands there."""
        done = await super().confirm(lane, position)
        if done:
            self.accepted_at = self._clock.boottime()
        return done

    async def trust(self) -> bytes | None:
        """Return the stored trust document."""
        self._reach()
        return await self._store.trust()

    async def server_run(self) -> str:
        """Name the store's present run."""
        self._reach()
        return await self._store.server_run()

    def _reach(self) -> None:
        if self.severed:
            raise FeedUnavailable("the line is cut")
        self._store._reach()
