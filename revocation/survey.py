"""Counts what a revocation would end: live records of opaque tokens, and the grants that they came of."""

import asyncio
from typing import NamedTuple

from keyturn.clock import Clock
from keyturn.contract.revocations import RevocationIndex
from keyturn.contract.selectors import Entry, names_of
from keyturn.verifier.replica import Replica
from serving.problems import Busy
from serving.records import RecordStore

LONGEST_SECONDS = 5.0
MOST_RECORDS = 200_000  # Names of records that are looked at for one count.
_HASH_KEY = bytes(16)  # Nothing of the index that it is for is ever told.


class Count(NamedTuple):
    """What was found, of how many records, and whether those were all."""

    grants: int
    records: int
    scanned: int
    complete: bool


class Survey:
    """Looks at every record, a page at a time and within limits; one count at a time."""

    def __init__(self, records: RecordStore, replica: Replica, clock: Clock) -> None:
        self._records, self._replica, self._clock = records, replica, clock
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
        scanned = cursor = 0
        while scanned < MOST_RECORDS and self._clock.boottime() < until:
            page = await self._records.page(cursor)
            cursor, scanned = page.following, scanned + page.names
            for name, claims in page.records:
                if index.revokes(names_of(claims, key=_HASH_KEY)) and self._is_live(claims):
                    matched.add(name)
                    grants.add(claims.get("grant_id", name))
            if cursor == 0:
                return Count(len(grants), len(matched), scanned, complete=True)
        return Count(len(grants), len(matched), scanned, complete=False)

    def _is_live(self, claims: dict[str, object]) -> bool:
        expiry, replica = claims.get("exp"), self._replica
        expired = isinstance(expiry, int | float) and expiry <= self._clock.now()
        return not expired and not replica.revokes(replica.names(claims))
