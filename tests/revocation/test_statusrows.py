"""Rows are read while revocations go on, the feed jumps and the store fails: at no moment has a list a wrong bit."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from math import inf
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn import entropy
from keyturn.clock import SystemClock
from keyturn.contract.errors import StoreUnavailable
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import Entry, SelectorKind
from keyturn.contract.statuslists import ListedToken
from revocation import statusbook, statusrows, turns
from revocation.statuslists import StatusLists
from serving import listings as listings_module
from serving.listings import ROWS_KEY, Listings, Row
from serving.problems import Busy
from serving.signing import NoSigner
from tests.building import FickleRedis, Standing, standing
from tests.reaching import reach

PAGE = 4
ROWS = 14
TOKEN_SECONDS, KEEP_SECONDS = 600.0, 60.0
KINDS = [kind for kind in SelectorKind if kind is not SelectorKind.ALL]


class What(StrEnum):
    """What can happen while a page is on its way."""

    REVOKED = "revoked"
    JUMPED = "jumped"
    FAILED = "failed"
    LOST = "lost"
    REPEATED = "repeated"
    ADDED = "added"


class Happening(NamedTuple):
    """Something that happens before the store answers for the n-th time."""

    reading: int
    what: What
    token: int
    kind: SelectorKind


class Unsteady(Listings):
    """Rows of a store to which things happen while it is read."""

    def __init__(self, stage: Standing, happenings: list[Happening]) -> None:
        """Let these things happen."""
        super().__init__(stage.redis, stage.record_keys)
        self.stage, self.happenings = stage, happenings
        self.tokens: list[ListedToken] = []
        self.readings, self.lost, self.jumped = 0, False, False
        self.lists: StatusLists | None = None

    async def add(self) -> None:
        """Write a row of one or two tokens."""
        row = [self._token() for _ in range(1 + len(self.tokens) % 2)]
        await self.write({f"list-{len(self.tokens) % 3}": row}, keep_seconds=3600.0)

    async def read(self, after: bytes | None) -> list[Row]:
        """Answer once the next things have happened."""
        self.readings += 1
        for one in [one for one in self.happenings if one.reading == self.readings]:
            # A token of which no row is left cannot be held against what a jump brings: the how-to says so.
            if not (one.what is What.JUMPED and self.lost) and not (one.what is What.LOST and self.jumped):
                reached[one.what] += 1
                await self._happen(one)
        return await super().read(after)

    def _token(self) -> ListedToken:
        number, now = len(self.tokens), self.stage.world.clock.now()
        claims = self.stage.world.claims(
            sub=f"user-{number % 5}", client_id=f"client-{number % 2}", sid=f"session-{number % 7}",
            grant_id=entropy.uuid7(now - 10 - number % 3), exp=int(now + 600),
        )  # fmt: skip
        self.tokens.append(ListedToken.of(claims, number))
        return self.tokens[-1]

    async def _happen(self, one: Happening) -> None:
        replica, token = self.stage.parts.replica, self.tokens[one.token % len(self.tokens)]
        match one.what:
            case What.REVOKED:
                await self.stage.revoke(self._entry(token, one.kind))
                assert self.lists is not None
                known = sum(listing.tokens for listing in self.lists._book.listings.values())
                reached["before it was read" if known <= token.index else "after it was read"] += 1
            case What.JUMPED:
                fresh = RevocationIndex(entropy.token_bytes(16))
                fresh.add(self._entry(token, one.kind))
                replica.indexes, self.jumped = (fresh, *replica.indexes), True
            case What.FAILED:
                raise StoreUnavailable("gone")
            case What.LOST:
                await self.stage.redis.delete(ROWS_KEY)
                self.lost = True
            case What.REPEATED:
                for _, fields in await self.stage.redis.xrange(ROWS_KEY):
                    await self.stage.redis.xadd(ROWS_KEY, fields)
            case What.ADDED:
                await self.add()

    def _entry(self, token: ListedToken, kind: SelectorKind) -> Entry:
        value: Any = getattr(token, kind.value)
        exact = kind in (SelectorKind.JTI, SelectorKind.GRANT, SelectorKind.SESSION)
        before = None if exact else self.stage.world.clock.now() - 10.5
        return self.stage.world.entry(kind, value[0] if isinstance(value, tuple) else value, before=before)


@asynccontextmanager
async def reading(happenings: list[Happening], *, rows: int = ROWS) -> AsyncIterator[tuple[StatusLists, Unsteady]]:
    """Begin with so many rows that were not read yet."""
    async with standing(FickleRedis(), deaf=True) as stage:
        listings = Unsteady(stage, happenings)
        for _ in range(rows):
            await listings.add()
        lists = StatusLists(
            stage.parts, listings=listings, records=stage.records, signer=NoSigner("revocation"), ttl_seconds=15.0,
            token_seconds=TOKEN_SECONDS, keep_seconds=KEEP_SECONDS,
        )  # fmt: skip
        listings.lists = lists
        yield lists, listings


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read few rows at once, and give way after each token, so that much can happen in between."""
    for module in (statusrows, listings_module):
        monkeypatch.setattr(module, "MOST_ROWS", PAGE)
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(statusbook, "_TAKEN_AT_ONCE", 2)
    monkeypatch.setattr(statusrows, "TAKEN_TOGETHER", 3)


async def ask(lists: StatusLists, listings: Unsteady) -> None:
    """Ask until there is an answer, and hold it against what was known when it was asked for."""
    while True:
        written, revoked = len(listings.tokens), revoked_by_now(listings)
        with suppress(StoreUnavailable):
            await asyncio.gather(lists.uris(), lists.uris())
            break
    book = lists._book.listings
    every = range(len(listings.tokens))
    known = {at for one in book.values() for at in every if one._granted[at] > -inf}
    shown = [at for one in book.values() for at in every if one.statuses.is_set(at)]
    assert known >= set(range(written)) or listings.lost
    assert revoked & known <= set(shown) <= revoked_by_now(listings)
    assert len(set(shown)) == len(shown)
    assert lists._book.tokens == len(known)


def revoked_by_now(listings: Unsteady) -> set[int]:
    """Return the indices of all tokens that a verifier refuses."""
    replica = listings.stage.parts.replica
    return {one.index for one in listings.tokens if replica.revokes(replica.names(one.claims(replica.issuer)))}


HAPPENINGS = st.lists(
    st.builds(Happening, st.integers(1, 6), st.sampled_from(What), st.integers(0, 100), st.sampled_from(KINDS)),
    max_size=8,
)
reached: Counter[str] = Counter()


@settings(max_examples=12)
@given(HAPPENINGS, HAPPENINGS)
def check(first: list[Happening], later: list[Happening]) -> None:
    """Read all rows while things happen, and again while others do."""

    async def run() -> None:
        async with reading(first) as (lists, listings):
            for happenings in (later, []):
                await ask(lists, listings)
                listings.readings, listings.happenings = 0, happenings

    asyncio.run(run())


def test_whatever_happens_while_rows_are_read_no_bit_is_wrong() -> None:
    """Section 13.1 leaves no room for it: what was acknowledged before a list was asked for is in it, and no more."""
    reach(check, reached, dict.fromkeys([*What, "before it was read", "after it was read"], 2))


async def test_the_tokens_of_a_row_are_taken_in_a_turn_at_a_time() -> None:
    """Authorization writes up to 256 of them together: revocations must not wait behind a row, nor behind a page."""
    async with reading([], rows=0) as (lists, listings):
        await listings.write({"long": [listings._token() for _ in range(100)]}, keep_seconds=3600.0)
        asking, most, known = asyncio.create_task(lists.uris()), 0, 0
        while not asking.done():
            await SystemClock().sleep(0)
            before, known = known, lists._book.tokens
            most = max(most, known - before)
        assert (most, known) == (statusbook._TAKEN_AT_ONCE, 100)


async def test_the_next_page_is_on_its_way_while_one_is_taken_in() -> None:
    """Else the store's answers are waited for, thousands of times, before there is any list."""
    async with reading([]) as (lists, listings):
        asked: list[int] = []
        read = listings.read

        async def noted(after: bytes | None) -> list[Row]:
            asked.append(lists._book.tokens)
            return await read(after)

        listings.read = noted  # type: ignore[method-assign]
        await lists.uris()
        assert len(asked) == ROWS // (PAGE - 1) + 1
        assert asked[1] <= 2


async def test_how_far_the_reading_is_can_be_seen() -> None:
    """At three in the morning somebody wants to know how long lists will be 503: the rows' age sinks towards 0."""
    async with reading([Happening(3, What.FAILED, 0, SelectorKind.JTI)], rows=0) as (lists, listings):
        stage = listings.stage
        metrics, now = stage.parts.metrics, stage.world.clock.now()

        def unread_seconds() -> float:
            [line] = [line for line in metrics.render().splitlines() if line.startswith(b"keyturn_status_lists_unread")]
            return float(line.split()[1])

        await listings.add()
        [(_, fields)] = await stage.redis.xrange(ROWS_KEY)
        await stage.redis.delete(ROWS_KEY)
        for number in range(3 * PAGE):
            await stage.redis.xadd(ROWS_KEY, fields, id=f"{int(now - 1000 + 10 * number) * 1000}-0")
        assert unread_seconds() == inf
        with pytest.raises(StoreUnavailable):
            await lists.uris()
        assert 1000 - 10 * 3 * PAGE < unread_seconds() < 1000
        await lists.uris()
        assert unread_seconds() == 0
        lists._rows.begin_anew()
        assert unread_seconds() == inf


async def test_reading_ends_where_too_many_tokens_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded however often somebody asks; there is no list without the rest, and room when some expired."""
    monkeypatch.setattr(statusrows, "MOST_TOKENS", 9)
    async with reading([]) as (lists, listings):
        for _ in range(5):
            with pytest.raises(Busy):
                await lists.uris()
        assert 9 < lists._book.tokens <= 9 + 2 * PAGE < len(listings.tokens)
        monkeypatch.setattr(statusrows, "MOST_TOKENS", 4_000_000)
        await ask(lists, listings)


async def test_a_list_is_doubted_for_as_long_as_a_token_of_its_row_may_live() -> None:
    """A minute after its last known token it would be served, with the token of that row as good as ever."""
    async with reading([], rows=1) as (lists, listings):
        await listings.stage.redis.xadd(ROWS_KEY, {"list": "list-0", "tokens": "not ours"})
        before = listings.stage.world.clock.now()
        await lists.uris()
        lists._rows.forget_expired(before + TOKEN_SECONDS + KEEP_SECONDS)
        assert list(lists._rows.unreadable) == ["list-0"]
        lists._rows.forget_expired(listings.stage.world.clock.now() + TOKEN_SECONDS + KEEP_SECONDS)
        assert not lists._rows.unreadable
