"""`keyturn kek rotate`: a new key-encryption key in front, every private key sealed anew, and the old ones dropped."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from keyturn.cli.answers import CannotTell, ExitStatus, WrongUsage
from keyturn.cli.arguments import common_options
from keyturn.cli.kekfile import MOST_KEKS, KekFile
from keyturn.cli.session import Session, online
from keyturn.cli.tables import plain
from keyturn.clock import SystemClock
from keyturn.process.settings import SectionPart, Settings

SETTLE_SECONDS = 10.0
"""How long a key that was sealed by the old KEK may take to reach the store."""
_SEALED, _SOME_LEFT = 200, 409


@dataclass(frozen=True, kw_only=True, slots=True)
class _KekPlace(SectionPart):
    SECTION: ClassVar[str] = "keyservice"
    kek_file: Path | None = None


@dataclass(frozen=True, slots=True)
class _Sealed:
    """What the key service said: the KEK that seals now, how many keys it took, and which do not open."""

    kek: str
    resealed: int  # In this call of the command, all rounds together.
    left: list[str]


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `kek rotate`."""
    commands = groups.add_parser("kek", help="the key-encryption key: rotate").add_subparsers(required=True)
    rotate = commands.add_parser(
        "rotate", parents=[common_options()],
        help="put a new KEK in front of the file, and have every private key sealed by it",
    )  # fmt: skip
    place = rotate.add_mutually_exclusive_group()
    place.add_argument("--file", type=Path, metavar="KEK_FILE", help="the file of the KEKs")
    place.add_argument(
        "--config", type=Path, metavar="FILE", help="the settings that name it (default: ./keyturn.toml)"
    )
    rotate.add_argument("--reseal-only", action="store_true", help="add no KEK; seal by the newest that is there")
    rotate.add_argument(
        "--drop-old", action="store_true", help="then take the others out of the file, if nothing is left under them"
    )
    rotate.set_defaults(run=online(_rotate))


async def _rotate(args: argparse.Namespace, session: Session) -> ExitStatus:
    """Each step leaves a system that works, and the next call goes on where this one stopped."""
    file, told, lines = _kek_file(args), dict[str, Any](), list[str]()
    if file is None:  # Transit keeps it: only sealing is ours.
        sealed = await _reseal(session)
        return _say(session, told, [f"sealed {sealed.resealed} keys by {plain(sealed.kek)}"], sealed)
    held = file.read()
    before = await _reseal(session)
    _require_same(file, before, held[0]["id"])
    if not args.reseal_only:
        if before.resealed or before.left:
            lines.append("an earlier rotation was not finished: going on with it, adding no KEK; repeat for a new one")
        else:
            held = file.add(SystemClock().now())
            lines.append(f"{file.path}: added KEK {held[0]['id']} in front of {len(held) - 1}")
            told["added"] = held[0]["id"]
    sealed = await _reseal(session, before.resealed)
    _require_same(file, sealed, held[0]["id"])
    lines.append(f"sealed {sealed.resealed} keys by {sealed.kek}")
    if args.drop_old and not sealed.left and len(held) > 1:
        sealed = await _drop_old(session, file, told, lines, sealed.resealed)
    elif len(held) > 1 and not sealed.left:
        lines.append(f"{len(held) - 1} older KEKs are still in the file: --drop-old takes them out")
    return _say(session, told, lines, sealed)


async def _drop_old(session: Session, file: KekFile, told: dict[str, Any], lines: list[str], so_far: int) -> _Sealed:
    """Drop all but the newest KEK, once what was on its way is sealed anew; put them back if a key needs one."""
    await SystemClock().sleep(SETTLE_SECONDS)
    sealed = await _reseal(session, so_far)
    if sealed.left:
        return sealed
    dropped = file.drop_old(keep=sealed.kek)
    try:
        sealed = await _reseal(session, sealed.resealed)
    except CannotTell:
        file.restore(dropped)
        raise
    if sealed.left:
        file.restore(dropped)
        lines.append("a key still needs an older KEK: all are back in the file")
        return sealed
    told["dropped"] = [kek["id"] for kek in dropped]
    lines.append(f"dropped {len(dropped)} older KEKs; backups of file and store together can still open old keys")
    return sealed


def _say(session: Session, told: Mapping[str, Any], lines: list[str], sealed: _Sealed) -> ExitStatus:
    facts = {"kek": sealed.kek, "resealed": sealed.resealed, "left": sealed.left} | dict(told)
    if sealed.left:
        lines.append(f"NOT sealed anew, since no KEK opens them: {plain(sealed.left)}")
        lines.append("put the KEK that sealed them back into the file and repeat, or revoke these keys")
    session.printer.answer(facts, *lines)
    return ExitStatus.NO if sealed.left else ExitStatus.YES


async def _reseal(session: Session, so_far: int = 0) -> _Sealed:
    told = (await session.as_admin("POST", "/keys/reseal", json={}, accept=(_SEALED, _SOME_LEFT))).object()
    kek, count, left = told.get("kek"), told.get("resealed"), told.get("left")
    if not isinstance(kek, str) or not isinstance(count, int) or not isinstance(left, list):
        raise CannotTell("the issuer did not say what it sealed: is it of another version?")
    return _Sealed(kek, so_far + count, [str(kid) for kid in left])


def _require_same(file: KekFile, sealed: _Sealed, newest: str) -> None:
    """Raise CannotTell if the key service seals by another KEK than this file's newest."""
    if sealed.kek != newest:
        raise CannotTell(
            f"the key service seals by KEK {plain(sealed.kek)}, and {file.path} begins with {plain(newest)}: "
            "name the file that it reads, or copy this one to where it runs and use --reseal-only"
        )


def _kek_file(args: argparse.Namespace) -> KekFile | None:
    if args.file is not None:
        return KekFile(args.file)
    path = Settings.read(args.config).section(_KekPlace).kek_file
    if path is not None:
        return KekFile(path)
    if args.reseal_only and not args.drop_old:
        return None
    raise WrongUsage(
        "no KEK file: name it by --file, or the settings by --config; a KEK in Transit is rotated there "
        f"(then --reseal-only here); a file holds {MOST_KEKS} at most"
    )
