"""`keyturn lint`: each broken inequality by its numbers, and the next rotations at a glance."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keyturn.cli.bars import duration
from tests.cli.conftest import FakeOrigin, Run

ROOT = Path(__file__).parents[2]
AT = "2026-12-01T00:00:00Z"
AT_SECONDS = 1_796_083_200.0
DAILY = """
[rotation]
active = "7d"
standbys = 1
[freshness]
expired = "15m"
"""
GOLDEN = """\
ES256: signs 7d; a new key waits 20m4s, a retired one stays STAYS
KEY  PUBLISH       MAY ACTIVATE  ACTIVE        RETIRES       REMOVED
+1   01 Dec 00:00  01 Dec 00:00  01 Dec 00:00  08 Dec 00:00  08 Dec 00:05
+2   01 Dec 00:00  01 Dec 00:20  08 Dec 00:00  15 Dec 00:00  15 Dec 00:05
+3   08 Dec 00:00  08 Dec 00:20  15 Dec 00:00  -             -
+4   15 Dec 00:00  15 Dec 00:20  -             -             -

         01 Dec 00:00                 08 Dec 00:02                  15 Dec 00:05
+1       ###################################%
+2       .----------------------------------###################################%
+3                                          .----------------------------------#
+4                                                                             .

. published, may not sign yet   - may sign   # active   % retiring
"""


def configured(tmp_path: Path, text: str) -> str:
    """Write a configuration; return its path."""
    path = tmp_path / "k.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "rule", "named"),
    [
        ('[revocation]\nleeway = "11s"\nlisten = "x"', "-", "leeway 11 s < request 10 s + skew 2 s = 12 s"),
        ('[freshness]\nskew = "51s"\n[rotation]\nlease = "1m"', "-", "leeway 60 s < request 10 s + skew 51 s = 61 s"),
        ('[rotation]\ndistribution = "10s"', 1, "distribution 10 s < expired 900 s + skew 2 s = 902 s"),
        ('[rotation]\nbarrier = "reports"', 1, "barrier reports with cache 300 s is not 0 s"),
        ('[rotation]\nactive = "20m"', 1, "active 1200 s (ES256) <= distribution 902 s + cache 300 s"),
        ('[rotation]\nactive_of = ["ES256=1s"]', 1, "active 1 s (ES256) <= distribution"),
        ('[rotation]\ntoken = "1m"', 2, "access_token 300 s > token 60 s"),
        ('[authorization]\naccess_token = "1h"\nlisten = "x"', 2, "access_token 3600 s > token 300 s"),
        ('[grants]\nlife = "1d"', "-", "refresh_token 604800 s > grants.life 86400 s"),
        ('[grants]\nlife = "1d"\n[authorization]\nrefresh_token = "86401s"', "-", "86401 s > grants.life 86400 s"),
        (
            '[grants]\nlife = "10m"\n[authorization]\nrefresh_token = "10m"\naccess_token = "11m"\n'
            '[rotation]\ntoken = "11m"',
            "-",
            "access_token 660 s > grants.life 600 s",
        ),
        ("[rotation]\ntoken = 0", 2, "token 0 s <= 0 s"),
        ('[rotation]\nlease = "1s"', 3, "lease 1 s <= skew 2 s"),
        ("[rotation]\nalgorithms = []", 6, "algorithms 0 < 1"),
        ('[rotation]\nactive_of = ["EdDSA=1d"]', 6, "active_of EdDSA is not one of the algorithms"),
    ],
)
async def test_a_broken_inequality_is_named_with_its_numbers(
    run: Run, tmp_path: Path, text: str, rule: int | str, named: str
) -> None:
    """Before a process refuses to start, and with the mend."""
    ran = await run("lint", "--offline", "--config", configured(tmp_path, text))
    assert ran.status == 1
    (line,) = [line for line in ran.out.splitlines() if named in line]
    assert line.split()[:2] == [str(rule), "NO"]
    assert "; " in line, "no mend"
    assert "no timeline" in ran.out


async def test_all_broken_ones_are_told_not_only_the_first(run: Run, tmp_path: Path) -> None:
    """Who mends one after the other starts a process for each."""
    path = configured(tmp_path, '[rotation]\nlease = "1s"\ndistribution = "10s"\ntoken = "1m"')
    ran = await run("lint", "--offline", "--config", path, "--json")
    assert (ran.status, ran.json["holds"]) == (1, False)
    broken = [one for one in ran.json["inequalities"] if not one["holds"]]
    assert [one["rule"] for one in broken] == [1, 2, 3]
    assert len(ran.json["inequalities"]) > len(broken)
    assert "keys" not in ran.json


async def test_a_section_that_cannot_be_read_is_a_line_among_the_others(run: Run, tmp_path: Path) -> None:
    """One typing error must not hide what else is wrong."""
    text = (
        '[freshness]\nstale = "20m"\n[rotation]\nwindow = "at night"\n[authorization]\naccess_token = "soon"\n'
        '[grants]\nlife = "1m"'
    )
    ran = await run("lint", "--offline", "--config", configured(tmp_path, text))
    assert ran.status == 1
    for setting in ("freshness.expired", "rotation.window", "authorization.access_token", "grants.life"):
        assert setting in ran.out
    assert (await run("lint", "--config", "/nowhere/k.toml")).status == 2


async def test_the_timeline_can_be_read_at_a_glance(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every phase in its place, within 80 columns, and without colour."""
    monkeypatch.setattr("keyturn.cli.lint.stream_encoding", lambda: "ascii")
    path = configured(tmp_path, DAILY)
    ran = await run("lint", "--offline", "--config", path, "--at", AT, "--rotations", "2")
    assert ran.status == 0
    told = (await run("lint", "--offline", "--config", path, "--at", AT, "--rotations", "2", "--json")).json["keys"]
    stays = duration(told[0]["removed_at"] - told[0]["retires_at"])
    assert ran.out.endswith(GOLDEN.replace("STAYS", stays)), ran.out
    assert "all hold" in ran.out
    timeline = ran.out.partition("the next rotations")[2].splitlines()
    assert max(len(line) for line in timeline) <= 80


async def test_the_moment_may_be_another(run: Run, tmp_path: Path) -> None:
    """`--at`, in Unix seconds or with a zone; without one it is refused."""
    path = configured(tmp_path, DAILY)
    for at in (AT, "1796083200", "2026-12-01T01:00:00+01:00"):
        told = (await run("lint", "--offline", "--config", path, "--at", at, "--json")).json
        assert told["begins_at"] == told["keys"][0]["active_at"] == AT_SECONDS
    assert (await run("lint", "--at", "2026-12-01T00:00:00")).status == 2
    assert (await run("lint", "--at", "nan")).status == 2


async def test_a_window_is_drawn_and_respected(run: Run, tmp_path: Path) -> None:
    """One line shows when it is open; only the first key begins outside of it."""
    path = configured(tmp_path, DAILY.replace("standbys", 'window = "sun 02:00-03:00"\nstandbys'))
    ran = await run("lint", "--offline", "--config", path, "--at", AT)
    assert ran.out.count("* outside the window") == 1
    assert any(line.startswith("window ") and "▔" in line for line in ran.out.splitlines())
    keys = (await run("lint", "--offline", "--config", path, "--at", AT, "--json")).json["keys"]
    assert [key["in_window"] for key in keys if key["active_at"] is not None][1:] == [True] * 3


def key(kid: str, phase: str, **moments: float) -> dict[str, Any]:
    """Return a row of `GET /keys`."""
    names = ("published_at", "active_at", "retiring_at", "removed_at", "revoked_at", "sign_until", "verify_until")
    return {"kid": kid, "alg": "ES256", "use": "access", "phase": phase} | {name: moments.get(name) for name in names}


async def test_it_begins_with_the_issuers_own_keys(keyturn: Run, fake: FakeOrigin, tmp_path: Path) -> None:
    """What will happen to these keys, orders included, is the question that an operator has."""
    real = [
        key("real-1", "active", published_at=AT_SECONDS, active_at=AT_SECONDS, sign_until=AT_SECONDS * 2),
        key("real-2", "published", published_at=AT_SECONDS),
    ]
    orders = [{"alg": "ES256", "use": "access", "at": AT_SECONDS, "not_before": AT_SECONDS + 9_000_000_000}]
    fake.answer("GET /keys", 200, {"keys": real, "requests": orders})
    path = configured(tmp_path, DAILY)
    told = (await keyturn("lint", "--config", path, "--at", AT, "--json")).json
    assert told["begins_with"] == "the issuer's keys"
    assert [(one["kid"], one["known"]) for one in told["keys"][:2]] == [("real-1", True), ("real-2", True)]
    assert not told["keys"][2]["known"]
    fake.answer("GET /keys", 200, {"keys": [{"kid": "x"}]})
    assert "another version" in (await keyturn("lint", "--config", path)).out


async def test_without_an_issuer_it_says_why_it_begins_with_a_first_key(
    keyturn: Run, fake: FakeOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made-up timeline must not be taken for the real one."""
    path = configured(tmp_path, DAILY)
    fake.answer("GET /keys", 503, {"title": "x"})
    assert "a first key (" in (await keyturn("lint", "--config", path)).out
    other = configured(tmp_path, DAILY + '[issuer]\nurl = "https://id.example"')
    assert "not the configuration's https://id.example" in (await keyturn("lint", "--config", other)).out
    monkeypatch.delenv("KEYTURN_ISSUER")
    assert "KEYTURN_ISSUER is not set" in (await keyturn("lint", "--config", path)).out


@pytest.mark.parametrize(("encoding", "active"), [("ascii", "#"), ("utf-8", "█")])
def test_the_characters_are_what_the_locale_can_show(encoding: str, active: str, tmp_path: Path) -> None:
    """A serial console at 3 a.m. shows no blocks, and a traceback helps nobody."""
    argv = [sys.executable, "-m", "keyturn.cli", "lint", "--offline", "--config", configured(tmp_path, DAILY)]
    environ = {"PYTHONIOENCODING": encoding, "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(argv, capture_output=True, check=False, cwd=ROOT, env=environ, timeout=30)
    assert ran.returncode == 0, ran.stderr
    assert active * 10 in ran.stdout.decode(encoding)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[status_keys]\nactive = "20m"', "status_keys: active 1200 s (ES256) <= distribution 902 s"),
        ("[introspection_keys]\ntoken = 0", "introspection_keys: token 0 s <= 0 s"),
        ('[status_keys]\nalgorithms = ["ES256", "ES256"]', "status_keys: algorithms 2 is not different ones 1"),
        ('[status_keys]\nalgorithms = ["none"]', "no keys can be made for 'none' (status_keys.algorithms"),
        ("[introspection_keys]\nlease = 1", "introspection_keys.lease"),
    ],
)
async def test_the_keys_of_every_use_are_checked_and_named_by_their_section(
    run: Run, tmp_path: Path, text: str, named: str
) -> None:
    """What keyservice refuses at its start must not pass here."""
    ran = await run("lint", "--offline", "--config", configured(tmp_path, text))
    assert ran.status == 1
    assert named in ran.out


async def test_the_timeline_of_another_use_goes_by_its_own_period(run: Run, tmp_path: Path) -> None:
    """A status key stays for as long as its lists live."""
    config = configured(tmp_path, DAILY + '[status_keys]\nactive = "2d"\ntoken = "12h"\n')
    ran = await run(
        "lint", "--offline", "--config", config, "--at", AT, "--rotations", "1", "--use", "status", "--json"
    )
    assert (ran.status, ran.json["use"]) == (0, "status")
    first = ran.json["keys"][0]
    assert first["retires_at"] - first["active_at"] == 2 * 86_400
    assert first["removed_at"] - first["retires_at"] >= 43_200
    ran = await run("lint", "--offline", "--config", config, "--at", AT, "--rotations", "1", "--json")
    first = ran.json["keys"][0]
    assert (ran.json["use"], first["retires_at"] - first["active_at"]) == ("access", 7 * 86_400)
    assert (await run("lint", "--offline", "--config", config, "--use", "sig")).status == 2
