"""`keyturn verifiers` and `keyturn status`: who verifies, what they hold, and whether all is well."""

import argparse
from typing import Any, NamedTuple

from keyturn.cli.answers import CannotTell, ExitStatus, WrongUsage
from keyturn.cli.arguments import common_options
from keyturn.cli.origin import origin
from keyturn.cli.session import Session, online
from keyturn.cli.tables import milliseconds, moment, plain, table
from keyturn.contract.keys import Use

_FRESH = "fresh"
_READY = 200


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `verifiers` and `status`."""
    verifiers = groups.add_parser("verifiers", parents=[common_options()], help="show the live verifiers")
    verifiers.set_defaults(run=online(_verifiers))
    status = groups.add_parser("status", parents=[common_options()], help="issuer, keys, verifiers and sidecars")
    status.set_defaults(run=online(_status))


async def _verifiers(args: argparse.Namespace, session: Session) -> ExitStatus:  # noqa: ARG001 - as every command
    told = (await session.as_admin("GET", "/verifiers", accept=(200,))).object()
    rows = [
        [one.get("id"), one.get("keys"), one.get("revocations"), one.get("state"), milliseconds(one.get("seen_ms"))]
        for one in _objects(told, "verifiers")
    ]
    session.printer.answer(told, *table(["VERIFIER", "KEYS", "REVOCATIONS", "STATE", "SEEN"], rows))
    return ExitStatus.YES


class _Part(NamedTuple):
    """One line of the status: is this part well (None: could not tell), and what there is to say of it."""

    name: str
    well: bool | None
    state: str
    detail: str

    @classmethod
    def untold(cls, name: str, error: Exception) -> "_Part":
        return cls(name, None, "unknown", str(error))


async def _status(args: argparse.Namespace, session: Session) -> ExitStatus:  # noqa: ARG001 - as every command
    parts = [await _issuer(session), await _keys(session), await _fleet(session)]
    parts += [await _sidecar(url) for url in session.environment.sidecars]
    facts = [{"part": part.name, "well": part.well, "state": part.state, "detail": part.detail} for part in parts]
    rows = [[part.name, part.state, part.detail] for part in parts]
    session.printer.answer({"parts": facts}, *table(["PART", "STATE", "DETAIL"], rows))
    if any(part.well is False for part in parts):
        return ExitStatus.NO
    return ExitStatus.UNTOLD if any(part.well is None for part in parts) else ExitStatus.YES


async def _issuer(session: Session) -> _Part:
    url = session.environment.issuer
    try:
        async with session.issuer() as issuer:
            answer = await issuer.ask("GET", "/readyz", accept=(_READY, 503))
    except CannotTell as error:
        return _Part.untold("issuer", error)
    if answer.status == _READY:
        return _Part("issuer", well=True, state="ready", detail=url)
    return _Part("issuer", well=False, state="not ready", detail=answer.problem)


async def _keys(session: Session) -> _Part:
    try:
        keys = _objects((await session.as_admin("GET", "/keys", accept=(200,))).object(), "keys")
    except (CannotTell, WrongUsage) as error:
        return _Part.untold("keys", error)
    active = [key for key in keys if key.get("phase") == "active"]
    idle = {_use(key) for key in keys} - {_use(key) for key in active}  # Uses of which nothing can be signed.
    signing = [f"{key.get('alg')} {plain(key.get('kid'))[:12]}" for key in active if _use(key) == Use.ACCESS]
    phases = [str(key.get("phase")) for key in keys]
    counts = ", ".join(f"{phases.count(phase)} {phase}" for phase in dict.fromkeys(phases))
    missing = f"none active for {', '.join(sorted(idle))}" if active and idle else ""
    return _Part("keys", well=bool(signing) and not idle, state=f"{len(active)} active" if active else "none active",
                 detail="; ".join(filter(None, (counts, ", ".join(signing), missing))))  # fmt: skip


def _use(key: dict[str, Any]) -> str:
    return plain(key.get("use") or Use.ACCESS.value)


async def _fleet(session: Session) -> _Part:
    try:
        verifiers = _objects((await session.as_admin("GET", "/verifiers", accept=(200,))).object(), "verifiers")
    except (CannotTell, WrongUsage) as error:
        return _Part.untold("verifiers", error)
    lagging = [plain(one.get("id")) for one in verifiers if one.get("state") != _FRESH]
    detail = f"not fresh: {', '.join(lagging)}" if lagging else "all fresh" if verifiers else "none has reported"
    return _Part("verifiers", well=not lagging, state=f"{len(verifiers)} live", detail=detail)


async def _sidecar(url: str) -> _Part:
    name = f"sidecar {url}"
    try:
        async with origin(url) as sidecar:
            told = (await sidecar.ask("GET", "/state", accept=(200, 503))).object()
    except (CannotTell, WrongUsage) as error:
        return _Part.untold(name, error)
    places = f"keys {plain(told.get('keys'))}, revocations {plain(told.get('revocations'))}"
    age = f", {milliseconds(told['staleness_ms'])} old" if told.get("staleness_ms") is not None else ""
    ends = f"; trust expires {moment(told.get('trust_expires_at'))}" if told.get("trust_expires_soon") else ""
    return _Part(name, well=told.get("state") == _FRESH, state=plain(told.get("state")), detail=places + age + ends)


def _objects(told: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [one for one in told.get(name) or [] if isinstance(one, dict)]
