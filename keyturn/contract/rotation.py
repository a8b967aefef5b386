"""When a key is published, activated, retired and removed: decisions as functions of facts and the moment."""

from collections.abc import Iterator, Mapping
from enum import StrEnum

import msgspec

from keyturn.contract.keys import (
    Activated,
    KeyChange,
    KeyRecord,
    KeySet,
    Phase,
    Removed,
    Retired,
    Revoked,
    Use,
)

_DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * _DAY_SECONDS
WORKER_TICK_SECONDS = 60.0
APPEND_SECONDS = 10.0  # From an event's date to its place in the store, at most: every wait for an answer included.
_EPOCH_WEEKDAY = 3  # 1 January 1970 was a Thursday.


class Barrier(StrEnum):
    """What a published key waits for before it signs."""

    TIME = "time"
    REPORTS = "reports"
    BOTH = "both"


class AtDeadline(StrEnum):
    """What happens when live verifiers have still not reported at the deadline."""

    PROCEED = "proceed"
    HOLD = "hold"  # Until the active key's `sign_until`.


class Window(msgspec.Struct, frozen=True):
    """A time of the week, in UTC: these days (0 is Monday), from a second of the day for so many seconds."""

    days: tuple[int, ...]
    start_seconds: int
    length_seconds: int

    def holds(self, now: float) -> bool:
        """Say whether a moment (Unix seconds) lies in the window; one that began yesterday may reach into today."""
        day, second = divmod(int(now), _DAY_SECONDS)
        return any(
            (day - back + _EPOCH_WEEKDAY) % 7 in self.days
            and self.start_seconds <= second + back * _DAY_SECONDS < self.start_seconds + self.length_seconds
            for back in (0, 1)
        )


class RotationPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The times that decide a key's life, in seconds; the letters are those of the architecture."""

    algorithms: tuple[str, ...] = ("ES256",)
    use: Use = Use.ACCESS
    active_seconds: float = 30 * 86400.0  # L
    active_by_algorithm: Mapping[str, float] = {}  # L where an algorithm has its own.
    window: Window | None = None  # When routine rotation may let a key sign; None means always.
    token_seconds: float = 300.0  # T
    skew_seconds: float = 2.0  # S
    lease_seconds: float = 5.0  # G
    expired_seconds: float = 900.0  # E
    distribution_seconds: float = 902.0  # D
    cache_seconds: float = 300.0  # C
    barrier: Barrier = Barrier.BOTH
    deadline_seconds: float = 3600.0  # After the time rule; then `at_deadline`.
    at_deadline: AtDeadline = AtDeadline.PROCEED
    standbys: int = 2

    @property
    def publication_seconds(self) -> float:
        """Return how long the time rule keeps a published key from signing: D + C + S."""
        return self.distribution_seconds + self.cache_seconds + self.skew_seconds

    def period_seconds(self, alg: str) -> float:
        """Return L of an algorithm."""
        return self.active_by_algorithm.get(alg, self.active_seconds)

    def sign_seconds(self, alg: str) -> float:
        """Return the longest time that a key signs: its period, and what a successor may have to wait."""
        waiting = self.publication_seconds + self.deadline_seconds
        return self.period_seconds(alg) + waiting + (WEEK_SECONDS if self.window is not None else 0.0)

    @property
    def aftermath_seconds(self) -> float:
        """Return how long after its last moment of signing a key's tokens may live: G + T + 2S."""
        return self.lease_seconds + self.token_seconds + 2 * self.skew_seconds


class Adoption(msgspec.Struct, frozen=True):
    """What live verifiers have adopted of the keys lane: verifier → (epoch, sequence)."""

    live: Mapping[str, tuple[int, int]]
    complete: bool  # False while the set may still lack a live verifier: then only the time rule counts.

    def laggards(self, place: tuple[int, int]) -> list[str]:
        """Return the live verifiers that have not adopted a place, in order of name."""
        return sorted(name for name, adopted in self.live.items() if adopted < place)


class Transition(msgspec.Struct, frozen=True):
    """What is due: changes to existing keys, and for each entry of `publish` a new key of that algorithm.

    With `activate_new` the first new key of each algorithm becomes active in the same event.
    """

    changes: tuple[KeyChange, ...] = ()
    publish: tuple[str, ...] = ()
    activate_new: bool = False

    def activates(self, keys: KeySet, alg: str) -> bool:
        """Say whether this lets another key of an algorithm sign."""
        if self.activate_new and alg in self.publish:
            return True
        activated = [keys.get(change.kid) for change in self.changes if isinstance(change, Activated)]
        return any(key is not None and key.alg == alg for key in activated)

    def ends(self) -> list[str]:
        """Return the kids that never sign again after this: their private halves are erased with it."""
        return [change.kid for change in self.changes if isinstance(change, Retired | Removed | Revoked)]


def may_activate(
    key: KeyRecord, active: KeyRecord | None, policy: RotationPolicy, adoption: Adoption, now: float
) -> bool:
    """Say whether a published key may sign (rule 1): the barrier holds, or its deadline has passed."""
    waited = now >= key.published_at + policy.publication_seconds
    if policy.barrier is Barrier.TIME or not adoption.complete:
        return waited
    reported = not adoption.laggards(key.published_place)
    if policy.barrier is Barrier.REPORTS and reported:
        return True
    if waited and reported:
        return True
    if now < key.published_at + policy.publication_seconds + policy.deadline_seconds:
        return False
    last_call = policy.lease_seconds + WORKER_TICK_SECONDS  # The worker may look a minute before, and not again.
    running_out = active is None or active.sign_until is None or now >= active.sign_until - last_call
    return policy.at_deadline is AtDeadline.PROCEED or running_out


def activation(key: KeyRecord, policy: RotationPolicy, now: float) -> Activated:
    """Return the change that makes a key sign, with its limits (rule 2), which nothing rewrites."""
    return _activated(key.kid, key.alg, key.token_seconds, policy, now)


def _activated(kid: str, alg: str, token_seconds: float, policy: RotationPolicy, now: float) -> Activated:
    sign_until = now + policy.sign_seconds(alg)
    verify_until = sign_until + policy.lease_seconds + token_seconds + 2 * policy.skew_seconds
    return Activated(kid=kid, sign_until=sign_until, verify_until=verify_until)


def activation_of_new(kid: str, alg: str, policy: RotationPolicy, now: float) -> Activated:
    """Return the activation of a key that is published in the same event: the first of an issuer, or an emergency."""
    return _activated(kid, alg, policy.token_seconds, policy, now)


def due(keys: KeySet, policy: RotationPolicy, adoption: Adoption, now: float) -> Transition | None:
    """Return the one transition that is due, the most urgent first, or None."""
    for rule in (_first_keys, _activation_due, _standby_due, _leftovers_due, _removal_due):
        for transition in rule(keys, policy, adoption, now):
            return transition
    return None


def _first_keys(keys: KeySet, policy: RotationPolicy, _: Adoption, __: float) -> Iterator[Transition]:
    """Begin the keys of a use that never had one: nobody can hold a set that lacks them."""
    if not any(key.use is policy.use for key in keys):
        new = tuple(alg for alg in policy.algorithms for _ in range(1 + policy.standbys))
        yield Transition(publish=new, activate_new=True)


def _activation_due(keys: KeySet, policy: RotationPolicy, adoption: Adoption, now: float) -> Iterator[Transition]:
    for alg in policy.algorithms:
        active = keys.active(alg, policy.use)
        if not _asked_for(keys, alg, policy, now) and not _period_over(active, policy, now):
            continue
        standby = _ready(keys, alg, policy, adoption, now)
        if standby is None:
            continue
        yield Transition(
            changes=(*((Retired(kid=active.kid),) if active else ()), activation(standby, policy, now)),
            publish=(alg,) * max(0, policy.standbys - len(keys.of(alg, policy.use, Phase.PUBLISHED)) + 1),
        )


def _ready(keys: KeySet, alg: str, policy: RotationPolicy, adoption: Adoption, now: float) -> KeyRecord | None:
    """Return the key that may sign now: the one whose turn it is, or any before signing would end for its sake."""
    active, turn = keys.active(alg, policy.use), keys.standby(alg, policy.use)
    ends = active is None or (active.sign_until is not None and now >= active.sign_until - policy.lease_seconds)
    others = keys.of(alg, policy.use, Phase.PUBLISHED) if ends else []
    candidates = [turn, *others] if turn is not None else []
    return next((key for key in candidates if may_activate(key, active, policy, adoption, now)), None)


def _asked_for(keys: KeySet, alg: str, policy: RotationPolicy, now: float) -> bool:
    request = keys.requested(alg, policy.use)
    return request is not None and (request.not_before is None or now >= request.not_before)


def _period_over(active: KeyRecord | None, policy: RotationPolicy, now: float) -> bool:
    """Say whether the schedule asks for a rotation: in the window, or when waiting for it would end the signing."""
    if active is None or active.active_at is None:
        return True
    if now < active.active_at + policy.period_seconds(active.alg):
        return False
    if policy.window is None or policy.window.holds(now):
        return True
    return (
        active.sign_until is not None
        and now >= active.sign_until - policy.deadline_seconds - policy.lease_seconds - WORKER_TICK_SECONDS
    )


def _standby_due(keys: KeySet, policy: RotationPolicy, _: Adoption, __: float) -> Iterator[Transition]:
    for alg in policy.algorithms:
        missing = policy.standbys - len(keys.of(alg, policy.use, Phase.PUBLISHED))
        if missing > 0:
            yield Transition(publish=(alg,) * missing)


def _leftovers_due(keys: KeySet, policy: RotationPolicy, _: Adoption, __: float) -> Iterator[Transition]:
    """End the keys of an algorithm that the policy has dropped, or they would stay for ever."""
    dropped = [key for key in keys if key.use is policy.use and key.alg not in policy.algorithms]
    retired = [Retired(kid=key.kid) for key in dropped if key.phase is Phase.ACTIVE]
    removed = [Removed(kid=key.kid) for key in dropped if key.phase is Phase.PUBLISHED]
    if retired or removed:
        yield Transition(changes=(*retired, *removed))


def _removal_due(keys: KeySet, policy: RotationPolicy, _: Adoption, now: float) -> Iterator[Transition]:
    for key in keys:
        if key.use is policy.use and removable_at(key, policy) <= now:
            yield Transition(changes=(Removed(kid=key.kid),))


def removable_at(key: KeyRecord, policy: RotationPolicy) -> float:
    """Return when nothing that a retiring key signed can be valid (rule 2); infinity in any other phase.

    The key's own T counts, and lease and skew as they were written at its activation, or today's if they are longer.
    A retirement is dated when it is signed; until the store has taken it, a signer may renew its lease.
    """
    if key.phase is not Phase.RETIRING or key.retiring_at is None:
        return float("inf")
    aftermath = policy.lease_seconds + key.token_seconds + 2 * policy.skew_seconds
    if key.sign_until is not None and key.verify_until is not None:
        aftermath = max(aftermath, key.verify_until - key.sign_until)
    return key.retiring_at + APPEND_SECONDS + aftermath


def emergency(keys: KeySet, kid: str, policy: RotationPolicy, now: float, reason: str) -> Transition | None:
    """Return tombstone, activation and new standby for a key that leaked, as one event; None if it is revoked already.

    It waits for nobody. Raises KeyError for a kid that never was.
    """
    key = keys.get(kid)
    if key is None:
        raise KeyError(kid)
    if key.phase is Phase.REVOKED:
        return None
    tombstone = Revoked(kid=kid, reason=reason)
    standbys = [one for one in keys.of(key.alg, key.use, Phase.PUBLISHED) if one.kid != kid]
    if key.phase is Phase.ACTIVE and standbys:
        missing = max(1, policy.standbys - len(standbys) + 1)
        return Transition(changes=(tombstone, activation(standbys[0], policy, now)), publish=(key.alg,) * missing)
    if key.phase is Phase.ACTIVE:
        return Transition(changes=(tombstone,), publish=(key.alg,) * (1 + policy.standbys), activate_new=True)
    missing = max(0, policy.standbys - len(standbys)) if key.phase is Phase.PUBLISHED else 0
    return Transition(changes=(tombstone,), publish=(key.alg,) * missing)


def jwks_max_age(policy: RotationPolicy) -> int:
    """Return the whole seconds that a pulled JWKS may be cached (rule 4).

    At most C, and never past the earliest moment at which a key that is not published yet could sign, less S.
    """
    earliest = policy.publication_seconds - policy.skew_seconds
    return max(0, int(min(policy.cache_seconds, earliest)))
