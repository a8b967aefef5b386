"""In CI a test that does not run fails the run: tests/conftest.py."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parents[1] / "conftest.py"
BODIES = {
    "skip": "import pytest\ndef test_it():\n    pytest.skip('no server here')\n",
    "module": "import pytest\npytest.skip('no server here', allow_module_level=True)\n",
    "xfail": "import pytest\n@pytest.mark.xfail\ndef test_it():\n    assert False\n",
}


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return a suite of its own under our conftest.py, with one test that passes."""
    pytester.makeconftest(CONFTEST.read_text())
    (pytester.mkpydir("tests") / "servers.py").touch()  # conftest.py names it; no server is wanted here.
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
