"""Reads the documentation: its pages, their links and headings, and the commands that they show."""

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\s*$(.*?)^```\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_PROMPT, _GOES_ON = "$ ", "> "


@dataclass
class Shown:
    """A command as a page shows it, and the lines that it is said to print."""

    command: str
    output: list[str] = field(default_factory=list)


def pages() -> list[Path]:
    """Return every page that a reader may open."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Return the contents of a page's fenced blocks of one language, in order."""
    return [content.strip("\n") for kind, content in _FENCE.findall(page.read_text()) if kind == language]


def commands(page: Path) -> list[Shown]:
    """Return the commands of a page's `console` blocks in order: lines that begin with `$ `, continued by `> `."""
    found: list[Shown] = []
    for block in blocks(page, "console"):
        first = len(found)
        for line in block.splitlines():
            if line.startswith(_PROMPT):
                found.append(Shown(line.removeprefix(_PROMPT)))
            elif len(found) == first:
                raise AssertionError(f"{page.name}: a console block begins with a command: {line!r}")
            elif line.startswith(_GOES_ON) and not found[-1].output:
                found[-1].command += "\n" + line.removeprefix(_GOES_ON)
            else:
                found[-1].output.append(line)
    return found


def links(page: Path) -> list[str]:
    """Return the targets of a page's links, those in fenced blocks left out."""
    return _LINK.findall(_FENCE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """Return what a page's headings can be linked by."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_words(text: str) -> set[str]:
    """Return what stands between single backticks."""
    return set(re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)))
