"""The newest events of a lane as they were signed, kept for a store that has lost them."""

from collections import deque
from typing import NamedTuple

from keyturn.contract.events import SignedEvent

MOST_EVENTS = 4096
MOST_BYTES = 8 * 1024 * 1024


class _Kept(NamedTuple):
    sequence: int
    previous: str
    compact: bytes
    id: str


class Tail:
    """The events that led to a replica's position, without a gap, as far back as there is room."""

    def __init__(self) -> None:
        self._events: deque[_Kept] = deque()
        self._size = 0

    def add(self, signed: SignedEvent) -> None:
        """Keep the event that was just applied."""
        self._events.append(_Kept(signed.event.sequence, signed.event.previous, signed.compact, signed.event.id))
        self._size += len(signed.compact)
        while len(self._events) > MOST_EVENTS or (self._size > MOST_BYTES and len(self._events) > 1):
            self._size -= len(self._events.popleft().compact)

    def clear(self) -> None:
        """Forget all: the replica jumped to a snapshot, and what led there is not known."""
        self._events.clear()
        self._size = 0

    def after(self, sequence: int) -> list[bytes] | None:
        """Return the events after a sequence of the running epoch, None where some of them are not kept any more."""
        kept = self._after(sequence)
        return None if kept is None else [one.compact for one in kept]

    def ids_after(self, sequence: int) -> list[str] | None:
        """Return the ids of the events after a sequence of the running epoch; None as `after` does."""
        kept = self._after(sequence)
        return None if kept is None else [one.id for one in kept]

    def _after(self, sequence: int) -> list[_Kept] | None:
        if not self._events or sequence < self._events[0].sequence - 1:
            return None
        skipped = sequence + 1 - self._events[0].sequence
        return [self._events[index] for index in range(skipped, len(self._events))]

    def hash_at(self, sequence: int) -> str | None:
        """Return the hash of what stood at a sequence before the newest, None where that is not known any more."""
        if not self._events:
            return None
        index = sequence + 1 - self._events[0].sequence
        return self._events[index].previous if 0 <= index < len(self._events) else None
