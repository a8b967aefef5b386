"""Counts what a revocation would end: opaque tokens that are good, and the grants that they came of."""

import asyncio
from typing import Any, NamedTuple

from keyturn.clock import Clock
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import Entry, names_of
from keyturn.verifier.replica import Replica
from revocation.keeping import Keeping
from serving.families import Families
from serving.problems import Busy
from serving.records import RecordStore

LONGEST_SECONDS = 5.0
MOST_RECORDS = 200_000  # Names that are looked at for one count, of records and of families of refresh tokens.
_KINDS = 2
_HASH_KEY = bytes(16)  # Nothing of the index that it is for is ever told.


class Count(NamedTuple):
    """What was found, of how many names in the store, and whether those were all.

    A grant counts once, however many of its tokens are good. Of a family of refresh tokens at most one is.
    """

    grants: int
    records: int
    scanned: int
    complete: bool


class _Rows(NamedTuple):
    """A page of what was looked at: where the next one begins (0 at the end), how many names, claims by name."""

    following: int
    names: int
    claims: list[tuple[str, dict[str, Any]]]


class Survey:
    """Looks at every record, a page at a time and within limits; one count at a time."""

    def __init__(
        self, records: RecordStore, families: Families, replica: Replica, clock: Clock, *, keeping: Keeping
    ) -> None:
        self._records, self._families, self._replica, self._clock = records, families, replica, clock
        self._keeping = keeping
        self._counting = asyncio.Lock()

    async def count(self, entry: Entry) -> Count:
        """Count what is live and what this revocation names, as a verifier would find it.

        JWT access tokens are recorded nowhere, and so not counted. Raises StoreUnavailable, and Busy while another
        count is under way.
        """
        if self._counting.locked():
            raise Busy("another dry run is being counted")
        async with self._counting:
            return await self._count(entry)

    async def _count(self, entry: Entry) -> Count:
        index = RevocationIndex(_HASH_KEY)
        index.add(entry)
        until = self._clock.boottime() + LONGEST_SECONDS
        grants: set[object] = set()
        matched: set[str] = set()  # A record may come twice, where the store grows meanwhile.
        scanned, finished = 0, 0
        for read in (self._record_page, self._family_page):
            cursor = None
            while cursor != 0 and scanned < MOST_RECORDS and self._clock.boottime() < until:
                cursor, names, rows = await read(cursor or 0)
                scanned += names
                for name, claims in rows:
                    if index.revokes(names_of(claims, key=_HASH_KEY)) and self._is_live(claims):
                        matched.add(name)
                        grants.add(claims.get("grant_id", name))
            finished += cursor == 0
        return Count(len(grants), len(matched), scanned, complete=finished == _KINDS)

    async def _record_page(self, cursor: int) -> _Rows:
        return _Rows(*await self._records.page(cursor))

    async def _family_page(self, cursor: int) -> _Rows:
        page = await self._families.page(cursor)
        standing = [(name, family) for name, family in page.families if not family.ended]
        good = [(name, family.token_claims(life_seconds=self._keeping.grant_seconds)) for name, family in standing]
        return _Rows(page.following, page.names, good)

    def _is_live(self, claims: dict[str, object]) -> bool:
        expiry, replica = claims.get("exp"), self._replica
        expired = isinstance(expiry, int | float) and expiry <= replica.no_earlier(self._clock.now())
        return not expired and not replica.revokes(replica.names(claims))
