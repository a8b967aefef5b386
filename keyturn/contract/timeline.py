"""What a rotation policy will do: the real rules, run forward over a clock that only leaps."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from keyturn.contract.keys import KeyChange, KeyRecord, KeySet, Phase, Published
from keyturn.contract.rotation import (
    Adoption,
    RotationPolicy,
    Transition,
    Window,
    activation_of_new,
    due,
    may_activate,
)

_DAY_SECONDS = 86_400
MOST_EVENTS = 2_000
_MOST_TRANSITIONS_AT_ONCE = 64
_INSTANT = 0.001
_ALL_REPORT = Adoption({}, complete=True)


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One key's life: when it may sign at the earliest, and each phase's beginning; Unix seconds, None if never."""

    kid: str
    alg: str
    known: bool  # It exists; else the rules will make it.
    publish_at: float
    may_activate_at: float | None
    active_at: float | None
    retires_at: float | None
    removed_at: float | None
    revoked_at: float | None
    in_window: bool | None  # Whether it begins to sign inside the window; None without one, or before it signs.

    @property
    def gone_at(self) -> float:
        """Return when it leaves the key set; infinity if nothing says so."""
        return min(end for end in (self.removed_at, self.revoked_at, math.inf) if end is not None)


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of each algorithm from a moment on, in order of publication."""

    begins_at: float
    ends_at: Mapping[str, float]  # By algorithm: when the last key that was told of has gone.
    spans: tuple[Span, ...]

    def of(self, alg: str) -> list[Span]:
        """Return the spans of one algorithm."""
        return [span for span in self.spans if span.alg == alg]


def foresee(
    keys: KeySet, policy: RotationPolicy, *, now: float, begins_at: float | None = None, rotations: int = 3
) -> Timeline:
    """Return what the rules will do, until each algorithm has rotated that often after `begins_at` (default: `now`).

    Verifiers are taken to report at once and workers to look each second, in whole seconds after `now`. The policy
    must break no inequality.
    """
    world = _World(policy, keys, now)
    start = now if begins_at is None else begins_at
    world.run(until=lambda: all(world.rotations(alg, after=start) >= rotations for alg in policy.algorithms))
    shown = [world.span(key) for key in world.seen.values() if key.use is policy.use]
    ends = {alg: _end([one for one in shown if one.alg == alg], start, rotations) for alg in {k.alg for k in shown}}
    told = [one for one in shown if one.publish_at <= ends[one.alg] and one.gone_at > start]
    return Timeline(begins_at=start, ends_at=ends, spans=tuple(told))


def _end(spans: list[Span], start: float, rotations: int) -> float:
    """Return when the key has gone that the last rotation to tell of retires."""
    begun = sorted(one.active_at for one in spans if one.active_at is not None and one.active_at > start)
    last = begun[min(rotations, len(begun)) - 1] if begun else start
    gone = [one.gone_at for one in spans if one.retires_at == last and one.gone_at != math.inf]
    return max([last, start + 1, *gone])


@dataclass
class _World:
    """A worker, its keys and its clock."""

    policy: RotationPolicy
    keys: KeySet
    now: float
    seen: dict[str, KeyRecord] = field(default_factory=dict)  # Also those that the set has forgotten.
    known: frozenset[str] = frozenset()
    made: int = 0
    sequence: int = 0
    first_activated: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.seen = {key.kid: key for key in self.keys}
        self.known = frozenset(self.seen)
        self.sequence = max((key.published_place[1] for key in self.keys), default=0)

    def run(self, *, until: Callable[[], bool]) -> None:
        """Do what is due, leap to the next moment at which something is, and so on; then let the last keys go."""
        for _ in range(MOST_EVENTS):
            self._tick()
            if until() or not self._leap():
                break
        else:
            return
        # The last rotation is told to its end: until the key that it retired has gone.
        for _ in range(MOST_EVENTS):
            if not any(key.phase is Phase.RETIRING for key in self.keys if key.use is self.policy.use):
                return
            if not self._leap():
                return
            self._tick()

    def rotations(self, alg: str, *, after: float) -> int:
        """Count the keys of an algorithm that began to sign after a moment."""
        own = (key for key in self.seen.values() if (key.alg, key.use) == (alg, self.policy.use))
        return sum((key.active_at or 0) > after for key in own)

    def span(self, key: KeyRecord) -> Span:
        """Return a key's life; the earliest moment at which it may sign is asked of the rule itself."""
        window, earliest = self.policy.window, self._earliest(key)
        inside = None if window is None or key.active_at is None else window.holds(key.active_at)
        return Span(
            kid=key.kid, alg=key.alg, known=key.kid in self.known, publish_at=key.published_at,
            may_activate_at=earliest, active_at=key.active_at, retires_at=key.retiring_at, removed_at=key.removed_at,
            revoked_at=key.revoked_at, in_window=inside,
        )  # fmt: skip

    def _earliest(self, key: KeyRecord) -> float | None:
        if key.active_at == key.published_at:
            return key.published_at  # The first of an issuer, or the successor in an emergency: it waits for nobody.
        begin = key.published_at
        waiting = msgspec.structs.replace(key, active_at=None)

        def may(moment: float) -> bool:
            return may_activate(waiting, None, self.policy, _ALL_REPORT, moment)

        return _first(may, begin, begin + self._horizon_seconds())

    def _tick(self) -> None:
        for _ in range(_MOST_TRANSITIONS_AT_ONCE):
            transition = self._due(self.now)
            if transition is None:
                return
            self._apply(transition)
        raise RuntimeError("always something due: the policy breaks an inequality")

    def _due(self, moment: float) -> Transition | None:
        return due(self.keys, self.policy, _ALL_REPORT, moment)

    def _leap(self) -> bool:
        """Go to the first moment at which something is due; False if nothing ever is."""
        end = self.now + self._horizon_seconds()
        for begin, stop in _stretches(self.policy.window, self.now, end):
            found = _first(lambda moment: self._due(moment) is not None, begin, stop, since=self.now)
            if found is not None:
                self.now = found
                return True
        return False

    def _horizon_seconds(self) -> float:
        """Return a time after which something must have happened, since every key's time to sign is over."""
        longest = max(self.policy.sign_seconds(alg) for alg in self.policy.algorithms)
        orders = [one.not_before - self.now for one in self.keys.requests if one.not_before is not None]
        return 2 * longest + self.policy.aftermath_seconds + max(0.0, *orders, 0.0) + _DAY_SECONDS

    def _apply(self, transition: Transition) -> None:
        changes: list[KeyChange] = list(transition.changes)
        begun: set[str] = set()
        for alg in transition.publish:
            self.made += 1
            kid = f"+{self.made}"
            changes.append(
                Published(kid=kid, alg=alg, jwk={}, use=self.policy.use, token_seconds=self.policy.token_seconds)
            )
            if transition.activate_new and alg not in begun:
                begun.add(alg)
                changes.append(activation_of_new(kid, alg, self.policy, self.now))
        self.sequence += 1
        self.keys = self.keys.after(changes, at=self.now, place=(1, self.sequence))
        self.seen |= {key.kid: key for key in self.keys}


def _stretches(window: Window | None, begin: float, end: float) -> Iterator[tuple[float, float]]:
    """Cut a time at the window's edges: within a stretch no rule becomes undue again by itself."""
    edges = sorted(edge for edge in _edges(window, begin, end) if begin < edge < end)
    for edge in edges:
        yield begin, edge - _INSTANT
        begin = edge
    yield begin, end


def _edges(window: Window | None, begin: float, end: float) -> Iterator[float]:
    if window is None:
        return
    day = math.floor(begin / _DAY_SECONDS) * _DAY_SECONDS - _DAY_SECONDS
    while day < end:
        yield float(day + window.start_seconds)
        yield float(day + window.start_seconds + window.length_seconds)
        day += _DAY_SECONDS


def _first(holds: Callable[[float], bool], begin: float, end: float, *, since: float | None = None) -> float | None:
    """Return the first whole second after `since` in a stretch from which on a rule holds; None if it never does."""
    origin = begin if since is None else since
    low, high = max(0, math.ceil(begin - origin)), math.floor(end - origin)
    if high < low or not holds(origin + high):
        return None
    while low < high:
        middle = (low + high) // 2
        if holds(origin + middle):
            high = middle
        else:
            low = middle + 1
    return origin + low


def as_rows(timeline: Timeline) -> list[Mapping[str, object]]:
    """Return the spans as JSON has them."""
    return [msgspec.to_builtins(span) for span in timeline.spans]
