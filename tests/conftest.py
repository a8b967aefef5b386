"""What holds for the whole test run: in CI a test that did not run is a failure."""

import os

import pytest
from hypothesis import settings

from tests.slow_files import SECONDS

settings.register_profile("shared-machine", deadline=None)  # How long one example takes says nothing there.
settings.load_profile("shared-machine")

pytest_plugins = ("tests.servers",)

_SKIPPED: list[str] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: one that begins last keeps the run waiting when all others are done."""
    items.sort(key=lambda item: -SECONDS.get(item.path.relative_to(config.rootpath).as_posix(), 0))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note each test that was skipped, or was expected to fail."""
    if report.skipped:
        _SKIPPED.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note each module that was skipped whole."""
    if report.skipped:
        _SKIPPED.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run in CI if anything was skipped: there nothing may be missing."""
    if _SKIPPED and os.environ.get("CI") == "true" and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why a run without a failing test has failed."""
    if _SKIPPED and os.environ.get("CI") == "true":
        terminalreporter.write_line(f"CI runs every test, but these were skipped: {', '.join(_SKIPPED)}", red=True)
