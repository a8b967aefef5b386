"""`[rotation]`: the times of a key's life, as the rules take them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

import msgspec

from keyturn.contract.errors import ConfigurationError
from keyturn.contract.inequalities import violations
from keyturn.contract.jwk import ALGORITHMS
from keyturn.contract.keys import Use
from keyturn.contract.rotation import AtDeadline, Barrier, RotationPolicy, Window
from keyturn.process.settings import Section, Settings
from keyturn.process.values import Duration, Range, Unfit, seconds
from keyturn.verifier.freshness import Freshness

MOST_STANDBYS = 8
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:([a-z,-]+) )?(\d{2}):(\d{2})-(\d{2}):(\d{2})(?: UTC)?", re.IGNORECASE)
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class WeeklyWindow:
    """A window as it is written: `[DAYS ]HH:MM-HH:MM [UTC]`, such as `sat,sun 02:00-04:30` or `mon-fri 22:00-02:00`."""

    window: Window

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a window; one that ends before it begins reaches into the next day. Raises Unfit."""
        mend = 'write days and times in UTC, such as "mon-fri 22:00-02:00"'
        match = _WINDOW.fullmatch(text)
        if match is None:
            raise Unfit(f"{text!r} is not a window", mend=mend)
        start, end = (_second_of_day(hour, minute) for hour, minute in (match.group(2, 3), match.group(4, 5)))
        days = _days(match[1].lower()) if match[1] else tuple(range(7))
        if start is None or end is None or not days or start == end:
            raise Unfit(f"{text!r} is not a window", mend=mend)
        return cls(Window(days=days, start_seconds=start, length_seconds=(end - start) % _DAY_SECONDS or _DAY_SECONDS))


@dataclass(frozen=True, slots=True)
class ActiveOf:
    """The period of one algorithm, written `ALG=DURATION`, such as `RS256=90d`."""

    alg: str
    seconds: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read it; raises Unfit."""
        alg, equals, period = text.partition("=")
        if not equals or not alg:
            raise Unfit(f"{text!r} names no algorithm and period", mend='write them as "RS256=90d"')
        return cls(alg.strip(), seconds(period.strip()))


@dataclass(frozen=True, kw_only=True, slots=True)
class RotationSettings(Section):
    """`[rotation]`; the letters are those of the architecture."""

    SECTION: ClassVar[str] = "rotation"
    algorithms: tuple[str, ...] = ("ES256",)
    """What tokens are signed with; the first unless a client asks for another."""
    active: Duration = 30 * 86_400.0
    """L: how long a key signs before the schedule replaces it."""
    active_of: tuple[ActiveOf, ...] = ()
    """L of single algorithms, such as `["RS256=90d"]`."""
    window: WeeklyWindow | None = None
    """When the schedule may let a new key sign, in UTC; orders and emergencies do not wait for it."""
    token: Duration = 300.0
    """T: the longest life of a token that keys sign."""
    lease: Duration = 5.0
    """G: how long a signer signs after the store last confirmed its key set."""
    distribution: Duration | None = None
    """D: time until every verifier has a new set; E + S unless set."""
    cache: Duration = 300.0
    """C: how long those who pull the JWKS may cache it."""
    barrier: Barrier = Barrier.BOTH
    """What a published key waits for: `time`, `reports` (with `cache = 0`) or `both`."""
    deadline: Duration = 3_600.0
    """How long after the time rule live verifiers may still lack the key."""
    at_deadline: AtDeadline = AtDeadline.PROCEED
    """Then: `proceed`, or `hold` until the active key's time runs out."""
    standbys: Annotated[int, Range(1, MOST_STANDBYS)] = 2
    """How many keys of each algorithm are published ahead."""

    def __post_init__(self) -> None:
        """Refuse algorithms that we do not sign with."""
        _refuse_unknown((*self.algorithms, *(one.alg for one in self.active_of)), section=self.SECTION)

    def unchecked(self, freshness: Freshness) -> RotationPolicy:
        """Return the rules' view of these settings, with the verifiers' E and S, whether it can work or not."""
        skew, expired = freshness.skew_seconds, freshness.expired_after_seconds
        by_algorithm: Mapping[str, float] = {one.alg: one.seconds for one in self.active_of}
        return RotationPolicy(
            algorithms=self.algorithms, active_seconds=self.active, active_by_algorithm=by_algorithm,
            window=None if self.window is None else self.window.window, token_seconds=self.token,
            skew_seconds=skew, lease_seconds=self.lease, expired_seconds=expired,
            distribution_seconds=expired + skew if self.distribution is None else self.distribution,
            cache_seconds=self.cache, barrier=self.barrier, deadline_seconds=self.deadline,
            at_deadline=self.at_deadline, standbys=self.standbys,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _OfUse(Section):
    """What the keys of a use other than `access` have of their own; all else is as `[rotation]` says."""

    algorithms: tuple[str, ...] = ()
    """What is signed with, the first of them; without any, the first of `rotation.algorithms`."""
    active: Duration = 30 * 86_400.0
    """L: how long a key signs before the schedule replaces it."""
    token: Duration = 300.0
    """T: how long what a key signs can be checked, at least, by the key set."""
    standbys: Annotated[int, Range(1, MOST_STANDBYS)] = 1
    """How many keys of each algorithm are published ahead."""

    def __post_init__(self) -> None:
        """Refuse algorithms that we do not sign with."""
        _refuse_unknown(self.algorithms, section=self.SECTION)


@dataclass(frozen=True, kw_only=True, slots=True)
class IntrospectionKeysSettings(_OfUse):
    """`[introspection_keys]`: the keys that sign answers about tokens (RFC 9701)."""

    SECTION: ClassVar[str] = "introspection_keys"


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusKeysSettings(_OfUse):
    """`[status_keys]`: the keys that sign status lists, which live T at most, and security events (RFC 8417)."""

    SECTION: ClassVar[str] = "status_keys"
    token: Duration = 86_400.0


SECTIONS: Mapping[Use, type[_OfUse]] = {Use.INTROSPECTION: IntrospectionKeysSettings, Use.STATUS: StatusKeysSettings}


def rotation_policies(settings: Settings, freshness: Freshness) -> dict[Use, RotationPolicy]:
    """Return the rules for the keys of each use, `access` first.

    Raises ConfigurationError naming the section and the first rule that it breaks, with the numbers.
    """
    rotation = settings.section(RotationSettings)
    access = checked(rotation.unchecked(freshness), section=rotation.SECTION)
    policies = {Use.ACCESS: access}
    for use, shape in SECTIONS.items():
        policies[use] = checked(derived(access, use, settings.section(shape)), section=shape.SECTION)
    return policies


def usual_algorithm(settings: Settings, use: Use) -> str:
    """Return what is signed with by the keys of another use than `access`, unless somebody asks for more."""
    named = settings.section(SECTIONS[use]).algorithms or settings.section(RotationSettings).algorithms
    return next(iter(named), "")  # Without any, keyservice does not start.


def derived(access: RotationPolicy, use: Use, own: _OfUse) -> RotationPolicy:
    """Return the policy of another use: its own members over those of the keys of access tokens."""
    return msgspec.structs.replace(
        access, use=use, algorithms=own.algorithms or access.algorithms[:1], active_seconds=own.active,
        active_by_algorithm={}, token_seconds=own.token, standbys=own.standbys,
    )  # fmt: skip


def checked(policy: RotationPolicy, *, section: str) -> RotationPolicy:
    """Return it, or raise ConfigurationError naming the first rule that it breaks, with the numbers."""
    if broken := violations(policy):
        raise ConfigurationError(
            broken[0], setting=section, mend="mend the numbers; `keyturn lint` shows what follows from them"
        )
    return policy


def _refuse_unknown(algorithms: tuple[str, ...], *, section: str) -> None:
    for alg in algorithms:
        if alg not in ALGORITHMS:
            raise ConfigurationError(
                f"no keys can be made for {alg!r}",
                setting=f"{section}.algorithms", mend=f"choose from {', '.join(ALGORITHMS)}",
            )  # fmt: skip


def _second_of_day(hour: str, minute: str) -> int | None:
    hours, minutes = int(hour), int(minute)
    if hours > 24 or minutes > 59 or (hours == 24 and minutes):  # noqa: PLR2004 - a day's end may be written 24:00
        return None
    return (hours * 60 + minutes) * 60


def _days(text: str) -> tuple[int, ...]:
    """Return the numbers of `mon,wed` or `mon-fri`; empty for anything else."""
    days: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in _DAYS or (dash and last not in _DAYS):
            return ()
        start = _DAYS.index(first)
        length = (_DAYS.index(last) - start) % 7 if dash else 0
        days += [(start + step) % 7 for step in range(length + 1)]
    return tuple(sorted(set(days)))
