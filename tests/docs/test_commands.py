"""Every command of the README and of the tutorial works, and prints what the page says."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Shown, commands
from tests.docs.reader import compare, reading

PAGES = ("README.md", "docs/tutorial/first-rotation.md")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed_word_by_word(page: str, tmp_path: Path) -> None:
    """What a newcomer types first must work; `make` is taken at what it runs after its set-up."""
    with reading(tmp_path) as reader:
        reader.read(commands(ROOT / page))
        reader.finish()


def test_another_answer_than_the_page_shows_is_noticed() -> None:
    """Numbers and keys may differ, words may not."""
    compare(Shown("x", ["adopted  1 of 1 live verifiers"]), ["adopted  12 of 12 live verifiers", ""])
    with pytest.raises(AssertionError):
        compare(Shown("x", ["active"]), ["refused: invalid_token: the token was revoked"])
    with pytest.raises(AssertionError):
        compare(Shown("x", ["HTTP/1.1 200 OK"]), ["HTTP/1.1 503 Service Unavailable"])
