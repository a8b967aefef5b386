"""A worker in miniature: it asks what is due, applies it to a key set, and keeps the log of what happened."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from keyturn.contract import keys as k
from keyturn.contract.keys import KeyRecord, KeySet, Phase
from keyturn.contract.rotation import (
    Adoption,
    RotationPolicy,
    Transition,
    activation_of_new,
    due,
    emergency,
)

POLICY = RotationPolicy(
    active_seconds=100.0, token_seconds=30.0, skew_seconds=2.0, lease_seconds=5.0, expired_seconds=10.0,
    distribution_seconds=12.0, cache_seconds=3.0, deadline_seconds=40.0,
)  # fmt: skip
ALL_ADOPTED = Adoption({"sidecar-1": (10**6, 0), "sidecar-2": (10**6, 0)}, complete=True)
MOST_STEPS = 40  # Of one tick; more means that it would never end.


def changed(policy: RotationPolicy, **members: Any) -> RotationPolicy:
    """Return the policy with other members."""
    return msgspec.structs.replace(policy, **members)


class Happened(NamedTuple):
    """One event: what was decided, by which rules, on what grounds, and the sets before and after."""

    at: float
    transition: Transition
    policy: RotationPolicy
    adoption: Adoption
    before: KeySet
    after: KeySet
    emergency: bool


@dataclass
class Worker:
    """Decides and applies; keys have no key material here, only names."""

    policy: RotationPolicy
    adoption: Adoption
    now: float
    keys: KeySet = field(default_factory=KeySet)
    log: list[Happened] = field(default_factory=list)
    place: tuple[int, int] = (1, 0)

    def tick(self) -> None:
        """Do all that is due."""
        for _ in range(MOST_STEPS):
            transition = due(self.keys, self.policy, self.adoption, self.now)
            if transition is None:
                return
            self._apply(transition)
        raise AssertionError(f"always something due: {self.log[-1].transition}")

    def advance(self, seconds: float) -> None:
        """Let time pass, then tick."""
        self.now += seconds
        self.tick()

    def request(self, alg: str = "ES256") -> None:
        """Ask for a rotation, then tick."""
        self.apply_alone(k.RotationRequested(alg=alg, use=self.policy.use))
        self.tick()

    def emergency(self, kid: str) -> bool:
        """Revoke a key; say whether that was an event."""
        transition = emergency(self.keys, kid, self.policy, self.now, "leaked")
        if transition is not None:
            self._apply(transition, in_emergency=True)
        return transition is not None

    def apply_alone(self, *changes: k.KeyChange) -> None:
        """Apply changes that nobody decided here."""
        self.place = (1, self.place[1] + 1)
        self.keys = self.keys.after(changes, at=self.now, place=self.place)

    def _apply(self, transition: Transition, *, in_emergency: bool = False) -> None:
        changes: list[k.KeyChange] = list(transition.changes)
        begun: set[str] = set()
        for number, alg in enumerate(transition.publish):
            kid = f"{alg}-{self.place[1] + 1}-{number}"
            changes.append(
                k.Published(kid=kid, alg=alg, jwk={}, use=self.policy.use, token_seconds=self.policy.token_seconds)
            )
            if transition.activate_new and alg not in begun:
                begun.add(alg)
                changes.append(activation_of_new(kid, alg, self.policy, self.now))
        before = self.keys
        self.apply_alone(*changes)
        happened = Happened(self.now, transition, self.policy, self.adoption, before, self.keys, in_emergency)
        self.log.append(happened)

    def of(self, alg: str) -> list[KeyRecord]:
        """Return all keys of an algorithm in the order of their publication."""
        return [key for key in self.keys if key.alg == alg and key.use is self.policy.use]

    def active(self, alg: str = "ES256") -> KeyRecord:
        """Return the key that signs."""
        (active,) = self.keys.of(alg, self.policy.use, Phase.ACTIVE)
        return active

    def standbys(self, alg: str = "ES256") -> list[KeyRecord]:
        """Return the published keys."""
        return self.keys.of(alg, self.policy.use, Phase.PUBLISHED)

    def standby(self, alg: str = "ES256") -> KeyRecord:
        """Return the one that signs next."""
        return self.standbys(alg)[0]

    def phase(self, kid: str) -> Phase:
        """Return where a key stands."""
        record = self.keys.get(kid)
        assert record is not None
        return record.phase
