"""In CI a test that does not run fails the run, and the slowest begin first: tests/conftest.py."""

import re
from pathlib import Path

import pytest

from tests.slow_files import SECONDS

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
CONFTEST = ROOT / "tests/conftest.py"
BODIES = {
    "skip": "import pytest\ndef test_it():\n    pytest.skip('no server here')\n",
    "module": "import pytest\npytest.skip('no server here', allow_module_level=True)\n",
    "xfail": "import pytest\n@pytest.mark.xfail\ndef test_it():\n    assert False\n",
}


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return a suite of its own under our conftest.py, with one test that passes."""
    pytester.makeconftest(CONFTEST.read_text())
    beside = pytester.mkpydir("tests")
    (beside / "servers.py").touch()  # conftest.py names it; no server is wanted here.
    (beside / "slow_files.py").write_text("SECONDS = {'test_slow.py': 9, 'test_slower.py': 10}\n")
    pytester.makepyfile(test_passes="def test_it():\n    pass\n")
    return pytester


@pytest.mark.parametrize("way", BODIES)
def test_what_did_not_run_fails_in_ci_and_only_there(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A missing program on the CI machine must not look like a passed test."""
    suite.makepyfile(test_absent=BODIES[way])
    monkeypatch.setenv("CI", "true")
    told = suite.runpytest_subprocess("-p", "no:asyncio")
    assert told.ret == pytest.ExitCode.TESTS_FAILED
    told.stdout.fnmatch_lines("*CI runs every test, but these were skipped: *test_absent*")

    monkeypatch.delenv("CI")
    assert suite.runpytest_subprocess("-p", "no:asyncio").ret == pytest.ExitCode.OK


def test_a_run_without_skips_passes_in_ci(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule must not fail what is whole."""
    monkeypatch.setenv("CI", "true")
    assert suite.runpytest_subprocess("-p", "no:asyncio").ret == pytest.ExitCode.OK


def test_the_slowest_files_begin_first_and_each_stays_whole(suite: pytest.Pytester) -> None:
    """CI has 16 minutes: a file of two minutes that begins last runs alone on one of the processors."""
    body = "def test_one():\n    pass\ndef test_two():\n    pass\n"
    suite.makepyfile(**dict.fromkeys(("test_another", "test_slow", "test_slower"), body))
    told = suite.runpytest_subprocess("-p", "no:asyncio", "-v")
    files = re.findall(r"^(test_\w+)\.py::", told.stdout.str(), re.MULTILINE)
    assert files == ["test_slower"] * 2 + ["test_slow"] * 2 + ["test_another"] * 2 + ["test_passes"]


def test_each_file_that_is_named_as_slow_is_there() -> None:
    """One that was renamed would begin last again, and nobody would know why CI takes longer."""
    assert [name for name in SECONDS if not (ROOT / name).is_file()] == []
    assert list(SECONDS.values()) == sorted(SECONDS.values(), reverse=True)
