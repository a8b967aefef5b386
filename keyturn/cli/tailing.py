"""What `keyturn feed tail` shows: every event in words, held against the pinned root as it comes."""

import argparse
from collections.abc import Awaitable, Callable
from typing import Any

from keyturn.cli.answers import CannotTell, ExitStatus, OutcomeUnknown, WrongUsage
from keyturn.cli.environment import Role
from keyturn.cli.origin import Origin, bearer, get_token
from keyturn.cli.pinning import older_documents, open_document, read_document, root_file
from keyturn.cli.session import Session
from keyturn.cli.tables import moment, plain
from keyturn.cli.telling import words_of
from keyturn.clock import Clock, SystemClock
from keyturn.contract.errors import MalformedInput, TrustError, UnknownKind
from keyturn.contract.events import SignedEvent
from keyturn.contract.positions import Lane
from keyturn.contract.trust import ADMIN_SCOPE
from keyturn.feed.audit import Audit, Taken
from keyturn.feed.lines import Line, claims_of, parse_line

POLL_SECONDS = 1.0
_TOKEN_SECONDS = 60.0  # Less than any token lives.
_LONGEST_SHOWN = 200


async def tail(args: argparse.Namespace, session: Session) -> ExitStatus:
    """Show the lanes: NO where a line does not hold, UNTOLD where one cannot be read."""
    if (args.after, args.epoch) != (None, None) and args.lane is None:
        raise WrongUsage("--after and --epoch are of one lane: name it, keys or revocations")
    if args.epoch is not None and args.follow:
        raise WrongUsage("--follow goes with the running epoch: leave --epoch out")
    root, clock = root_file(args, session), SystemClock()
    async with session.issuer() as issuer:
        asking = _Asking(issuer, session, clock)
        documents = [read_document(file) for file in args.trust] if args.trust else [await asking.trust()]
        older = [] if args.trust else older_documents(root)
        audit = Audit([*older, *(open_document(document, root) for document in documents)])

        async def newer() -> None:
            if not args.trust:
                audit.learn(open_document(await asking.trust(), root))

        tails = [
            _Tail(lane, audit, session, epoch=args.epoch, after=args.after or 0)
            for lane in ([args.lane] if args.lane else list(Lane))
        ]
        while True:
            try:
                for one in tails:
                    await asking.read(one, newer)
            except OutcomeUnknown as error:
                if not args.follow:
                    raise
                session.printer.aside(f"keyturn: {error}")
            if not args.follow:
                return _worst([one.status for one in tails])
            await clock.sleep(POLL_SECONDS)


class _Tail:
    """One lane as it is shown: where it is, and whether all of it held."""

    def __init__(self, lane: Lane, audit: Audit, session: Session, *, epoch: int | None, after: int) -> None:
        self.lane, self.epoch, self.after, self.status = lane, epoch, after, ExitStatus.YES
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
        retired = bool(self._audit.retired(self.lane, [taken.signer]))
        facts |= {"holds": True, "at": event.at, "signer": taken.signer, "retired_signer": retired, "what": words}
        signer = taken.signer[:12] + (", which has this role no more" if retired else "")
        self._session.printer.answer(facts, f"{place}  {moment(event.at)}  {'; '.join(words)}  (signed by {signer})")

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
