"""Gives each JWT its place in a status list, and has the store know of it before the token leaves."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from keyturn.clock import Clock
from keyturn.contract.statuslists import ListedToken, Shuffle, reference
from serving.gathering import Gathering
from serving.listings import Lease, Listings

MOST_TOGETHER: Final = 256  # Tokens whose places are written in one round trip,
MOST_WAITING: Final = 2048  # and that wait for it.
ROW_MARGIN_SECONDS: Final = 600.0  # Rows outlast their tokens: clocks differ, and a server's may be put right.
LEASE_SECONDS: Final = 60.0  # What is left of a lease then is thrown away, so that lists come to an end.


class Place(NamedTuple):
    """A list and an index of it, and the `status` claim that says so."""

    name: str
    idx: int
    claim: dict[str, Any]


class Placer:
    """Takes places from its lease one after another; a new lease when there is none left, or it is old."""

    def __init__(self, listings: Listings, *, issuer: str, clock: Clock, token_seconds: float) -> None:
        """Place tokens that live for at most `token_seconds`; a list takes tokens for as long."""
        self._listings, self._issuer, self._clock, self._token_seconds = listings, issuer, clock, token_seconds
        self._leasing = asyncio.Lock()
        self._lease: Lease | None = None
        self._shuffle = Shuffle(b"")
        self._taken, self._leased_boottime = 0, 0.0
        self._writing: Gathering[tuple[str, ListedToken], None] = Gathering(
            self._write_all, most_together=MOST_TOGETHER, most_waiting=MOST_WAITING
        )

    async def take(self) -> Place:
        """Return a place that no token has had; raises StoreUnavailable."""
        lease = self._current()
        while lease is None:
            async with self._leasing:
                if self._current() is None:  # Nobody else got one while we waited.
                    await self._renew()
                lease = self._current()
        index = self._shuffle.index(lease.first + self._taken)
        self._taken += 1
        return Place(lease.name, index, reference(self._issuer, lease.name, index))

    async def note(self, place: Place, claims: Mapping[str, Any]) -> None:
        """Return once the store knows which token stands at a place; raises StoreUnavailable or Busy."""
        await self._writing.ask((place.name, ListedToken.of(claims, place.idx)))

    def _current(self) -> Lease | None:
        lease = self._lease
        if lease is None or self._taken >= lease.places:
            return None
        return lease if self._clock.boottime() - self._leased_boottime < LEASE_SECONDS else None

    async def _renew(self) -> None:
        asked_boottime = self._clock.boottime()
        lease = await self._listings.lease(self._clock.now(), list_seconds=self._token_seconds)
        if self._lease is None or lease.seed != self._lease.seed:
            self._shuffle = Shuffle(lease.seed)
        self._lease, self._taken, self._leased_boottime = lease, 0, asked_boottime

    async def _write_all(self, tokens: Sequence[tuple[str, ListedToken]]) -> Sequence[None]:
        rows: dict[str, list[ListedToken]] = {}
        for name, token in tokens:
            rows.setdefault(name, []).append(token)
        await self._listings.write(rows, keep_seconds=self._token_seconds + ROW_MARGIN_SECONDS)
        return [None] * len(tokens)
