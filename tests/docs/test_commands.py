"""Every command of the README and of the tutorial works, and prints what the page says."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Shown, blocks, commands, pages
from tests.docs.reader import compare, reading

TUTORIAL = "docs/tutorial/first-rotation.md"
# Pages that begin where the README's `make up` runs, and the files that a reader is told to save.
AFTER_THE_README = {
    "docs/how-to/protect-an-api-behind-nginx.md": None,
    "docs/how-to/check-tokens-in-python.md": "check.py",
    "docs/how-to/rotate-by-hand.md": None,
    "docs/how-to/sign-users-in.md": None,
    "docs/how-to/phantom-tokens.md": None,
    "docs/how-to/revoke-by-selector.md": None,
    "docs/runbooks/audit-the-feed.md": None,
    "docs/runbooks/trust-document-expires.md": None,
    "docs/runbooks/root-rotation.md": None,
    "docs/runbooks/role-key-stolen.md": None,
}

# Pages that begin with nothing and are typed where the servers that they need are.
ELSEWHERE = {"docs/runbooks/failover-drill.md"}  # tests/stores/test_drill.py


def test_the_readme_and_the_pages_after_it_can_be_followed_word_by_word(tmp_path: Path) -> None:
    """What a newcomer types first must work; `make` is taken at what it runs after its set-up."""
    with reading(tmp_path) as reader:
        reader.read(commands(ROOT / "README.md"))
        for page, saved_as in AFTER_THE_README.items():
            for script in blocks(ROOT / page, "python"):
                (tmp_path / (saved_as or "unnamed")).write_text(script)
            reader.read(commands(ROOT / page))
        reader.finish()


def test_the_tutorial_can_be_followed_word_by_word(tmp_path: Path) -> None:
    """It begins with a system of its own."""
    with reading(tmp_path) as reader:
        reader.read(commands(ROOT / TUTORIAL))
        reader.finish()


def test_every_page_with_commands_is_read() -> None:
    """A page that nobody types is not known to work."""
    assert {str(page.relative_to(ROOT)) for page in pages() if commands(page)} == {
        "README.md",
        TUTORIAL,
        *AFTER_THE_README,
        *ELSEWHERE,
    }


def test_another_answer_than_the_page_shows_is_noticed() -> None:
    """Numbers and keys may differ, words may not."""
    compare(Shown("x", ["adopted  1 of 1 live verifiers"]), ["adopted  12 of 12 live verifiers", ""])
    with pytest.raises(AssertionError):
        compare(Shown("x", ["active"]), ["refused: invalid_token: the token was revoked"])
    with pytest.raises(AssertionError):
        compare(Shown("x", ["HTTP/1.1 200 OK"]), ["HTTP/1.1 503 Service Unavailable"])
