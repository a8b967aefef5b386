"""What `python -m benchmarks` concludes, prints and writes."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as program
from benchmarks.load import MeasurementSpoiledError, Sample
from benchmarks.rounds import Rounds, Row, at_least


def _rounds() -> Rounds:
    mine = [Sample(rate=rate, cpu_share=0.9, stolen_share=0.0, p99_ms=500 / rate) for rate in (80.0, 40.0, 90.0)]
    theirs = [Sample(rate=rate, cpu_share=1.0, stolen_share=0.1, p99_ms=1000 / rate) for rate in (100.0, 50.0, 100.0)]
    return Rounds({"mine": mine, "theirs": theirs})


def test_a_ratio_is_taken_round_by_round() -> None:
    """A machine that is slow for one round is slow for both, and that must not show."""
    assert _rounds().ratio("mine", "theirs") == pytest.approx(0.8)
    assert _rounds().p99_ratio("mine", "theirs") == pytest.approx(0.5 / 0.8)


@pytest.mark.parametrize(("goal", "holds"), [(0.8, True), (0.81, False)])
def test_a_missed_goal_is_told_as_missed(goal: float, holds: bool) -> None:
    """The figures are there to be believed."""
    row = at_least(_rounds(), "mine", "theirs", row="X", what="x", goal=goal)

    assert (row.holds, row.figure) == (holds, 0.8)


def test_results_are_written_as_the_interface_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`{"rows": [{"id", "goal", "figure", "holds"}], "versions": {…}}`, and exit 0 whatever holds."""
    missed = Row(id="X1", what="x / y", goal=">= 2.00", figure=1.5, holds=False, facts={"x": 1.0})
    monkeypatch.setattr(program, "ROWS", {"X1": lambda _directory: [missed]})
    monkeypatch.setattr(program, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(program, "_obstacle", lambda _names: None)
    monkeypatch.setattr(program, "_versions", lambda: {"python": "3"})

    assert program.main(["x1"]) == 0

    written = json.loads((tmp_path / "results.json").read_text())
    assert written["versions"] == {"python": "3"}
    assert {"id": "X1", "goal": ">= 2.00", "figure": 1.5, "holds": False}.items() <= written["rows"][0].items()
    assert "no" in capsys.readouterr().out.splitlines()[1].split()


def test_a_spoiled_measurement_is_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A figure from a server that answered errors would be a lie."""

    def spoiled(directory: Path) -> list[Row]:
        raise MeasurementSpoiledError("it answered 503")

    monkeypatch.setattr(program, "ROWS", {"X1": spoiled})
    monkeypatch.setattr(program, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(program, "_obstacle", lambda _names: None)

    assert program.main(["X1"]) == 2
    assert not (tmp_path / "results.json").exists()
    assert "it answered 503" in capsys.readouterr().err


def test_without_wrk_there_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make bench` on a fresh machine says what to install."""
    monkeypatch.setenv("PATH", "/nonexistent")

    assert program.main([]) == 2

    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert "install" in told[0]


def test_an_unknown_row_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped row must not pass for a measured one."""
    assert program.main(["P99"]) == 2
    assert "choose from" in capsys.readouterr().err
