"""`keyturn revoke --bulk`: sends a long list of selectors in parts, and goes on by itself where one was cut off."""

import argparse
import sys
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec

from keyturn.cli.answers import CannotTell, ExitStatus, OutcomeUnknown, WrongUsage
from keyturn.cli.arguments import waiting_query
from keyturn.cli.environment import Role
from keyturn.cli.origin import bearer, get_token
from keyturn.cli.receipts import receipt_facts
from keyturn.cli.session import Session
from keyturn.cli.tables import facts_table, plain
from keyturn.clock import SystemClock
from keyturn.contract.trust import ADMIN_SCOPE

MOST_LINES, LARGEST_PART_BYTES = 20_000, 768 * 1024  # Of one request: a second or so, and below what proxies take.
LONGEST_LINE_BYTES = 64 * 1024  # The service refuses them long before.
ATTEMPTS = 5  # In a row that settle no line.
PAUSE_SECONDS = 1.0
_PATH = "/revocations/bulk"
_ELSEWHERE = ("token", "token_file", "jti", "grant_id", "sid", "sub", "client_id", "aud", "reason", "dry_run",
              "idempotency_key")  # fmt: skip


class _Part(NamedTuple):
    first: int
    lines: list[bytes]


class _BadLine(Exception):
    """A line that is no selector has stopped the list."""


def add_bulk(revoke: argparse.ArgumentParser) -> None:
    """Take a list in place of one selector."""
    lists = revoke.add_argument_group("lists (as administrator)")
    lists.add_argument(
        "--bulk", metavar="FILE",
        help="revoke what each line selects, as JSON (-: standard input); --before is for cutoffs that name no moment",
    )  # fmt: skip
    lists.add_argument("--from-line", type=_line_number, metavar="N", help="go on with line N (default: the first)")
    lists.add_argument("--skip-bad", action="store_true", help="name lines that are no selectors, and go on")


async def revoke_list(args: argparse.Namespace, session: Session) -> ExitStatus:
    """Revoke what a list names; NO where lines were skipped or stopped it, or verifiers that were waited for lag."""
    if any(getattr(args, name) for name in _ELSEWHERE):
        raise WrongUsage("--bulk stands alone: with --before, --from-line, --skip-bad, --wait and --timeout at most")
    sending, waiting = _Sending(session, args), waiting_query(args)
    with _opened(args.bulk) as source:
        await sending.begin()
        try:
            for part, is_last in _marked(_parts(source, args.from_line or 1)):
                await sending.send(part, waiting if is_last else {})
        except _BadLine as bad:
            sending.clear()
            found = bad.args[0]
            session.printer.answer(
                sending.facts() | {"stopped": found},
                f"line {plain(found.get('line'))} is no selector: {plain(found.get('reason'))}",
                f"all lines before it are revoked; mend it, and go on with {sending.go_on()}",
            )
            return ExitStatus.NO
    sending.clear()
    return sending.finish(waited=bool(waiting))


class _Sending:
    """What has become of a list so far."""

    def __init__(self, session: Session, args: argparse.Namespace) -> None:
        self._session, self._skip_bad = session, args.skip_bad
        self._before: float | None = args.before
        self._line, self._accepted = (args.from_line or 1) - 1, 0
        self._skipped: list[dict[str, Any]] = []
        self._receipt: dict[str, Any] | None = None
        self._shows = sys.stderr.isatty() and not session.printer.as_json

    async def begin(self) -> None:
        """Ask the service for the moment of the list: whatever is sent again later must not end what comes after it."""
        if self._before is None:
            async with aclosing(self._told(b"", {})) as answer:
                async for told in answer:
                    self._before = told.get("before", self._before)
        if not isinstance(self._before, float | int):
            raise CannotTell("the service does not say at which moment the list begins; is this a Keyturn?")

    async def send(self, part: _Part, waiting: dict[str, str]) -> None:
        """Send a part until all of it is settled; raises _BadLine, or OutcomeUnknown where it gets no further."""
        attempts, reason = ATTEMPTS, ""
        while attempts:
            settled, accepted, last = self._line, 0, ""
            behind = max(0, self._line - part.first + 1)
            query = {"from_line": str(part.first + behind), "before": repr(self._before), **waiting}
            try:
                async with aclosing(self._told(b"".join(part.lines[behind:]), query)) as answer:
                    async for told in answer:
                        accepted, last = int(told.get("accepted") or 0), str(told.get("status"))
                        self._take(told)
                reason = "it ended before its last line"
            except OutcomeUnknown as error:
                reason = str(error)
            finally:
                self._accepted += accepted
            if last == "done":
                return
            attempts = ATTEMPTS if self._line > settled else attempts - 1
            if attempts:
                await SystemClock().sleep(PAUSE_SECONDS)
        raise OutcomeUnknown(f"{reason}; all up to line {self._line} is revoked: go on with {self.go_on()}")

    def go_on(self) -> str:
        """Return the arguments that go on behind what is settled."""
        return f"--from-line {self._line + 1} --before {self._before!r}"

    def facts(self) -> dict[str, Any]:
        """Return what has become of it, for programs."""
        facts = {"line": self._line, "accepted": self._accepted, "skipped": self._skipped, "before": self._before}
        return facts | {"receipt": self._receipt}

    def finish(self, *, waited: bool) -> ExitStatus:
        """Print how it ended."""
        receipt = self._receipt or {}
        done = f"revoked what {self._accepted:,} lines name" + (
            f"; skipped {len(self._skipped)}" if self._skipped else ""
        )
        self._session.printer.answer(
            self.facts(), done, *(facts_table(receipt_facts(receipt, waited=waited)) if receipt else ())
        )
        complete = not waited or receipt.get("complete", True)
        return ExitStatus.YES if complete and not self._skipped else ExitStatus.NO

    def clear(self) -> None:
        """Take the progress off the terminal."""
        if self._shows:
            sys.stderr.write("\r\x1b[K")

    async def _told(self, sent: bytes, query: dict[str, str]) -> AsyncGenerator[dict[str, Any], None]:
        credentials = self._session.environment.credentials(Role.ADMIN)
        query = query | ({"on_bad": "skip"} if self._skip_bad else {})
        async with self._session.issuer() as issuer:
            token = (await get_token(issuer, credentials, scope=ADMIN_SCOPE))["access_token"]
            async with issuer.lines(_PATH, query=query, authorization=bearer(token), sent=sent) as (_, lines):
                async for line in lines:
                    try:
                        yield msgspec.json.decode(line, type=dict[str, Any])
                    except msgspec.DecodeError as error:
                        raise OutcomeUnknown("an answer that is not a line of JSON") from error

    def _take(self, told: dict[str, Any]) -> None:
        self._line = max(self._line, int(told.get("line") or 0))
        self._receipt = told.get("receipt") or self._receipt
        bad = told.get("bad")
        if isinstance(bad, dict) and told.get("status") == "stopped":
            raise _BadLine(bad)
        if isinstance(bad, dict):
            self._skipped.append(bad)
            self.clear()
            self._session.printer.aside(f"line {plain(bad.get('line'))} skipped: {plain(bad.get('reason'))}")
        if self._shows:
            sys.stderr.write(f"\rline {self._line:,} is durable, and all before it\x1b[K")
            sys.stderr.flush()


def _parts(source: Iterable[bytes], first: int) -> Iterator[_Part]:
    """Yield the lines from a number on, in parts."""
    part, size = _Part(first, []), 0
    for number, line in enumerate(source, start=1):
        if number < first:
            continue
        if part.lines and (len(part.lines) == MOST_LINES or size + len(line) > LARGEST_PART_BYTES):
            yield part
            part, size = _Part(number, []), 0
        if len(line) > LONGEST_LINE_BYTES:
            raise WrongUsage(f"line {number} has more than {LONGEST_LINE_BYTES} bytes; is this a list of selectors?")
        part.lines.append(line)
        size += len(line)
    yield part


def _marked(parts: Iterator[_Part]) -> Iterator[tuple[_Part, bool]]:
    """Yield each part, and whether it is the last."""
    held = next(parts)
    for part in parts:
        yield held, False
        held = part
    yield held, True


def _lines(source: IO[bytes]) -> Iterator[bytes]:
    while line := source.readline(LONGEST_LINE_BYTES + 1):
        yield line


@contextmanager
def _opened(name: str) -> Iterator[Iterator[bytes]]:
    if name == "-":
        yield _lines(sys.stdin.buffer)
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - it is closed below; what it raises is told first
    except OSError as error:
        raise WrongUsage(f"{name} cannot be read: {error.strerror}") from error
    with file:
        yield _lines(file)


def _line_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:10]) > 0):
        raise argparse.ArgumentTypeError("is the number of a line, from 1 on")
    return int(text)
