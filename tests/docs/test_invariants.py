"""Each promise has a number and tests, and every test that the page names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, code_words

PAGE = ROOT / "docs/explanation/invariants.md"
_PROMISE = re.compile(r"^\*\*(\d+)\. ", re.MULTILINE)


def named(text: str) -> list[str]:
    """Return the tests that a text names."""
    return sorted(word for word in code_words(text) if "::" in word)


@cache
def functions_of(path: Path) -> frozenset[str]:
    """Return the names of the functions in a file."""
    functions = ast.parse(path.read_text()).body
    return frozenset(one.name for one in functions if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("test", named(PAGE.read_text()))
def test_a_test_that_the_page_names_exists(test: str) -> None:
    """A promise that points to a test which was renamed or deleted is held by nobody, and nobody notices."""
    path, _, name = test.partition("::")
    assert (ROOT / path).is_file(), path
    assert name.startswith("test_")
    assert name in functions_of(ROOT / path)


def test_promises_are_numbered_and_each_has_tests() -> None:
    """Others refer to them by number."""
    first, *promises = re.split(r"(?m)^(?=\*\*\d+\. )", PAGE.read_text())
    assert not named(first)
    assert [int(number) for number in _PROMISE.findall(PAGE.read_text())] == list(range(1, len(promises) + 1))
    assert [promise[:60] for promise in promises if not named(promise)] == []
