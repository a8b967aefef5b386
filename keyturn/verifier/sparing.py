"""Notes within measure: who floods the doorbell with garbage must not fill a disk by way of our log."""

from collections.abc import Callable

from keyturn.clock import Clock

MOST_A_SECOND = 16


class Sparing:
    """Passes on at most 16 notes of one event in a second; the first of a later second says how many were left out."""

    def __init__(self, note: Callable[..., None], clock: Clock) -> None:
        self._note, self._clock = note, clock
        self._windows: dict[str, tuple[float, int]] = {}  # Event, one of a handful → since when, and how many.

    def __call__(self, event: str, **facts: object) -> None:
        """Note it, or only count it."""
        now = self._clock.boottime()
        since, count = self._windows.get(event, (float("-inf"), 0))
        if now - since < 1:
            self._windows[event] = (since, count + 1)
            if count < MOST_A_SECOND:
                self._note(event, **facts)
            return
        self._windows[event] = (now, 1)
        left_out = count - MOST_A_SECOND
        self._note(event, **facts, **({"left_out": left_out} if left_out > 0 else {}))
