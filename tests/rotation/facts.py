"""What has happened in a history, and the word for a history that should not have been."""

from dataclasses import dataclass
from typing import NamedTuple

from keyturn.contract.events import KeysEvent
from keyturn.contract.keys import Activated, KeyRecord, KeySet, Phase, Revoked


class Broken(AssertionError):
    """An invariant does not hold; names it and tells the facts."""

    def __init__(self, invariant: str, **facts: object) -> None:
        """Say which, and why."""
        super().__init__(f"{invariant}: {facts}")
        self.invariant = invariant


@dataclass(eq=False)
class Token:
    """A token that was handed out."""

    compact: bytes
    kid: str
    exp: float
    signed_boottime: float
    signer: str


class Landed(NamedTuple):
    """An event as the store took it: when, and the key sets before and after."""

    event: KeysEvent
    boottime: float
    before: KeySet
    after: KeySet

    def activated(self) -> list[KeyRecord]:
        """Return the keys that begin to sign by it."""
        kids = [change.kid for change in self.event.changes if isinstance(change, Activated)]
        return [key for kid in kids if (key := self.after.get(kid)) is not None]

    def waits_for_nobody(self) -> bool:
        """Say whether it is an emergency, or brings the very first keys."""
        return not len(self.before) or any(isinstance(change, Revoked) for change in self.event.changes)

    def ended(self, kid: str) -> bool:
        """Say whether a key signs no more from it on."""
        before, after = self.before.get(kid), self.after.get(kid)
        was = before is not None and before.phase is Phase.ACTIVE
        return was and (after is None or after.phase is not Phase.ACTIVE)
