"""Secrets are files that nobody else reads, and addresses are read strictly."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from keyturn.contract.errors import ConfigurationError
from keyturn.process.settings import Section, Settings
from keyturn.process.values import Listen, Secret, Unfit


@dataclass(frozen=True, kw_only=True, slots=True)
class Vault(Section):
    """A section with a secret."""

    SECTION: ClassVar[str] = "vault"
    kek: Secret | None = None


def section(tmp_path: Path, text: str = "", **variables: str) -> Vault:
    """Read the section from this text and these variables."""
    file = tmp_path / "keyturn.toml"
    file.write_text(text)
    return Settings.read(file, environ=variables).section(Vault)


def refusal(tmp_path: Path, text: str = "", **variables: str) -> ConfigurationError:
    """Return the error by which the section is refused."""
    with pytest.raises(ConfigurationError) as refused:
        section(tmp_path, text, **variables)
    return refused.value


def secret_file(tmp_path: Path, content: bytes = b"sesame\n", mode: int = 0o600) -> Path:
    """Write a secret, with this mode."""
    file = tmp_path / "secret"
    file.write_bytes(content)
    file.chmod(mode)
    return file


def test_a_secret_is_a_file_that_its_owner_alone_reads(tmp_path: Path) -> None:
    """One line break at the end is the editor's."""
    secret_file(tmp_path)
    kek = section(tmp_path, '[vault]\nkek_file = "secret"\n').kek
    assert kek is not None
    assert kek.reveal() == b"sesame"
    assert kek.reveal_text() == "sesame"


def test_a_secret_does_not_show_itself(tmp_path: Path) -> None:
    """Neither in a repr, nor in that of its section, nor in a pickle."""
    file = secret_file(tmp_path)
    settings = section(tmp_path, KEYTURN_VAULT__KEK_FILE=str(file))
    assert "sesame" not in f"{settings} {settings!r} {settings.kek}"
    with pytest.raises(TypeError):
        pickle.dumps(settings.kek)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """It is no secret; the mend is the command to type."""
    file = secret_file(tmp_path, mode=mode)
    error = refusal(tmp_path, KEYTURN_VAULT__KEK_FILE=str(file))
    assert error.setting == "vault.kek_file"
    assert error.mend == f"chmod 600 {file}"


@pytest.mark.parametrize(("content", "word"), [(b"", "empty"), (b"\n", "empty"), (b"x" * 65_537, "larger")])
def test_a_secret_file_without_a_secret_is_refused(tmp_path: Path, content: bytes, word: str) -> None:
    """An empty key would work, for everybody."""
    file = secret_file(tmp_path, content)
    assert word in str(refusal(tmp_path, KEYTURN_VAULT__KEK_FILE=str(file)))


def test_a_secret_file_must_be_there_and_a_file(tmp_path: Path) -> None:
    """A missing file, a folder, and a device."""
    assert "cannot be read" in str(refusal(tmp_path, KEYTURN_VAULT__KEK_FILE=str(tmp_path / "absent")))
    assert "cannot be read" in str(refusal(tmp_path, KEYTURN_VAULT__KEK_FILE=str(tmp_path)))
    assert "not a file" in str(refusal(tmp_path, KEYTURN_VAULT__KEK_FILE=os.devnull))


def test_a_secret_in_the_configuration_itself_is_refused(tmp_path: Path) -> None:
    """And not repeated."""
    error = refusal(tmp_path, '[vault]\nkek = "sesame"\n')
    assert error.setting == "vault.kek"
    assert "vault.kek_file" in error.mend
    assert "sesame" not in str(error)


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("127.0.0.1:8410", Listen(host="127.0.0.1", port=8410)),
        ("[::1]:8410", Listen(host="::1", port=8410)),
        ("localhost:0", Listen(host="localhost", port=0)),
        ("unix:/run/keyturn/sidecar.sock", Listen(path=Path("/run/keyturn/sidecar.sock"))),
    ],
)
def test_an_address_is_read_and_written_the_same(text: str, listen: Listen) -> None:
    """A host and port, or a socket."""
    assert Listen.parse(text) == listen
    assert str(listen) == text


@pytest.mark.parametrize(
    "text", ["8410", ":8410", "::1:8410", "h:", "h:-1", "h:65536", "h:٣", "unix:", "unix:relative"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """An empty host would be every network."""
    with pytest.raises(Unfit):
        Listen.parse(text)
