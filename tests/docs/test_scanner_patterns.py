"""The patterns for secret scanners, as the reference gives them."""

import re
from pathlib import Path

from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential


def test_the_documented_patterns_find_credentials_and_nothing_longer() -> None:
    """A secret scanner that goes by docs/reference/credentials.md finds what leaked, wherever it stands in a file."""
    page = (Path(__file__).parents[2] / "docs/reference/credentials.md").read_text(encoding="utf-8")
    patterns = re.findall(r"`(\\b[^`]+)`", page)
    assert len(patterns) == len(CredentialKind)
    for kind in CredentialKind:
        [pattern] = [one for one in patterns if kind.value in one]
        for number in range(50):
            text = make_credential(kind, bytes([number] * RANDOM_BYTES))
            for line in (text, f'token="{text}"', f"x {text}\n", f"https://a.example/?t={text}&b=c"):
                assert re.findall(pattern, line) == [text]
            assert not re.search(pattern, text + "A")
