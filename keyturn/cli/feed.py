"""`keyturn feed tail` and `keyturn feed verify`: what the lanes say, held against the root that is pinned here."""

import argparse
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from keyturn.cli.answers import CannotTell, ExitStatus, OutcomeUnknown, WrongUsage
from keyturn.cli.arguments import common_options
from keyturn.cli.dumps import Dump, Finding
from keyturn.cli.environment import Role
from keyturn.cli.origin import Origin, bearer, get_token
from keyturn.cli.session import ADMIN_SCOPE, Session, online
from keyturn.cli.tables import facts_table, moment, plain
from keyturn.cli.telling import words_of
from keyturn.clock import Clock, SystemClock
from keyturn.contract.errors import MalformedInput, TrustError, UnknownKind
from keyturn.contract.events import SignedEvent
from keyturn.contract.positions import Lane
from keyturn.contract.trust import Trust, open_trust
from keyturn.feed.audit import Audit, Stretch, Taken
from keyturn.feed.lines import Line, claims_of, parse_line
from keyturn.process.pinned import read_root

POLL_SECONDS = 1.0
_TOKEN_SECONDS = 60.0  # Less than any token lives.
_LONGEST_SHOWN = 200
_LARGEST_TRUST_BYTES = 8 * 1024 * 1024
_ROOT, _TRUST = "KEYTURN_ROOT", "trust.jws"


def add_commands(groups: "argparse._SubParsersAction[Any]") -> None:
    """Add `feed tail` and `feed verify`."""
    commands = groups.add_parser("feed", help="the signed feed: tail, verify").add_subparsers(required=True)
    tail = commands.add_parser("tail", parents=[common_options()], help="show the events of the feed, each verified")
    tail.add_argument("lane", nargs="?", type=_lane, metavar="LANE", help="keys or revocations (default: both)")
    tail.add_argument("--after", type=_sequence, metavar="SEQ", help="begin after this sequence of LANE")
    tail.add_argument("--follow", action="store_true", help="go on as events come, until interrupted")
    _add_trust(tail)
    tail.set_defaults(run=online(_tail))
    verify = commands.add_parser(
        "verify", parents=[common_options()], help="check a dump or archive of the feed, without any server"
    )
    verify.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="dumps, archived segments, genesis/LANE.jws"
    )
    _add_trust(verify)
    verify.set_defaults(run=online(_verify))


def _add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, metavar="FILE", help=f"the root to pin (default: what {_ROOT} names)")
    parser.add_argument(
        "--trust", type=Path, action="append", metavar="FILE",
        help="a trust document, signed by that root; older ones may be given beside the newest",
    )  # fmt: skip


async def _verify(args: argparse.Namespace, session: Session) -> ExitStatus:
    root = _root_file(args, session)
    files = args.trust or [root.with_name(_TRUST)]
    audit = Audit([_open_trust(_read(file), root) for file in files])
    dump = Dump(audit)
    dump.read(args.files)
    dump.finish()
    facts = {"holds": dump.holds, "trust": _trust_facts(audit.newest), "lanes": _lane_facts(dump)}
    session.printer.answer(facts | {"break": _break_facts(dump.first)}, *_report(dump))
    if dump.first is not None:
        return ExitStatus.NO if dump.first.readable else ExitStatus.UNTOLD
    return ExitStatus.YES if dump.holds else ExitStatus.UNTOLD


def _report(dump: Dump) -> list[str]:
    audit, lines = dump.audit, list[str]()
    for lane, found in audit.lanes.items():
        for one in found.stretches:
            begins = {"event": "on the word of its first event", "snapshot": "from a snapshot"}.get(
                one.begins_with, "from the genesis"
            )
            lines.append(
                f"{lane.value.ljust(11)}  {one.epoch}:{one.first} to {one.epoch}:{one.last} holds {begins}: "
                f"{one.events} events, the last of {moment(one.newest_at)}"
            )
            if audit.dropped(lane, one.epoch):
                lines.append(f"{'':11}  the root has dropped epoch {one.epoch}: nothing in it counts any more")
            if retired := audit.retired(lane, list(one.signers)):
                lines.append(f"{'':11}  signed by keys that have this role no more: {plain(retired)}")
        if not found.stretches:
            lines.append(f"{lane.value.ljust(11)}  nothing that holds")
    lines += [f"BREAK        {finding}" for finding in dump.findings]
    return [*lines, "", *facts_table(_trust_facts(audit.newest))]


def _lane_facts(dump: Dump) -> dict[str, Any]:
    audit = dump.audit
    return {
        lane.value: [_stretch_facts(audit, lane, one) for one in found.stretches] for lane, found in audit.lanes.items()
    }


def _stretch_facts(audit: Audit, lane: Lane, one: Stretch) -> dict[str, Any]:
    return {
        "epoch": one.epoch, "first": one.first, "last": one.last, "begins_with": one.begins_with,
        "events": one.events, "newest_at": one.newest_at, "signers": dict(one.signers),
        "retired_signers": audit.retired(lane, list(one.signers)), "dropped": audit.dropped(lane, one.epoch),
    }  # fmt: skip


def _break_facts(first: Finding | None) -> dict[str, Any] | None:
    return None if first is None else first.facts()


def _trust_facts(trust: Trust) -> dict[str, Any]:
    document = trust.document
    return {
        "trust version": document.version, "issuer": document.issuer, "expires": moment(document.expires_at),
        "dev": document.dev,
    }  # fmt: skip


async def _tail(args: argparse.Namespace, session: Session) -> ExitStatus:
    if args.after is not None and args.lane is None:
        raise WrongUsage("--after is a sequence of one lane: name it, keys or revocations")
    root, clock = _root_file(args, session), SystemClock()
    async with session.issuer() as issuer:
        asking = _Asking(issuer, session, clock)
        documents = [_read(file) for file in args.trust] if args.trust else [await asking.trust()]
        audit = Audit([_open_trust(document, root) for document in documents])

        async def newer() -> None:
            if not args.trust:
                audit.learn(_open_trust(await asking.trust(), root))

        tails = [
            _Tail(lane, audit, session, after=args.after or 0) for lane in ([args.lane] if args.lane else list(Lane))
        ]
        while True:
            try:
                for tail in tails:
                    await asking.read(tail, newer)
            except OutcomeUnknown as error:
                if not args.follow:
                    raise
                session.printer.aside(f"keyturn: {error}")
            if not args.follow:
                return _worst([tail.status for tail in tails])
            await clock.sleep(POLL_SECONDS)


class _Tail:
    """One lane as it is shown: where it is, and whether all of it held."""

    def __init__(self, lane: Lane, audit: Audit, session: Session, *, after: int) -> None:
        self.lane, self.after, self.status = lane, after, ExitStatus.YES
        self.epoch: int | None = None
        self._audit, self._session = audit, session

    def enter(self, epoch: int) -> None:
        """Go to the running epoch, once all of the one before has been shown."""
        if self.epoch is not None and epoch > self.epoch:
            self.after = 0
        self.epoch = max(epoch, self.epoch or 0)

    def names_newer_trust(self, raw: bytes) -> bool:
        """Say whether a line's signer knew a newer trust document than we do."""
        try:
            return claims_of(parse_line(raw).compact).trust > self._audit.newest.version
        except MalformedInput:
            return False

    def show(self, raw: bytes) -> None:
        """Show a line: what happened, or what is wrong with it."""
        try:
            line = parse_line(raw)
        except MalformedInput as error:
            self._call_out({"line": plain(raw.decode("utf-8", "replace"))[:_LONGEST_SHOWN]}, self.lane.value, error)
            return
        facts = {
            "lane": line.lane, "epoch": line.epoch, "sequence": line.sequence,
            "event": line.compact.decode("utf-8", "backslashreplace"),
        }  # fmt: skip
        place = f"{line.lane.value} {line.epoch}:{line.sequence}"
        before, self.after = self.after, max(self.after, line.sequence)
        try:
            taken = self._take(line)
        except (TrustError, MalformedInput) as error:
            self._audit.lanes[self.lane].stand_anew()
            self._call_out(facts, place, error)
            return
        if before + 1 < line.sequence and self.status is ExitStatus.YES:
            self._session.printer.aside(
                f"{self.lane}: what came after {before} and before {line.sequence} is not in the stream any more"
            )
        self._tell(facts, place, taken)

    def _take(self, line: Line) -> Taken:
        if line.lane is not self.lane:
            raise MalformedInput(f"a line of lane {line.lane} among those of {self.lane}")
        return self._audit.take(line)

    def _tell(self, facts: dict[str, Any], place: str, taken: Taken) -> None:
        if not isinstance(taken.signed, SignedEvent):
            return  # The route sends events alone.
        event = taken.signed.event
        words = words_of(event)
        facts |= {"holds": True, "at": event.at, "signer": taken.signer, "what": words}
        self._session.printer.answer(
            facts, f"{place}  {moment(event.at)}  {'; '.join(words)}  (signed by {taken.signer[:12]})"
        )

    def _call_out(self, facts: dict[str, Any], place: str, error: TrustError | MalformedInput) -> None:
        unreadable = isinstance(error, UnknownKind)
        if self.status is not ExitStatus.NO:
            self.status = ExitStatus.UNTOLD if unreadable else ExitStatus.NO
        word = "UNREADABLE" if unreadable else "DOES NOT HOLD"
        self._session.printer.answer(
            facts | {"holds": False, "code": error.code, "reason": str(error)},
            f"{place}  {word}: {error.code}: {plain(str(error))}",
        )


class _Asking:
    """The issuer's feed, asked with an admin token that is fetched anew before it runs out."""

    def __init__(self, issuer: Origin, session: Session, clock: Clock) -> None:
        self._issuer, self._clock = issuer, clock
        self._credentials = session.environment.credentials(Role.ADMIN)
        self._token, self._good_until = "", float("-inf")

    async def trust(self) -> bytes:
        """Return the trust document that the store holds."""
        answer = await self._issuer.ask("GET", "/feed/trust", authorization=await self._authorization(), accept=(200,))
        trust = answer.object().get("trust")
        if not isinstance(trust, str):
            raise CannotTell("the issuer gave no trust document: is it of another version?")
        return trust.encode("utf-8", "backslashreplace")

    async def read(self, tail: _Tail, newer_trust: Callable[[], Awaitable[None]]) -> None:
        """Show what has come since; a new epoch is read the next time."""
        query = {"after": str(tail.after)} | ({} if tail.epoch is None else {"epoch": str(tail.epoch)})
        asked = False
        async with self._issuer.lines(f"/feed/{tail.lane}", query=query, authorization=await self._authorization()) as (
            headers,
            lines,
        ):
            async for line in lines:
                if not asked and tail.names_newer_trust(line):
                    asked = True
                    await newer_trust()
                tail.show(line)
        running = headers.get("Keyturn-Epoch", "")
        if running.isascii() and running.isdigit():
            tail.enter(int(running))

    async def _authorization(self) -> str:
        if self._clock.boottime() >= self._good_until:
            told = await get_token(self._issuer, self._credentials, scope=ADMIN_SCOPE)
            self._token, self._good_until = told["access_token"], self._clock.boottime() + _TOKEN_SECONDS
        return bearer(self._token)


def _worst(statuses: list[ExitStatus]) -> ExitStatus:
    """Return NO if any lane broke, else UNTOLD if any could not be read."""
    return next((one for one in (ExitStatus.NO, ExitStatus.UNTOLD) if one in statuses), ExitStatus.YES)


def _root_file(args: argparse.Namespace, session: Session) -> Path:
    if args.root is not None:
        return Path(args.root)
    named = session.environment.get(_ROOT)
    if named is None:
        raise WrongUsage(f"no root to hold it against: name the root.jwk by --root, or set {_ROOT}")
    return Path(named)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            raw = opened.read(_LARGEST_TRUST_BYTES + 1)
    except OSError as error:
        raise WrongUsage(f"{file} cannot be read: {error.strerror}; name a trust document by --trust") from error
    if len(raw) > _LARGEST_TRUST_BYTES:
        raise WrongUsage(f"{file} is larger than {_LARGEST_TRUST_BYTES} bytes")
    return raw.strip()


def _open_trust(compact: bytes, root: Path) -> Trust:
    try:
        return open_trust(compact, root=read_root(root), allow_dev=True)
    except TrustError as error:
        raise CannotTell(f"no trust document to judge by: {error}") from error


def _lane(text: str) -> Lane:
    try:
        return Lane(text)
    except ValueError:
        raise argparse.ArgumentTypeError("is keys or revocations") from None


def _sequence(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:  # noqa: PLR2004 - digits of a 63-bit number
        raise argparse.ArgumentTypeError("is a sequence: 0 or more")
    return int(text)
