"""Links between pages resolve, and every page can be reached."""

from pathlib import Path

import pytest

from tests.docs.pages import ROOT, anchors, blocks, links, pages

_ELSEWHERE = ("https://", "http://", "mailto:")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    """Who follows a link in an emergency must not land nowhere."""
    for target in links(page):
        if target.startswith(_ELSEWHERE):
            continue
        path, _, anchor = target.partition("#")
        found = page if not path else (page.parent / path).resolve()
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(found), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    """A page that nothing links to is not read."""
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        targets = [one.partition("#")[0] for one in links(page) if not one.startswith(_ELSEWHERE)]
        waiting += [(page.parent / target).resolve() for target in targets if target]
    written = set((ROOT / "docs").rglob("*.md"))
    assert written - seen == set()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_nginx_snippets_are_what_is_shipped(page: Path) -> None:
    """A snippet that was tested in another form protects nothing."""
    shipped = {
        " ".join(line.split("#")[0].split()) for line in (ROOT / "deploy/nginx/api.conf").read_text().splitlines()
    }
    for block in blocks(page, "nginx"):
        assert {" ".join(line.split("#")[0].split()) for line in block.splitlines()} - shipped == set()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_the_machine_that_it_was_written_on(page: Path) -> None:
    """Readers are at `/home/you`."""
    text = page.read_text()
    assert not [name for name in ("/work/", "/root/", "/tmp/docs") if name in text]  # noqa: S108 - it must not be there
