"""`keyturn records rotate`: another pepper in front, and none leaves while a token needs it."""

import json
from pathlib import Path
from typing import Any

import pytest

from keyturn import entropy
from keyturn.cli.recordkeys import MOST_RECORD_KEYS
from keyturn.cli.tables import moment
from keyturn.clock import SystemClock
from keyturn.contract.encoding import b64url
from serving import records
from serving.records import RecordKeys
from tests.cli.conftest import Run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return settings that name a file of record keys, made an hour ago."""
    made = entropy.uuid7(SystemClock().now() - 3600)
    _write(tmp_path, [{"id": made, "seal": b64url(bytes(32)), "pepper": b64url(bytes(32))}])
    path = tmp_path / "keyturn.toml"
    path.write_text('[records]\nkey_file = "records.json"\n')
    return path


def _write(folder: Path, rows: list[dict[str, str]]) -> None:
    path = folder / "records.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(rows[0] if len(rows) == 1 else {"keys": rows}))


def _rows(config: Path) -> list[dict[str, Any]]:
    told = json.loads((config.parent / "records.json").read_text())
    return list(told.get("keys", [told]))


async def test_a_new_pepper_stands_in_front_and_the_old_one_is_kept(config: Path, run: Run) -> None:
    """The services read the file as the command has written it, and it stays private."""
    [before] = _rows(config)
    assert (await run("records", "rotate", "--config", str(config))).status == 0
    newest, older = _rows(config)
    assert older == before
    assert newest["seal"] == before["seal"]  # Rows of status lists are sealed under it, too.
    assert newest["pepper"] != before["pepper"]
    path = config.parent / "records.json"
    assert path.stat().st_mode & 0o777 == 0o600
    keys = RecordKeys.parse(path.read_bytes())
    assert [keys.id, keys.older[0].id] == [newest["id"], before["id"]]


async def test_no_pepper_leaves_while_a_token_lives_whose_record_it_hid(config: Path, run: Run) -> None:
    """`grants.life` after the newest was made, the last token of the older ones has run out; not before."""
    told = await run("records", "rotate", "--config", str(config), "--json")
    made = SystemClock().now()
    assert told.json["needed_until"] == pytest.approx(made + 30 * 86_400 + 2, abs=5)
    until = moment(told.json["needed_until"])
    refused = await run("records", "rotate", "--drop-old", "--config", str(config))
    assert (refused.status, until in refused.err) == (2, True)
    assert len(_rows(config)) == 2
    rows = _rows(config)
    for passed_seconds, status in ((400, 2), (30 * 86_400, 2), (30 * 86_400 + 60, 0)):
        rows[0]["id"] = entropy.uuid7(SystemClock().now() - passed_seconds)
        _write(config.parent, rows)
        dropped = await run("records", "rotate", "--drop-old", "--config", str(config))
        assert dropped.status == status, passed_seconds
    assert _rows(config) == rows[:1]
    assert (await run("records", "rotate", "--drop-old", "--config", str(config), "--json")).json[
        "needed_until"
    ] is None
    assert f"from {until[:10]}" in (await run("records", "rotate", "--config", str(config))).out


async def test_a_pepper_of_unknown_age_lets_no_other_leave(config: Path, run: Run) -> None:
    """Nothing says until when the older ones are needed."""
    rows = [{"id": name, "seal": b64url(bytes(32)), "pepper": b64url(bytes(32))} for name in ("newer", "older")]
    _write(config.parent, rows)
    refused = await run("records", "rotate", "--drop-old", "--config", str(config))
    assert (refused.status, "newer" in refused.err) == (2, True)
    assert _rows(config) == rows


async def test_there_are_never_more_peppers_than_the_services_look_under(config: Path, run: Run) -> None:
    """A limit on everything that grows; the command and the services have the same one."""
    assert MOST_RECORD_KEYS == records.MOST_RECORD_KEYS
    statuses = [(await run("records", "rotate", "--config", str(config))).status for _ in range(MOST_RECORD_KEYS)]
    assert statuses == [0] * (MOST_RECORD_KEYS - 1) + [2]
    assert len(_rows(config)) == MOST_RECORD_KEYS


@pytest.mark.parametrize("text", ["", "{", "[]", '{"keys": []}', '{"keys": [7]}', '{"id": "1"}'])
async def test_what_is_no_file_of_record_keys_is_left_alone(config: Path, run: Run, text: str) -> None:
    """A mistyped setting must not cost a KEK or a client's secret."""
    path = config.parent / "records.json"
    path.write_text(text)
    assert (await run("records", "rotate", "--config", str(config))).status == 2
    assert path.read_text() == text
