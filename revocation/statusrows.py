"""Takes the rows of status lists into the book: after a start all that the store has, then what is added."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, NamedTuple

from keyturn.contract.errors import MalformedInput
from keyturn.contract.statuslists import ListedToken
from revocation.statusbook import MOST_TOKENS, StatusBook
from revocation.turns import Turns
from serving.listings import MOST_ROWS, Listings, Row
from serving.parts import Parts
from serving.problems import Busy

TAKEN_TOGETHER: Final = 32  # Tokens, of however many rows: what they have in common is worked out once.
MOST_UNREADABLE: Final = 256  # Lists with a row that cannot be opened, beside those that are known.
ROW_UNREADABLE: Final = "status_row_unreadable"
ROWS_READ: Final = "status_rows_read"


class _Page(NamedTuple):
    """Rows that were asked for while the page before them was taken in."""

    after: bytes | None
    rows: asyncio.Future[list[Row]]


class _Taken(NamedTuple):
    """Tokens of a list that are taken in together, None for a row that cannot be opened; and the last of their rows."""

    name: str
    tokens: list[ListedToken] | None
    last: bytes


class StatusRows:
    """Reads on from the row that was taken in last, or from the first."""

    def __init__(
        self, parts: Parts, *, listings: Listings, book: StatusBook, turns: Turns, doubt_seconds: float
    ) -> None:
        """Count a list as unreadable for `doubt_seconds` after a row of it was: as long as its tokens may live."""
        self.unreadable: dict[str, float] = {}  # Lists of which a row cannot be opened, and until when that counts.
        self._parts, self._listings, self._book, self._turns = parts, listings, book, turns
        self._doubt_seconds = doubt_seconds
        self._after: bytes | None = None
        self._begun_boottime: float | None = parts.clock.boottime()  # None once all rows were read.

    @property
    def unread_seconds(self) -> float:
        """Return the age of the newest row that was read, while all are; infinite before the first, 0 at the end."""
        if self._begun_boottime is None:
            return 0.0
        try:  # The server's clock gives rows their ids.
            written_at = float((self._after or b"").partition(b"-")[0]) / 1000
        except ValueError:
            return float("inf")
        return max(1.0, self._parts.clock.now() - written_at)

    def begin_anew(self) -> None:
        """Have all rows read once more."""
        self._after = None
        if self._begun_boottime is None:
            self._begun_boottime = self._parts.clock.boottime()

    async def read(self, keep_up: Callable[[], Awaitable[None]]) -> None:
        """Take in every row that was written before this call.

        `keep_up` is awaited before each page is read: it holds new revocations against what was taken in by then, and
        may `begin_anew`. Raises StoreUnavailable, Busy where there are too many, and what `keep_up` raises; the next
        call goes on from there.
        """
        page: _Page | None = None
        full = True
        try:
            while full:
                await keep_up()
                self._require_room()
                after = self._after
                if page is None or page.after != after:
                    await _drop(page)
                    page = self._ask(after)
                rows, page = await page.rows, None
                full = len(rows) == MOST_ROWS
                if after is not None:
                    if not rows or rows[0].id != after:
                        self.begin_anew()  # It has run out, or the store has lost it: look at all there is.
                        full = True
                        continue
                    rows = rows[1:]
                if full:
                    page = self._ask(rows[-1].id)
                for some in self._opened(rows):
                    await self._take(some)
                    self._after = some.last
        finally:
            await _drop(page)
        self._require_room()
        if self._begun_boottime is not None:
            seconds, self._begun_boottime = self._parts.clock.boottime() - self._begun_boottime, None
            self._parts.log.info(ROWS_READ, tokens=self._book.tokens, seconds=round(seconds, 1))

    def forget_expired(self, now: float) -> None:
        """Forget which lists were unreadable, once the tokens of that row must have expired."""
        for name in [name for name, until in self.unreadable.items() if until <= now]:
            del self.unreadable[name]

    def _ask(self, after: bytes | None) -> _Page:
        return _Page(after, asyncio.ensure_future(self._listings.read(after)))

    def _require_room(self) -> None:
        if self._book.tokens > MOST_TOKENS:
            raise Busy(f"more than {MOST_TOKENS} live tokens are listed")

    def _opened(self, rows: Sequence[Row]) -> Iterator[_Taken]:
        """Yield what rows of one list that follow each other say, a few tokens at a time."""
        name, tokens = "", list[ListedToken]()
        for number, row in enumerate(rows):
            opened = self._listings.opened(row)
            if tokens and (opened is None or row.name != name or len(tokens) >= TAKEN_TOGETHER):
                yield _Taken(name, tokens, rows[number - 1].id)
                tokens = []
            name = row.name
            if opened is None:
                yield _Taken(name, None, row.id)
            else:
                tokens += opened
        if tokens:
            yield _Taken(name, tokens, rows[-1].id)

    async def _take(self, some: _Taken) -> None:
        turns = self._turns
        try:
            for _ in self._book.take(some.name, some.tokens) if some.tokens is not None else self._doubt(some.name):
                if turns.is_over():
                    await turns.give_way()
        except MalformedInput:  # An index that no list has: as good as unreadable.
            self._doubt(some.name)

    def _doubt(self, name: str) -> tuple[None]:
        """Say nothing of a list until all tokens that a row of it may name have expired."""
        if name not in self.unreadable:
            self._parts.log.error(ROW_UNREADABLE)
        if name in self._book.listings or len(self.unreadable) < MOST_UNREADABLE:
            self.unreadable[name] = self._parts.clock.now() + self._doubt_seconds
        return (None,)


async def _drop(page: _Page | None) -> None:
    """Wait for nothing that nobody needs, and leave no error of it behind."""
    if page is not None:
        page.rows.cancel()
        await asyncio.gather(page.rows, return_exceptions=True)
