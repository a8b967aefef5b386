"""`keyturn revoke --bulk`: a list goes out in parts, and nothing is lost where one is cut off."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cli.conftest import FakeOrigin, Run
from tests.cli.test_commands import RECEIPT

ROUTE = "POST /revocations/bulk"
MOMENT = 1_800_000_000.25


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for nobody between attempts."""
    monkeypatch.setattr("keyturn.cli.bulk.PAUSE_SECONDS", 0.001)


class FakeService:
    """Settles what it is sent, as the service does; `cuts` breaks answers off, or refuses them, in turn."""

    def __init__(self, fake: FakeOrigin) -> None:
        self.fake = fake
        self.cuts: list[Callable[[int, list[bytes]], tuple[int, Any]] | None] = []
        self.settled: list[bytes] = []
        self.bad: set[int] = set()
        fake.act(ROUTE, self.answer)

    @property
    def queries(self) -> list[dict[str, list[str]]]:
        """Return how each list was asked for, the empty one left out."""
        asked = [one for one in self.fake.asked if one.target.startswith("/revocations/bulk")]
        return [parse_qs(urlsplit(one.target).query) for one in asked[1:]]

    def answer(self) -> tuple[int, Any]:
        """Answer the newest request."""
        asked = self.fake.asked[-1]
        query = parse_qs(urlsplit(asked.target).query)
        first, lines = int(query.get("from_line", ["1"])[0]), asked.body.splitlines()
        assert asked.headers["Content-Type"] == "application/x-ndjson"
        if lines and self.cuts and (cut := self.cuts.pop(0)) is not None:
            return cut(first, lines)
        told: list[dict[str, Any]] = [{"status": "begun", "line": first - 1, "accepted": 0, "before": MOMENT}]
        accepted = 0
        for number, line in enumerate(lines, start=first):
            if number in self.bad:
                bad = {"line": number, "reason": "names nothing"}
                if query.get("on_bad") != ["skip"]:
                    return self.lines(
                        [*told, {"status": "stopped", "line": number - 1, "accepted": accepted, "bad": bad}]
                    )
                told.append({"status": "skipped", "line": number, "accepted": accepted, "bad": bad})
                continue
            self.settled.append(line)
            accepted += 1
        receipt = RECEIPT | {"complete": True} if accepted else None
        end = {"status": "done", "line": first + len(lines) - 1, "accepted": accepted, "receipt": receipt}
        return self.lines([*told, end])

    def lines(self, told: list[dict[str, Any]]) -> tuple[int, Any]:
        """Return an answer of these lines."""
        return 200, b"".join(json.dumps(one).encode() + b"\n" for one in told)

    def half(self, first: int, lines: list[bytes]) -> tuple[int, Any]:
        """Settle half, tell of it, and break off."""
        half = len(lines) // 2
        self.settled += lines[:half]
        return self.lines([{"status": "progress", "line": first + half - 1, "accepted": half}])

    def away(self, _first: int, _lines: list[bytes]) -> tuple[int, Any]:
        """Be away."""
        return 503, {"title": "Service Unavailable"}


@pytest.fixture
def service(fake: FakeOrigin) -> FakeService:
    """Answer lists."""
    return FakeService(fake)


def a_list(folder: Path, count: int) -> tuple[Path, list[bytes]]:
    """Write a list of that many tokens."""
    lines = [json.dumps({"jti": f"t-{number}"}).encode() for number in range(count)]
    path = folder / "list.ndjson"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path, lines


async def test_a_list_goes_out_in_parts_under_one_moment(keyturn: Run, service: FakeService, tmp_path: Path) -> None:
    """Each line once and in order; the receipt is waited for with the last part only."""
    path, lines = a_list(tmp_path, 45_000)
    ran = await keyturn("revoke", "--bulk", str(path), "--wait", "all")
    assert (ran.status, service.settled == lines) == (0, True)
    assert [query["from_line"] for query in service.queries] == [["1"], ["20001"], ["40001"]]
    assert {query["before"][0] for query in service.queries} == {repr(MOMENT)}
    assert [query.get("wait") for query in service.queries] == [None, None, ["all"]]
    assert ran.out.splitlines()[0] == "revoked what 45,000 lines name"
    assert "2 of 2 live verifiers" in ran.out


async def test_what_is_cut_off_goes_on_behind_what_is_settled(
    keyturn: Run, service: FakeService, tmp_path: Path
) -> None:
    """A proxy's timeout, a restart, a moment without the store: nothing is lost, only what is unknown is repeated."""
    path, lines = a_list(tmp_path, 100)
    service.cuts = [service.half, service.away, service.half]
    ran = await keyturn("revoke", "--bulk", str(path), "--json")
    assert (ran.status, service.settled == lines) == (0, True)
    assert [query["from_line"] for query in service.queries] == [["1"], ["51"], ["51"], ["76"]]
    assert (ran.json["line"], ran.json["accepted"], ran.json["before"]) == (100, 100, MOMENT)


async def test_who_gets_no_further_says_how_to_go_on(keyturn: Run, service: FakeService, tmp_path: Path) -> None:
    """The operator goes on by hand, under the same moment."""
    path, _ = a_list(tmp_path, 100)
    service.cuts = [service.half, *([service.away] * 20)]
    ran = await keyturn("revoke", "--bulk", str(path))
    assert (ran.status, f"--from-line 51 --before {MOMENT}" in ran.err) == (3, True)
    service.cuts = []
    ran = await keyturn("revoke", "--bulk", str(path), "--from-line", "51", "--before", repr(MOMENT))
    assert (ran.status, ran.out.splitlines()[0], len(service.settled)) == (0, "revoked what 50 lines name", 100)


async def test_a_bad_line_stops_the_list_or_is_named_and_skipped(
    keyturn: Run, service: FakeService, tmp_path: Path
) -> None:
    """Neither looks like a success."""
    path, _ = a_list(tmp_path, 10)
    service.bad = {4}
    ran = await keyturn("revoke", "--bulk", str(path))
    assert (ran.status, len(service.settled)) == (1, 3)
    assert "line 4 is no selector: names nothing" in ran.out
    assert "--from-line 4 " in ran.out
    ran = await keyturn("revoke", "--bulk", str(path), "--skip-bad")
    assert (ran.status, ran.err) == (1, "line 4 skipped: names nothing\n")
    assert ran.out.splitlines()[0] == "revoked what 9 lines name; skipped 1"


async def test_an_empty_list_is_no_error(keyturn: Run, service: FakeService, tmp_path: Path) -> None:
    """A query that found nobody makes an empty file."""
    path, _ = a_list(tmp_path, 0)
    path.write_bytes(b"")
    ran = await keyturn("revoke", "--bulk", str(path))
    assert (ran.status, ran.out) == (0, "revoked what 0 lines name\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--bulk", "nowhere.ndjson"), "cannot be read"),
        (("--bulk", "x", "--sub", "alice"), "stands alone"),
        (("--bulk", "x", "--dry-run"), "stands alone"),
        (("--bulk", "x", "--from-line", "0"), "from 1 on"),
        (("--sub", "alice", "--skip-bad"), "--bulk"),
        (("--bulk", "x", "--timeout", "3"), "--wait"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    keyturn: Run, service: FakeService, arguments: tuple[str, ...], said: str
) -> None:
    """Before anything is revoked."""
    ran = await keyturn("revoke", *arguments)
    assert (ran.status, said in ran.err, service.settled) == (2, True, [])


async def test_a_file_that_is_no_list_at_all_is_not_sent(keyturn: Run, service: FakeService, tmp_path: Path) -> None:
    """A disk image has no line ends."""
    path = tmp_path / "image"
    path.write_bytes(bytes(200_000))
    ran = await keyturn("revoke", "--bulk", str(path))
    assert (ran.status, service.settled) == (2, [])
