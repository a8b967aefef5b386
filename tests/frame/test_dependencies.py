"""What the project depends on: each one justified, locked by hash, and named without a host."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["dev.txt", "services.txt", "wheel.txt", "library.txt", "library-oldest.txt"]


def project() -> dict[str, Any]:
    """Return pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def name_of(requirement: str) -> str:
    """Return the normalised name that a requirement begins with."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[._-]+", "-", found[0]).lower()


def direct() -> set[str]:
    """Return the name of everything that pyproject.toml asks for."""
    config = project()
    asked = [*config["build-system"]["requires"], *config["project"]["dependencies"]]
    for group in (
        *config["project"]["optional-dependencies"].values(),
        *config["dependency-groups"].values(),
    ):
        asked += [entry for entry in group if isinstance(entry, str)]
    return {name_of(requirement) for requirement in asked}


def of_node() -> set[str]:
    """Return what the interop tests' package.json asks for."""
    return set(json.loads((ROOT / "tests/interop/node/package.json").read_text())["dependencies"])


def test_each_direct_dependency_has_its_line_of_justification() -> None:
    """What nobody can say a reason for should not be trusted with keys."""
    text = (ROOT / "docs/reference/dependencies.md").read_text()
    justified = {name_of(found) for found in re.findall(r"^\| `([^`]+)` \| [^|]{20,} \|$", text, re.MULTILINE)}
    assert justified == direct() | of_node()


def test_each_direct_dependency_is_in_the_lock() -> None:
    """An installation from a stale lock would miss what was added since."""
    locked = {name_of(line) for line in (ROOT / "requirements/dev.txt").read_text().splitlines() if "==" in line}
    assert direct() <= locked


@pytest.mark.parametrize("lock", LOCKS)
def test_each_locked_version_has_hashes_and_no_address(lock: str) -> None:
    """A lock that names hosts breaks behind a mirror; one without hashes trusts whoever answers."""
    text = (ROOT / "requirements" / lock).read_text()
    assert "://" not in text
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_locks_agree_on_every_version() -> None:
    """What was tested must be what the image runs."""
    tested = pins("dev.txt")
    assert all(
        tested[name] == version
        for lock in ("services.txt", "wheel.txt", "library.txt")
        for name, version in pins(lock).items()
    )


def pins(lock: str) -> dict[str, str]:
    """Return the version that a lock has of each package."""
    text = (ROOT / "requirements" / lock).read_text()
    return {
        name_of(name): version
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", text, re.MULTILINE)
    }


def test_the_node_lock_names_no_host_for_its_packages() -> None:
    """Likewise for the packages of the interop tests."""
    assert '"resolved"' not in (ROOT / "tests/interop/node/package-lock.json").read_text()
