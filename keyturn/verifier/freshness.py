"""How old a lane's replica is, told from both clocks, and what that age allows."""

from enum import StrEnum

import msgspec


class State(StrEnum):
    """What a replica may still be used for."""

    FRESH = "fresh"
    STALE = "stale"  # Served, marked and alarmed.
    EXPIRED = "expired"  # A revocation may have passed us by: nothing can be said.


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of age, in seconds, and the clock skew S that is forgiven."""

    stale_after_seconds: float = 5.0
    expired_after_seconds: float = 900.0
    skew_seconds: float = 2.0

    def state(self, age_seconds: float) -> State:
        """Return what that age allows."""
        if age_seconds < self.stale_after_seconds:
            return State.FRESH
        return State.STALE if age_seconds < self.expired_after_seconds else State.EXPIRED


class Heard:
    """When a lane's publisher was last heard: by its own clock and by our boot-time clock."""

    __slots__ = ("at", "boottime")

    def __init__(self) -> None:
        self.at, self.boottime = 0.0, float("-inf")

    def note(self, at: float, boottime: float) -> None:
        """Take a strictly newer word; a replayed one changes nothing."""
        if at > self.at:
            self.at, self.boottime = at, boottime

    def age(self, now: float, boottime: float) -> float:
        """Return the larger of both ages: a stopped wall clock or a suspended machine cannot hide the silence."""
        return max(boottime - self.boottime, now - self.at)
