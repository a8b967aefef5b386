"""What a publisher does where the store has lost, changed or replaced what it once accepted."""

from collections.abc import Awaitable, Callable, Iterator
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from keyturn.clock import Clock
from keyturn.contract.errors import MalformedInput, PositionTaken, StreamSpoiled, TrustError, UnknownKind
from keyturn.contract.events import SignedEvent, open_event, open_snapshot, signed_at
from keyturn.contract.keys import KeySet
from keyturn.contract.positions import Lane, Position, parse_position
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.union import united
from keyturn.feed.log import NOTHING_BESIDE, Beside, Feed, Top
from keyturn.feed.publisher import PublishedState, Publisher
from keyturn.feed.tail import Tail

APPENDED_AGAIN: Final = "events_appended_again"
EPOCH_OPENED: Final = "epoch_opened"
PATIENCE_SECONDS = 1.5  # A place ahead of ours is left to whoever put it there for so long.
EPOCH_EVERY_SECONDS = 2.0  # Who can write to the store must not make us open epochs without an end.


class Step(Enum):
    """What the store's position asks of a publisher."""

    NOTHING = auto()
    APPEND_AGAIN = auto()  # The store is behind on our own chain.
    WAIT = auto()  # The store is ahead, on what we cannot read (yet).
    OPEN = auto()  # The store has branched, or what we know stands nowhere any more.


def decide(mine: Position, stored: str | None, tail: Tail) -> Step:
    """Return what to do where a publisher stands at `mine` and the store says `stored` (None: nothing)."""
    if stored == str(mine):
        return Step.NOTHING
    theirs = _parsed(stored)
    if theirs is None or theirs.epoch < mine.epoch:
        return Step.OPEN
    if theirs.place > mine.place:
        return Step.WAIT
    if theirs.sequence < mine.sequence and tail.hash_at(theirs.sequence) == theirs.hash:
        return Step.APPEND_AGAIN
    return Step.OPEN


class Remembered(NamedTuple):
    """What stood beside an event as far as it is known here, and whether that is all of it."""

    beside: Beside
    whole: bool


ALONE: Final = Remembered(NOTHING_BESIDE, whole=True)


class Recoverable(PublishedState, Protocol):
    """What recovery needs of a verified replica."""

    def place(self, lane: Lane) -> tuple[int, int]:
        """Return epoch and sequence, (0, 0) before the first snapshot."""
        ...

    def absorb(self, indexes: tuple[RevocationIndex, ...]) -> Iterator[None]:
        """Hold all revocations that these indexes hold, in bounded steps."""
        ...


class Recovery:
    """Brings store and publisher together again; nothing that either of them knows is forgotten."""

    def __init__(
        self,
        publisher: Publisher,
        feed: Feed,
        replica: Recoverable,
        clock: Clock,
        *,
        read_anew: Callable[[], Awaitable[Recoverable]],
        genesis: Callable[[], bytes],
        note: Callable[..., None],
        beside: Callable[[SignedEvent], Remembered] = lambda _: ALONE,
    ) -> None:
        """Know them.

        `read_anew` returns a replica that has read the store and nothing else; `genesis` the signed snapshot with which
        the root lets the lane begin again after it has dropped all earlier epochs; `beside` what the append of an event
        wrote and erased besides, which the store has lost with it.
        """
        self._publisher, self._feed, self._replica, self._clock = publisher, feed, replica, clock
        self._read_anew, self._genesis, self._note, self._beside = read_anew, genesis, note, beside
        self._waiting_since: float | None = None
        self._waiting_at: Position | None = None
        self._opened_boottime = float("-inf")

    async def mend(self) -> None:
        """Look where the store stands, and do the next step; called again as long as it is not mended.

        Raises FeedUnavailable if the store cannot say or take it.
        """
        lane, top = self._publisher.lane, await self._feed.top(self._publisher.lane)
        stored, mine = None if top is None else top.position, self._replica.position(lane)
        if mine is None:
            if top is not None:
                await self._begin_again(top)
            return
        if mine != self._waiting_at:  # We have moved since: whatever was waited for then has been read.
            self._waiting_since, self._waiting_at = None, mine
        step = decide(mine, stored, self._replica.tails[lane])
        if lane in self._replica.lost or self._publisher.spoiled:
            step = Step.OPEN
        if (
            step is Step.APPEND_AGAIN
            and self._lacks_what_stood_beside(_parsed(stored))
            and not self._is_out_of_patience()
        ):
            return  # Left to a publisher that knows it: an event alone would be of a key that nobody can open.
        if step is not Step.WAIT:
            self._waiting_since = None
        if step is Step.APPEND_AGAIN:
            step = await self._append_again(_parsed(stored) or mine)
        if step is Step.OPEN or (step is Step.WAIT and self._is_out_of_patience()):
            await self._open(mine, stored)

    async def _append_again(self, stored: Position) -> Step:
        """Append the very bytes that the store has lost; say what is left to do."""
        lane, trust = self._publisher.lane, self._replica.trust
        events = self._replica.tails[lane].after(stored.sequence) or []
        try:
            after = stored
            for compact in events:
                signed = open_event(compact, lane, trust.role(lane))
                await self._feed.append(signed, after=after, beside=self._beside(signed).beside)
                after = signed.position
        except PositionTaken:
            return Step.NOTHING  # Another replica of this publisher is at it as well; the next look tells.
        except (StreamSpoiled, TrustError):
            return Step.OPEN  # By a key that has lost the role since: the new one has to vouch for it.
        self._note(APPENDED_AGAIN, lane=lane, epoch=stored.epoch, first=stored.sequence + 1, count=len(events))
        return Step.NOTHING

    def _lacks_what_stood_beside(self, stored: Position | None) -> bool:
        """Say whether anything is not known here that the store has lost together with its newest events."""
        lane, trust = self._publisher.lane, self._replica.trust
        try:
            events = self._replica.tails[lane].after(stored.sequence) if stored is not None else None
            return not all(self._beside(open_event(one, lane, trust.role(lane))).whole for one in events or ())
        except TrustError:
            return False  # Not to be appended again in any case.

    async def _open(self, mine: Position, stored: str | None) -> None:
        """Open the next epoch with the union of what we know and what the store still vouches for."""
        lane, boottime = self._publisher.lane, self._clock.boottime()
        if boottime - self._opened_boottime < EPOCH_EVERY_SECONDS:
            return
        theirs = await self._read_anew()
        if self._replica.trust is not theirs.trust:
            return  # The root may have dropped what either of us knows; the next look begins anew.
        epoch = max(mine.epoch, theirs.place(lane)[0]) + 1
        keys: KeySet | None = None
        if lane is Lane.KEYS:
            at, place = self._clock.now(), (epoch, 0)
            known = united(self._replica.lost.get(lane) or self._replica.keys, self._replica.keys, at=at, place=place)
            keys = united(known, theirs.keys, at=at, place=place)
        else:
            for _ in self._replica.absorb(theirs.indexes):
                await self._clock.sleep(0)  # Requests are answered meanwhile.
                if self._replica.trust is not theirs.trust:
                    return
        if await self._publisher.open_epoch(epoch, after=stored, keys=keys):
            self._opened_boottime, self._waiting_since = boottime, None
            self._note(
                EPOCH_OPENED, lane=lane, epoch=epoch, ours=f"{mine.epoch}:{mine.sequence}", stored=_shown(stored)
            )

    async def _begin_again(self, top: Top) -> None:
        """Begin the lane as the root has signed it, where the root has dropped what the store holds.

        An empty store is not mended here: nobody could tell it from one that has lost everything. Nor is one whose
        newest statement the role has signed: that lane has begun again, and our follower is about to read it.
        """
        lane, lowest = self._publisher.lane, self._replica.trust.lowest_epoch(self._publisher.lane)
        stored, theirs = top.position, _parsed(top.position)
        if lowest <= 1:
            return
        if theirs is not None and theirs.epoch >= lowest:
            # The role's thief may have opened an epoch above the root's.
            if self._is_vouched_for(top.statement):
                self._waiting_since = None
                return
            if not self._is_out_of_patience():
                return
        try:
            snapshot = open_snapshot(self._genesis().strip(), lane, self._replica.trust.role(lane))
        except (TrustError, OSError):
            return  # The genesis of this trust document is not there yet.
        if snapshot.position.epoch >= lowest and await self._feed.open_epoch(snapshot, after=stored):
            self._waiting_since = None
            self._note(EPOCH_OPENED, lane=lane, epoch=snapshot.position.epoch, ours="", stored=_shown(stored))

    def _is_vouched_for(self, statement: bytes) -> bool:
        lane = self._publisher.lane
        try:
            signed_at(statement, lane, self._replica.trust.role(lane))
        except UnknownKind:
            return True  # Signed by the role, and not for us to read: never begin again over it.
        except TrustError:
            return False
        return True

    def _is_out_of_patience(self) -> bool:
        now = self._clock.boottime()
        if self._waiting_since is None:
            self._waiting_since = now
        return now - self._waiting_since >= PATIENCE_SECONDS


def _parsed(stored: str | None) -> Position | None:
    try:
        return None if stored is None else parse_position(stored)
    except MalformedInput:
        return None


def _shown(stored: str | None) -> str:
    """Return a stored position for the log; what is not one may be anything."""
    theirs = _parsed(stored)
    return "nothing" if stored is None else "no position" if theirs is None else f"{theirs.epoch}:{theirs.sequence}"
