"""Reads what a stream has still to tell: the feed itself is its outbox, and each event is verified anew."""

from collections import deque
from typing import NamedTuple

from keyturn.contract.errors import FeedUnavailable, MalformedInput, TrustError
from keyturn.contract.events import open_event
from keyturn.contract.positions import Lane, Position, parse_position
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.log import BATCH, Feed
from keyturn.verifier.replica import Replica
from revocation.streams.progress import MOST_OPEN, Progress
from revocation.streams.telling import Page, page_of

LANE = Lane.REVOCATIONS
EPOCH_ENDED = "epoch_ended"
"""All of an epoch was told that the store holds; what it had lost before that is told by nothing that has names."""
MOST_OPENED = 32  # Events that are verified at a time, so that nobody else is kept waiting for long.


class Gap(NamedTuple):
    """Events that a stream can never tell: `last` is None where an epoch ended, and it may be that there were none."""

    epoch: int
    first: int
    last: int | None
    reason: str


class Reading(NamedTuple):
    """What lies behind a progress; or where to go on instead, and what is lost between."""

    pages: tuple[Page, ...] = ()
    onward: Progress | None = None
    gap: Gap | None = None


class Outbox:
    """Reads ahead of one stream's progress, within bounds; one caller at a time."""

    def __init__(self, feed: Feed, replica: Replica, kinds: frozenset[SelectorKind]) -> None:
        self._feed, self._replica, self._kinds = feed, replica, kinds
        self._pages: list[Page] = []
        self._unread: deque[bytes] = deque()
        self._from: Position | None = None

    async def read(self, progress: Progress) -> Reading:
        """Return up to 1,024 revocations' worth of events behind a progress.

        Raises FeedUnavailable where the store cannot say, or holds what its publisher has still to mend.
        """
        self._go_to(progress)
        try:
            await self._read_ahead(progress)
        except TrustError as error:
            if not self._pages:
                return self._stuck(progress, f"{error.code}: {error}")
        if self._pages:
            first = self._pages[0]
            if first.position.sequence > progress.sequence + 1:
                return self._missing(progress, first)
            if progress.hash and first.previous != progress.hash:
                return self._branched(progress, first)
            return Reading(tuple(self._pages))
        if progress.epoch < self._replica.place(LANE)[0]:
            gap = Gap(progress.epoch, progress.sequence + 1, None, EPOCH_ENDED)
            return Reading(onward=Progress(progress.epoch + 1, 0, ""), gap=gap)
        return await self._nothing(progress)

    def _go_to(self, progress: Progress) -> None:
        """Drop what was read and is done; begin anew where the progress is not the one that was read from."""
        wanted = Position(progress.epoch, progress.sequence, progress.hash)
        while self._pages and self._pages[0].position.place <= wanted.place:
            self._from = self._pages.pop(0).position
        if self._from != wanted:
            self._pages.clear()
            self._unread.clear()
            self._from = wanted

    async def _read_ahead(self, progress: Progress) -> None:
        waiting = sum(len(page.tellings) for page in self._pages)
        for _ in range(MOST_OPENED):
            if waiting >= MOST_OPEN or len(self._pages) >= BATCH:
                return
            last = self._pages[-1].position.sequence if self._pages else progress.sequence
            if not self._unread:
                self._unread.extend(await self._feed.events(LANE, epoch=progress.epoch, after=last))
                if not self._unread:
                    return
            page = self._open(self._unread[0])
            if page.position.epoch != progress.epoch or (self._pages and not _follows(page, self._pages[-1])):
                self._unread.clear()
                if not self._pages:
                    raise TrustError("an event of another epoch")
                return
            self._unread.popleft()
            self._pages.append(page)
            waiting += len(page.tellings)

    def _open(self, compact: bytes) -> Page:
        signed = open_event(compact, LANE, self._replica.trust.role(LANE))
        return page_of(signed, issuer=self._replica.issuer, kinds=self._kinds)

    def _missing(self, progress: Progress, first: Page) -> Reading:
        before = first.position.sequence - 1
        onward = Progress(progress.epoch, before, first.previous)
        return Reading(onward=onward, gap=Gap(progress.epoch, progress.sequence + 1, before, "trimmed"))

    def _branched(self, progress: Progress, first: Page) -> Reading:
        """Another history stands there than was told: in an epoch that is over, tell what follows of it."""
        if progress.epoch == self._replica.place(LANE)[0]:
            raise FeedUnavailable("the store holds another history than was told; its publisher has to mend it")
        onward = Progress(progress.epoch, progress.sequence, first.previous)
        return Reading(onward=onward, gap=Gap(progress.epoch, progress.sequence, progress.sequence, "branched"))

    def _stuck(self, progress: Progress, reason: str) -> Reading:
        self._unread.clear()
        if progress.epoch == self._replica.place(LANE)[0]:
            raise FeedUnavailable(f"the store holds what cannot be told: {reason}")
        gap = Gap(progress.epoch, progress.sequence + 1, None, reason)
        return Reading(onward=Progress(progress.epoch + 1, 0, ""), gap=gap)

    async def _nothing(self, progress: Progress) -> Reading:
        """Say whether nothing lies behind, or whether it was trimmed away."""
        held = self._replica.place(LANE)
        if held <= progress.place:
            return Reading()
        top = await self._feed.top(LANE)
        try:
            stands = parse_position(top.position if top else "")
        except MalformedInput:
            return Reading()  # Its publisher has to mend it.
        if stands.epoch != progress.epoch or stands.sequence <= progress.sequence or stands.place > held:
            return Reading()
        if await self._feed.events(LANE, epoch=progress.epoch, after=progress.sequence):
            return Reading()  # They came meanwhile.
        onward = Progress(stands.epoch, stands.sequence, stands.hash)
        return Reading(onward=onward, gap=Gap(progress.epoch, progress.sequence + 1, stands.sequence, "trimmed"))


def _follows(page: Page, before: Page) -> bool:
    return page.position.sequence == before.position.sequence + 1 and page.previous == before.position.hash
