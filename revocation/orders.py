"""Orders that are repeated: each is carried out once, and recognised by a mark that its event carries in its id."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple, Self

from keyturn.contract.encoding import digest, encode_json
from keyturn.contract.errors import TrustError
from keyturn.contract.events import open_event
from keyturn.contract.positions import Lane
from keyturn.feed.log import Feed
from keyturn.verifier.replica import Replica
from serving.problems import KeyReused

MOST_MARKS = 64  # In one event: every verifier remembers the ids of the last thousand events.
MOST_ORDERS = 8192  # That are remembered, the newest.
EVENTS_READ = 512  # That the store is asked for, where our own replica began with a snapshot.
_PREFIX = "orders:"
_KEY_CHARACTERS, _BODY_CHARACTERS = 16, 8
_LANE = Lane.REVOCATIONS


class Mark(NamedTuple):
    """What an order is recognised by: who gave it under which key, and what it says, each as a part of a digest."""

    key: str
    body: str

    @classmethod
    def of(cls, client_id: str, key: str, body: dict[str, Any]) -> Self:
        """Return the mark of a client's order under an `Idempotency-Key`."""
        return cls(
            digest(f"{client_id}\0{key}".encode("utf-8", "surrogatepass"))[:_KEY_CHARACTERS],
            digest(encode_json(body))[:_BODY_CHARACTERS],
        )


def event_id_of(marks: Iterable[Mark]) -> str | None:
    """Return the id of an event that carries out these orders, None where there are none."""
    together = ".".join(mark.key + mark.body for mark in marks)
    return _PREFIX + together if together else None


def marks_in(event_id: str) -> list[Mark]:
    """Return the orders that an event carries out, by its id."""
    if not event_id.startswith(_PREFIX):
        return []
    whole = _KEY_CHARACTERS + _BODY_CHARACTERS
    parts = event_id.removeprefix(_PREFIX).split(".")
    return [Mark(part[:_KEY_CHARACTERS], part[_KEY_CHARACTERS:]) for part in parts if len(part) == whole]


class OrderBook:
    """Which of the newest orders were carried out, and where: by us, or as the lane tells it.

    So a repeated order is recognised after a restart, by another replica of this service, and where the first answer
    was lost, as long as its event is among those that were seen here or are in the store (the last 512).
    """

    def __init__(self, feed: Feed, replica: Replica) -> None:
        self._feed, self._replica = feed, replica
        self._orders: OrderedDict[str, tuple[str, tuple[int, int]]] = OrderedDict()
        self._seen = (0, 0)  # The place up to which events were looked at.
        self._jumped = True  # Whether some before it were not: our replica came to it by a snapshot.
        self._reading = asyncio.Lock()

    def note(self, event_id: str, place: tuple[int, int]) -> None:
        """Remember what an event carried out."""
        if place == (self._seen[0], self._seen[1] + 1):
            self._seen = place
        for mark in marks_in(event_id):
            self._orders[mark.key] = mark.body, place
            self._orders.move_to_end(mark.key)
        while len(self._orders) > MOST_ORDERS:
            self._orders.popitem(last=False)

    def look(self) -> None:
        """Look at the events that our replica has taken since; to be called whenever it changes."""
        (epoch, newest), (seen_epoch, seen) = self._replica.place(_LANE), self._seen
        if (epoch, newest) == self._seen:
            return
        after = seen if epoch == seen_epoch else 0
        ids = self._replica.tails[_LANE].ids_after(after) if newest > after else []
        self._seen = epoch, newest
        if ids is None:
            self._jumped = True
            return
        for sequence, event_id in enumerate(ids, start=after + 1):
            self.note(event_id, (epoch, sequence))

    async def read(self) -> None:
        """Ask the store for what our replica did not see pass, if there is any; raises FeedUnavailable."""
        self.look()
        async with self._reading:
            if not self._jumped:
                return
            epoch, newest = self._replica.place(_LANE)
            after = max(0, newest - EVENTS_READ)
            while after < newest and (events := await self._feed.events(_LANE, epoch=epoch, after=after)):
                before = after
                for compact in events:
                    try:
                        event = open_event(compact, _LANE, self._replica.trust.role(_LANE)).event
                    except TrustError:
                        continue  # Not ours, or by a key that has lost the role.
                    if event.epoch == epoch and event.sequence > after:
                        after = event.sequence
                        self.note(event.id, (epoch, after))
                if after == before:
                    break
            self._jumped = False

    def find(self, mark: Mark) -> tuple[int, int] | None:
        """Return where an order was carried out, None if that is not known of it.

        Raises KeyReused if its key was given with another body.
        """
        self.look()
        held = self._orders.get(mark.key)
        if held is None or held[1][0] < self._replica.trust.lowest_epoch(_LANE):
            return None  # What the root has dropped has to be carried out again.
        if held[0] != mark.body:
            raise KeyReused("this Idempotency-Key came with another body before; a new order wants a new key")
        return held[1]
