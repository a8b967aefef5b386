"""`keyturn kek rotate`: the file changes in one step, and no KEK goes while a key needs it."""

import json
from pathlib import Path
from typing import Any

import pytest

from keyturn.cli.kekfile import MOST_KEKS, KekFile
from keyturn.clock import SystemClock
from keyturn.contract.encoding import b64url
from tests.cli.conftest import FakeOrigin, Run

OLD = {"id": "old", "key": b64url(bytes(32))}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the file as `keyturn init` makes it."""
    path = tmp_path / "kek.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(OLD))
    return path


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyturn.cli.kek.SETTLE_SECONDS", 0.01)


def write(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write over the file, with this mode."""
    path.write_text(text)
    path.chmod(mode)


def content(path: Path) -> str:
    """Return what stands in the file."""
    return path.read_text()


def mode_of(path: Path) -> int:
    """Return who may read it."""
    return path.stat().st_mode & 0o777


def ids(path: Path) -> list[str]:
    """Return the ids in the file, the newest first."""
    return [kek["id"] for kek in KekFile(path).read()]


@pytest.fixture
def service(fake: FakeOrigin, file: Path) -> dict[str, Any]:
    """Answer as a key service that reads this file: `sealed_by` seals all keys, `left` do not open."""
    facts: dict[str, Any] = {"sealed_by": "old", "left": [], "needs": None, "calls": 0, "down_after": None}

    def reseal() -> tuple[int, Any]:
        facts["calls"] += 1
        if facts["down_after"] is not None and facts["calls"] > facts["down_after"]:
            return 500, {"title": "Internal Server Error"}
        held = ids(file)
        count = 0 if facts["sealed_by"] == held[0] else 3
        facts["sealed_by"] = held[0]
        left = facts["left"] or ([] if facts["needs"] in (None, *held) else ["kid-9"])
        return (409 if left else 200), {"kek": held[0], "resealed": count, "left": left}

    fake.act("POST /keys/reseal", reseal)
    return facts


async def test_a_new_kek_stands_in_front_and_the_old_one_stays_until_it_is_dropped(
    keyturn: Run, file: Path, service: dict[str, Any]
) -> None:
    """Nothing is lost by rotating; dropping is a step of its own."""
    ran = await keyturn("kek", "rotate", "--file", str(file))
    assert ran.status == 0
    assert "sealed 3 keys" in ran.out
    assert "1 older KEKs are still in the file" in ran.out
    (new, old) = ids(file)
    assert (old, service["sealed_by"]) == ("old", new)
    assert mode_of(file) == 0o600
    ran = await keyturn("kek", "rotate", "--file", str(file), "--reseal-only", "--drop-old", "--json")
    assert ran.json == {"kek": new, "resealed": 0, "left": [], "dropped": ["old"]}
    assert ids(file) == [new]
    assert OLD["key"] not in ran.out + content(file)


async def test_a_rotation_that_was_cut_off_is_gone_on_with(keyturn: Run, file: Path, service: dict[str, Any]) -> None:
    """After a crash between the file and the sealing: the same command finishes, and adds no second KEK."""
    service["down_after"] = 1
    ran = await keyturn("kek", "rotate", "--file", str(file))
    assert (ran.status, len(ids(file))) == (3, 2)
    service["down_after"] = None
    ran = await keyturn("kek", "rotate", "--file", str(file))
    assert (ran.status, len(ids(file))) == (0, 2)
    assert "going on with it" in ran.out
    assert service["sealed_by"] == ids(file)[0]


async def test_a_key_that_does_not_open_keeps_every_kek(keyturn: Run, file: Path, service: dict[str, Any]) -> None:
    """Dropping the KEK would make the key unreadable for ever."""
    await keyturn("kek", "rotate", "--file", str(file))
    service["left"] = ["kid-7"]
    ran = await keyturn("kek", "rotate", "--file", str(file), "--reseal-only", "--drop-old")
    assert (ran.status, len(ids(file))) == (1, 2)
    assert "kid-7" in ran.out
    assert "put the KEK that sealed them back" in ran.out


async def test_dropped_keks_come_back_if_a_key_needs_one_after_all(
    keyturn: Run, file: Path, service: dict[str, Any]
) -> None:
    """A key that another process sealed at the last moment."""
    service["needs"] = "old"
    ran = await keyturn("kek", "rotate", "--file", str(file), "--drop-old")
    assert (ran.status, ids(file)[1:]) == (1, ["old"])
    assert "all are back in the file" in ran.out
    service["down_after"] = service["calls"] + 2
    ran = await keyturn("kek", "rotate", "--file", str(file), "--reseal-only", "--drop-old")
    assert (ran.status, ids(file)[1:]) == (3, ["old"]), "dropped without a word from the key service"


async def test_a_file_that_the_key_service_does_not_read_is_left_alone(
    keyturn: Run, fake: FakeOrigin, file: Path
) -> None:
    """Else the operator believes to have rotated."""
    fake.answer("POST /keys/reseal", 200, {"kek": "other", "resealed": 0, "left": []})
    ran = await keyturn("kek", "rotate", "--file", str(file))
    assert (ran.status, ids(file)) == (3, ["old"])
    assert "seals by KEK other" in ran.err


async def test_without_an_issuer_the_file_stays_as_it_is(keyturn: Run, file: Path, monkeypatch: Any) -> None:
    """A KEK that nobody seals by is a trap for the next operator."""
    monkeypatch.setenv("KEYTURN_ISSUER", "http://127.0.0.1:1")
    assert (await keyturn("kek", "rotate", "--file", str(file))).status == 3
    assert ids(file) == ["old"]


async def test_the_file_is_found_by_the_configuration(
    keyturn: Run, file: Path, service: dict[str, Any], tmp_path: Path
) -> None:
    """Relative to it, as the key service does; with Transit there is none, and only sealing is ours."""
    (tmp_path / "k.toml").write_text('[keyservice]\nlisten = "x"\nkek_file = "kek.json"')
    assert (await keyturn("kek", "rotate", "--config", str(tmp_path / "k.toml"))).status == 0
    assert len(ids(file)) == 2
    (tmp_path / "t.toml").write_text('[transit]\nurl = "https://vault.example"')
    ran = await keyturn("kek", "rotate", "--config", str(tmp_path / "t.toml"))
    assert (ran.status, "rotated there" in ran.err) == (2, True)
    ran = await keyturn("kek", "rotate", "--config", str(tmp_path / "t.toml"), "--reseal-only")
    assert (ran.status, "sealed 0 keys" in ran.out) == (0, True)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keys": []}', '{"id": "a", "key": "AAAA"}', "not json"])
async def test_what_is_no_kek_file_is_refused(keyturn: Run, file: Path, service: Any, text: str) -> None:
    """One line, and nothing is written over."""
    write(file, text)
    ran = await keyturn("kek", "rotate", "--file", str(file))
    assert (ran.status, ran.err.count("\n"), content(file)) == (2, 1, text)


async def test_a_file_that_is_open_to_others_or_full_is_refused(keyturn: Run, file: Path, service: Any) -> None:
    """Mode 600, and 16 KEKs at most, as the key service reads it."""
    write(file, content(file), mode=0o644)
    ran = await keyturn("kek", "rotate", "--file", str(file))
    assert (ran.status, "chmod 600" in ran.err) == (2, True)
    write(file, json.dumps({"keys": [OLD | {"id": str(number)} for number in range(MOST_KEKS)]}))
    service["sealed_by"] = "0"
    ran = await keyturn("kek", "rotate", "--file", str(file))
    assert (ran.status, "as many as it may" in ran.err) == (2, True)


def test_two_commands_at_once_lose_no_kek(file: Path) -> None:
    """Whoever dropped knows which one he kept; another that came in front is not his to drop."""
    one = KekFile(file)
    first = one.add(SystemClock().now())[0]["id"]
    second = one.add(SystemClock().now())[0]["id"]
    with pytest.raises(Exception, match="somebody has put another KEK"):
        one.drop_old(keep=first)
    assert ids(file) == [second, first, "old"]
    one.restore([OLD])
    assert ids(file) == [second, first, "old"]
    assert [path.name for path in file.parent.iterdir() if "new" in path.name] == []
