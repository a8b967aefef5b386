"""Carries out each order once, however often and wherever it is repeated."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry
from revocation.orders import Mark, OrderBook
from revocation.writer import RevocationWriter, Written
from serving.problems import KeyReused
from serving.receipts import Vouching


class _Flight(NamedTuple):
    body: str
    task: asyncio.Task[Written]


class Orders:
    """Recognises a repeated order before it is written; one that is under way is waited for."""

    def __init__(
        self,
        writer: RevocationWriter,
        book: OrderBook,
        current: Callable[[], Awaitable[None]],
        vouching: Vouching,
    ) -> None:
        self._writer, self._book, self._current, self._vouching = writer, book, current, vouching
        self._flights: dict[str, _Flight] = {}

    async def carry_out(self, entry: Entry, mark: Mark | None, *, report: bool) -> Written:
        """Return where the order was carried out, now or before.

        Who gives up waiting takes nobody along: the order goes on. Raises KeyReused if its key came with another body,
        and what the writer raises.
        """
        if mark is None:
            return await self._writer.write(entry, report=report)
        flight = self._flights.get(mark.key)
        if flight is None:
            self._book.find(mark)  # A key that came with another body before must not get in the way of its repeats.
            flight = _Flight(mark.body, asyncio.ensure_future(self._once(entry, mark, report)))
            self._flights[mark.key] = flight
            flight.task.add_done_callback(lambda done: self._landed(mark, done))
        elif flight.body != mark.body:
            raise KeyReused("this Idempotency-Key is under way with another body; a new order wants a new key")
        return await asyncio.shield(flight.task)

    async def _once(self, entry: Entry, mark: Mark, report: bool) -> Written:
        await self._current()  # What was appended under this key, though nobody heard the answer, is known then.
        await self._book.read()
        place = self._book.find(mark)
        if place is None:
            written = await self._writer.write(entry, report=report, mark=mark)
        else:
            written = Written(place, self._writer.begun_at(place), again=True)
        if written.again:  # The first answer may have been that it is not as durable as settings require.
            await self._vouching.require(Lane.REVOCATIONS)
        return written

    def _landed(self, mark: Mark, done: asyncio.Task[Written]) -> None:
        del self._flights[mark.key]
        if not done.cancelled():
            done.exception()  # Whoever asked may have gone away.
