"""`keyturn records rotate`: a new pepper in front of the record keys; what older ones hid is still found."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from keyturn import entropy
from keyturn.cli.answers import ExitStatus, WrongUsage
from keyturn.cli.arguments import common_options
from keyturn.cli.files import alone_in, replace_file
from keyturn.cli.session import Session, online
from keyturn.cli.tables import moment
from keyturn.clock import SystemClock
from keyturn.contract.encoding import b64url
from keyturn.contract.selectors import grant_moment
from keyturn.process.freshness import FreshnessSettings
from keyturn.process.grants import GrantSettings
from keyturn.process.rotation import RotationSettings
from keyturn.process.settings import SectionPart, Settings
from keyturn.process.values import Secret, Unfit

MOST_RECORD_KEYS = 4  # As the services read them.
PEPPER_BYTES = 32
_MEMBERS = {"id", "seal", "pepper"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _RecordKeysPlace(SectionPart):
    SECTION: ClassVar[str] = "records"
    key_file: Path | None = None


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `records rotate`."""
    commands = groups.add_parser("records", help="the keys of token records: rotate").add_subparsers(required=True)
    rotate = commands.add_parser(
        "rotate", parents=[common_options()],
        help="put a new pepper in front of the file; records that older ones hid are found until they run out",
    )  # fmt: skip
    rotate.add_argument("--config", type=Path, metavar="FILE", help="the settings (default: ./keyturn.toml)")
    rotate.add_argument(
        "--drop-old", action="store_true",
        help="add none; take out the older ones, once no token lives whose record one of them hid",
    )  # fmt: skip
    rotate.set_defaults(run=online(_rotate))


async def _rotate(args: argparse.Namespace, session: Session) -> ExitStatus:
    settings, now = Settings.read(args.config), SystemClock().now()
    path = settings.section(_RecordKeysPlace).key_file
    if path is None:
        raise WrongUsage("records.key_file is not set: name the settings of the services by --config")
    with alone_in(path.absolute().parent):
        held = _read(path)
        kept = _without_old(held, settings, now) if args.drop_old else _with_new(held, path, now)
        needed = _needed_until(kept, settings)
        if kept != held:
            replace_file(path.absolute(), json.dumps({"keys": kept}, indent=2).encode("ascii") + b"\n")
    newest, older = kept[0]["id"], [one["id"] for one in kept[1:]]
    dropped = [one["id"] for one in held if one not in kept]
    lines = [f"{path}: records are hidden by pepper {newest} from now on; {len(older)} older ones are still looked for"]
    if dropped:
        lines.append(f"dropped {len(dropped)} older ones")
    if needed is not None:
        lines.append(f"they may leave (--drop-old) from {moment(needed)} on, when all tokens that they hide have ended")
    session.printer.answer({"newest": newest, "older": older, "dropped": dropped, "needed_until": needed}, *lines)
    return ExitStatus.YES


def _with_new(held: list[dict[str, str]], path: Path, now: float) -> list[dict[str, str]]:
    if len(held) >= MOST_RECORD_KEYS:
        raise WrongUsage(f"{path} holds {len(held)} record keys, as many as it may: --drop-old first")
    # The seal stays: rows of status lists are sealed under it, too, by processes that read it at their start.
    return [{"id": entropy.uuid7(now), "seal": held[0]["seal"], "pepper": b64url(entropy.token_bytes(PEPPER_BYTES))},
            *held]  # fmt: skip


def _without_old(held: list[dict[str, str]], settings: Settings, now: float) -> list[dict[str, str]]:
    """Return the newest alone; raises WrongUsage while a token may live whose record another one hid."""
    until = _needed_until(held, settings)
    if until is not None and now < until:
        raise WrongUsage(f"tokens may live until {moment(until)} whose records older peppers hide: repeat it then")
    return held[:1]


def _needed_until(held: list[dict[str, str]], settings: Settings) -> float | None:
    """Return until when a token may live whose record an older pepper hid (Unix seconds); None if there is none.

    Raises WrongUsage where it cannot be told when the newest was made.
    """
    if len(held) == 1:
        return None
    made_at = grant_moment(held[0]["id"])
    if made_at is None:
        raise WrongUsage(f"when the newest pepper was made cannot be told from its id {held[0]['id']!r}")
    token, life = settings.section(RotationSettings).token, settings.section(GrantSettings).life
    return made_at + max(token, life) + settings.section(FreshnessSettings).skew


def _read(path: Path) -> list[dict[str, str]]:
    """Return the record keys, the newest first; raises WrongUsage."""
    try:
        told = json.loads(Secret.read(path).reveal())
        rows = told.get("keys", [told])
        whole = all(row.keys() == _MEMBERS and all(isinstance(one, str) for one in row.values()) for row in rows)
    except Unfit as error:
        raise WrongUsage(f"{error}: {error.mend}") from error
    except (ValueError, TypeError, AttributeError):
        whole, rows = False, []
    if not rows or not whole:
        raise WrongUsage(f"{path} holds no record keys: name the records.json that keyturn init made")
    return list(rows)
