"""`keyturn lint`: whether the configuration keeps the rules of rotation, and what they will do with the keys."""

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import msgspec

from keyturn.cli.answers import CannotTell, ExitStatus, WrongUsage
from keyturn.cli.arguments import common_options, moment_of
from keyturn.cli.bars import draw, duration, legend, marks_for
from keyturn.cli.session import Session, online
from keyturn.cli.tables import moment, plain, table
from keyturn.clock import SystemClock
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.inequalities import Inequality, grants_outlast_tokens, inequalities, leeway_lasts
from keyturn.contract.keys import KeyRecord, KeySet, RotationRequest, Use
from keyturn.contract.rotation import RotationPolicy, jwks_max_age
from keyturn.contract.timeline import Timeline, as_rows, foresee
from keyturn.process.freshness import FreshnessSettings
from keyturn.process.grants import GrantSettings
from keyturn.process.rotation import SECTIONS, RotationSettings, derived
from keyturn.process.settings import IssuerSettings, SectionPart, Settings
from keyturn.process.values import Duration, Range

MOST_ROTATIONS = 12
_Read = TypeVar("_Read")
_MOMENTS = (
    "published_at", "active_at", "sign_until", "verify_until", "retiring_at", "removed_at", "revoked_at",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _TokenLife(SectionPart):
    """The settings of `[authorization]` that have to go with others: the lives of tokens."""

    SECTION: ClassVar[str] = "authorization"
    access_token: Annotated[Duration, Range(1, 86_400)] = 300.0
    refresh_token: Annotated[Duration, Range(1, 366 * 86_400)] = 7 * 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Leeway(SectionPart):
    """The one setting of `[revocation]` that has to go with the clocks."""

    SECTION: ClassVar[str] = "revocation"
    leeway: Annotated[Duration, Range(10, 86_400)] = 60.0


@dataclass
class _Found:
    """What the configuration says: the policies that can be read, what has to hold, and what is no setting at all."""

    policies: dict[Use, RotationPolicy] = field(default_factory=dict)
    rules: list[Inequality] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    issuer: str | None = None

    @property
    def holds(self) -> bool:
        return not self.problems and all(one.holds for one in self.rules)


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `lint`."""
    lint = groups.add_parser(
        "lint", parents=[common_options()], help="check the rotation settings, and show what they will do"
    )
    lint.add_argument("--config", type=Path, metavar="FILE", help="the settings (default: ./keyturn.toml)")
    lint.add_argument(
        "--at", type=moment_of, metavar="MOMENT",
        help="begin the timeline then (Unix seconds, or ISO 8601 with a zone; default: now)",
    )  # fmt: skip
    lint.add_argument(
        "--use", type=Use, choices=list(Use), default=Use.ACCESS, metavar="USE",
        help="whose keys the timeline is of: access (default), introspection or status",
    )  # fmt: skip
    lint.add_argument("--rotations", type=_count, default=3, metavar="N", help="how many to foresee (default: 3)")
    lint.add_argument("--offline", action="store_true", help="begin with a first key; ask no issuer for its keys")
    lint.set_defaults(run=online(_lint))


async def _lint(args: argparse.Namespace, session: Session) -> ExitStatus:
    found = _read(Settings.read(args.config))
    broken = sum(not one.holds for one in found.rules) + len(found.problems)
    rows = [
        ["-" if one.rule is None else one.rule, "yes" if one.holds else "NO", one.stated if one.holds else one.refusal]
        for one in found.rules
    ]
    lines = [f"{len(found.rules)} inequalities, {broken} broken" if broken else f"{len(rows)} inequalities, all hold"]
    lines += ["", *table(["RULE", "HOLDS", "INEQUALITY"], rows)] if rows else []
    lines += [f"refused: {problem}" for problem in found.problems]
    stated = [msgspec.to_builtins(one) | {"stated": one.stated} for one in found.rules]
    told: dict[str, Any] = {"holds": found.holds, "inequalities": stated, "problems": found.problems}
    policy = found.policies.get(args.use)
    if policy is None or not found.holds:
        lines += ["", "no timeline: no process starts with this configuration"]
    else:
        timeline, began = await _foresee(args, session, found, policy)
        told |= {
            "use": policy.use.value,
            "begins_with": began,
            "begins_at": timeline.begins_at,
            "keys": as_rows(timeline),
        }
        lines += ["", *_shown(timeline, policy, began)]
    session.printer.answer(told, *lines)
    return ExitStatus.YES if found.holds else ExitStatus.NO


def _read(settings: Settings) -> _Found:
    """Read all that rotation depends on; one section that cannot be read does not hide the others."""
    found = _Found()

    def section(read: Callable[[], _Read]) -> _Read | None:
        try:
            return read()
        except ConfigurationError as error:
            found.problems.append(str(error))
            return None

    freshness = section(lambda: settings.section(FreshnessSettings))
    rotation = section(lambda: settings.section(RotationSettings))
    life = section(lambda: settings.section(_TokenLife))
    own_leeway = section(lambda: settings.section(_Leeway))
    grants = section(lambda: settings.section(GrantSettings))
    try:
        found.issuer = settings.section(IssuerSettings).url
    except ConfigurationError:
        found.issuer = None  # Another process's concern.
    if freshness is not None and rotation is not None:
        access = found.policies[Use.ACCESS] = rotation.unchecked(freshness.freshness())
        found.rules = inequalities(access)
        for use, shape in SECTIONS.items():
            own = section(partial(settings.section, shape))
            if own is not None:
                found.policies[use] = derived(access, use, own)
                found.rules += _more(shape.SECTION, inequalities(found.policies[use]), than=inequalities(access))
    if rotation is not None and life is not None:
        outlives = Inequality(
            rule=2, left=f"access_token {life.access_token:.12g} s", relation="<=",
            right=f"token {rotation.token:.12g} s",
            holds=life.access_token <= rotation.token, why="tokens would outlive the time by which keys go",
            mend="shorten authorization.access_token, or lengthen rotation.token",
        )  # fmt: skip
        found.rules.append(outlives)
        found.rules.sort(key=lambda one: one.rule or 0)
    if freshness is not None and own_leeway is not None:
        found.rules.append(leeway_lasts(leeway_seconds=own_leeway.leeway, skew_seconds=freshness.skew))
    if grants is not None and life is not None:
        found.rules += grants_outlast_tokens(
            grant_seconds=grants.life, access_token_seconds=life.access_token, refresh_token_seconds=life.refresh_token
        )
    return found


def _more(section: str, rules: list[Inequality], *, than: list[Inequality]) -> list[Inequality]:
    """Return the inequalities of a section that have other numbers than those of access tokens' keys."""
    return [msgspec.structs.replace(one, left=f"{section}: {one.left}") for one in rules if one not in than]


async def _foresee(
    args: argparse.Namespace, session: Session, found: _Found, policy: RotationPolicy
) -> tuple[Timeline, str]:
    now = float(math.floor(SystemClock().now()))
    keys, why_not = await _real_keys(args, session, found, policy)
    if keys is not None:
        return foresee(keys, policy, now=now, begins_at=args.at, rotations=args.rotations), "the issuer's keys"
    at = now if args.at is None else args.at
    return foresee(KeySet(), policy, now=at, rotations=args.rotations), f"a first key ({why_not})"


async def _real_keys(
    args: argparse.Namespace, session: Session, found: _Found, policy: RotationPolicy
) -> tuple[KeySet | None, str]:
    """Return the issuer's keys, or why there are none to begin with."""
    if args.offline:
        return None, "offline"
    try:
        issuer = session.environment.issuer
        if found.issuer not in (None, issuer):
            return None, f"KEYTURN_ISSUER is {plain(issuer)}, not the configuration's {found.issuer}"
        told = (await session.as_admin("GET", "/keys", accept=(200,))).object()
        keys = key_set(told, policy)
    except (WrongUsage, CannotTell) as error:
        return None, str(error)
    return (keys, "") if len(keys) else (None, "the issuer has no key yet")


def key_set(told: dict[str, Any], policy: RotationPolicy) -> KeySet:
    """Return what `GET /keys` told as a key set; raises CannotTell."""
    try:
        records = [_record(row, policy) for row in told["keys"]]
        requests = msgspec.convert(told.get("requests", []), list[RotationRequest])
    except (KeyError, TypeError, ValueError) as error:
        raise CannotTell("the issuer's keys cannot be read: is it of another version?") from error
    return KeySet(records, requests)


def _record(row: dict[str, Any], policy: RotationPolicy) -> KeyRecord:
    moments: dict[str, Any] = {name: row.get(name) for name in _MOMENTS}
    if not all(isinstance(value, int | float | None) for value in moments.values()):
        raise TypeError("a moment is a number")
    return KeyRecord(
        kid=str(row["kid"]), alg=str(row["alg"]), jwk={}, use=Use(row.get("use", "access")),
        token_seconds=float(row.get("token_seconds", policy.token_seconds)), published_place=(1, 0), **moments,
    )  # fmt: skip


def _shown(timeline: Timeline, policy: RotationPolicy, began: str) -> list[str]:
    marks = marks_for(stream_encoding())
    lines = [
        f"the next rotations from {moment(timeline.begins_at)} (UTC), beginning with {began}",
        f"barrier {policy.barrier}; the JWKS may be cached for {jwks_max_age(policy)} s",
    ]
    for alg in sorted({span.alg for span in timeline.spans}):
        said = f"signs {duration(policy.period_seconds(alg))}" if alg in policy.algorithms else "dropped"
        lines += [
            "",
            f"{alg}: {said}; a new key waits {_waits(timeline, alg)}, a retired one stays {_stays(timeline, alg)}",
        ]
        lines += draw(timeline, alg, window=policy.window, marks=marks)
    return [*lines, "", legend(marks, window=policy.window is not None)]


def _waits(timeline: Timeline, alg: str) -> str:
    """Return how long the last new key waits until it may sign, as the timeline has it."""
    spans = [one for one in timeline.of(alg) if one.may_activate_at is not None]
    return duration((spans[-1].may_activate_at or 0.0) - spans[-1].publish_at) if spans else "for ever"


def _stays(timeline: Timeline, alg: str) -> str:
    """Return how long the last retired key stays in the set, as the timeline has it."""
    spans = [one for one in timeline.of(alg) if one.retires_at is not None and one.removed_at is not None]
    return duration((spans[-1].removed_at or 0.0) - (spans[-1].retires_at or 0.0)) if spans else "for ever"


def stream_encoding() -> str | None:
    """Return in which encoding standard output is written."""
    return getattr(sys.stdout, "encoding", None)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_ROTATIONS:
        raise argparse.ArgumentTypeError(f"is a number from 1 to {MOST_ROTATIONS}")
    return int(text)
