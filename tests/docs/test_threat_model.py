"""The threat model's tables have a row for everything that is tried, and each was measured to be withstood."""

from tests.docs.pages import ROOT
from tests.faults.__main__ import DRILLS
from tests.faults.attack_table import ATTACKS

PAGE = ROOT / "docs/explanation/threat-model.md"


def rows() -> dict[str, list[str]]:
    """Return the cells behind the first one of each table row, by that one."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def test_every_attack_stands_there_and_nothing_was_accepted() -> None:
    """An attack that was added and not measured would be a claim."""
    found = rows()
    assert {row.does: found.get(row.does, ["missing"])[0] for row in ATTACKS} == {
        row.does: "nothing" for row in ATTACKS
    }


def test_every_fault_stands_there_without_a_false_answer() -> None:
    """Likewise for faults."""
    found = rows()
    missing = ["missing"] * 6
    figures = {one.happens: found.get(one.happens, missing)[3:5] for one in DRILLS}
    assert figures == {one.happens: ["0", "0"] for one in DRILLS}
