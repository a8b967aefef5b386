"""One file, variables over it, and a clear word about whatever cannot work."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

import pytest

from keyturn.contract.errors import ConfigurationError
from keyturn.process.settings import (
    IssuerSettings,
    LogSettings,
    Section,
    Settings,
    from_arguments,
)
from keyturn.process.values import Duration, Listen, Range


class Barrier(StrEnum):
    """A choice."""

    TIME = "time"
    REPORTS = "reports"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation(Section):
    """A service's own section, with one setting of each type."""

    SECTION: ClassVar[str] = "rotation"
    active: Duration = 60.0
    deadline: Duration | None = None
    skew: Annotated[Duration, Range(0, 30)] = 1.0
    standbys: Annotated[int, Range(1, 8)] = 2
    share: float = 0.5
    barrier: Barrier = Barrier.TIME
    algorithms: tuple[str, ...] = ("ES256",)
    eager: bool = False
    directory: Path | None = None
    listen: Listen | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy(Section):
    """A section with tables of its own."""

    SECTION: ClassVar[str] = "policy"
    audience: str
    scopes: tuple[str, ...] = ()


def read(tmp_path: Path, text: str = "", **variables: str) -> Settings:
    """Return settings from this text and these variables."""
    file = tmp_path / "keyturn.toml"
    file.write_text(text)
    return Settings.read(file, environ=variables)


def refusal(tmp_path: Path, text: str = "", shape: type[Section] = Rotation, **variables: str) -> ConfigurationError:
    """Return the error by which a section is refused."""
    with pytest.raises(ConfigurationError) as refused:
        read(tmp_path, text, **variables).section(shape)
    return refused.value


def test_a_section_is_read_from_the_file(tmp_path: Path) -> None:
    """Each type as TOML writes it."""
    text = """
    [rotation]
    active = "1h30m"
    deadline = 45
    standbys = 3
    share = 1
    barrier = "reports"
    algorithms = ["RS256", "ES256"]
    eager = true
    directory = "state"
    listen = "127.0.0.1:8402"
    """
    assert read(tmp_path, text).section(Rotation) == Rotation(
        active=5400.0,
        deadline=45.0,
        standbys=3,
        share=1.0,
        barrier=Barrier.REPORTS,
        algorithms=("RS256", "ES256"),
        eager=True,
        directory=tmp_path / "state",
        listen=Listen(host="127.0.0.1", port=8402),
    )


def test_without_a_file_the_defaults_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is configured by variables alone needs no file."""
    monkeypatch.chdir(tmp_path)
    assert Settings.read(environ={}).section(Rotation) == Rotation()
    assert Settings.read(environ={}).section(LogSettings) == LogSettings(level="info", format="auto")


def test_variables_win_over_the_file(tmp_path: Path) -> None:
    """In a container the file is the image's, and the variables are the place's."""
    settings = read(
        tmp_path,
        '[rotation]\nactive = 5\nalgorithms = ["ES256"]\nskew = 2\n',
        KEYTURN_ROTATION__ACTIVE="250ms",
        KEYTURN_ROTATION__ALGORITHMS="ES256, RS256",
        KEYTURN_ROTATION__STANDBYS="4",
        KEYTURN_ROTATION__SHARE="0.25",
        KEYTURN_ROTATION__EAGER="yes",
        KEYTURN_ROTATION__DEADLINE="90",
        KEYTURN_ROTATION__DIRECTORY="here",
    )
    assert settings.section(Rotation) == Rotation(
        active=0.25,
        algorithms=("ES256", "RS256"),
        skew=2.0,
        standbys=4,
        share=0.25,
        eager=True,
        deadline=90.0,
        directory=Path.cwd() / "here",
    )


def test_named_sections_come_from_file_and_variables(tmp_path: Path) -> None:
    """A policy may be added, or changed, by variables alone."""
    settings = read(
        tmp_path,
        '[policy.default]\naudience = "https://a"\n[policy.read-only]\naudience = "https://b"\n',
        KEYTURN_POLICY__DEFAULT__AUDIENCE="https://changed",
        KEYTURN_POLICY__READ_ONLY__SCOPES="read",
        KEYTURN_POLICY__ADMIN__AUDIENCE="https://c",
    )
    assert settings.named_sections(Policy) == {
        "default": Policy(audience="https://changed"),
        "read-only": Policy(audience="https://b", scopes=("read",)),
        "admin": Policy(audience="https://c"),
    }


def test_sections_of_other_processes_are_left_alone(tmp_path: Path) -> None:
    """One file serves them all; KEYTURN_ISSUER and the like are no settings."""
    settings = read(
        tmp_path, "[sidecar]\nlisten = 3\n", KEYTURN_SIDECAR__WHATEVER="1", KEYTURN_ISSUER="https://x", KEYTURN_="1"
    )
    assert settings.section(Rotation) == Rotation()


@pytest.mark.parametrize(
    ("text", "setting", "word"),
    [
        ("[rotation]\nacitve = 5", "rotation.acitve", "did you mean active?"),
        ("[rotation]\nzzz = 5", "rotation.zzz", "choose from active, algorithms"),
        ('[rotation]\nactive = "soon"', "rotation.active", '"15m"'),
        ("[rotation]\nactive = -1", "rotation.active", "not a length of time"),
        ("[rotation]\nactive = nan", "rotation.active", "not a length of time"),
        (f"[rotation]\nactive = {'9' * 400}", "rotation.active", "not a length of time"),
        (f'[rotation]\nactive = "{"9" * 400}d"', "rotation.active", "not a length of time"),
        ("[rotation]\nactive = true", "rotation.active", "not a duration"),
        ("[rotation]\nskew = 31", "rotation.skew", "from 0 to 30"),
        ("[rotation]\nstandbys = 0", "rotation.standbys", "from 1 to 8"),
        ("[rotation]\nstandbys = 1.5", "rotation.standbys", "not a whole number"),
        ('[rotation]\nstandbys = "2"', "rotation.standbys", "without quotes"),
        (f"[rotation]\nshare = {'9' * 400}", "rotation.share", "out of range"),
        ("[rotation]\nshare = inf", "rotation.share", "out of range"),
        ('[rotation]\neager = "yes"', "rotation.eager", "true or false"),
        ('[rotation]\nbarrier = "never"', "rotation.barrier", "choose from time, reports"),
        ('[rotation]\nalgorithms = "ES256"', "rotation.algorithms", "write a list"),
        ("[rotation]\nalgorithms = [1]", "rotation.algorithms", "in quotes"),
        ('[rotation]\nalgorithms = [""]', "rotation.algorithms", "empty"),
        ("[rotation]\ndirectory = 7", "rotation.directory", "in quotes"),
        ('[rotation]\nlisten = "8402"', "rotation.listen", "HOST:PORT"),
        ("rotation = 5", "rotation", "[rotation]"),
    ],
)
def test_a_wrong_setting_is_named_with_its_mend(tmp_path: Path, text: str, setting: str, word: str) -> None:
    """Whoever reads the line at three in the morning must know what to type."""
    error = refusal(tmp_path, text)
    assert error.setting == setting
    assert word in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("variable", "text", "setting", "word"),
    [
        ("KEYTURN_ROTATION__ACITVE", "5", "rotation.acitve", "did you mean active?"),
        ("KEYTURN_ROTATION__EAGER", "maybe", "rotation.eager", "true or false"),
        ("KEYTURN_ROTATION__STANDBYS", "two", "rotation.standbys", "not a number"),
        ("KEYTURN_ROTATION__STANDBYS", "1e999", "rotation.standbys", "out of range"),
        ("KEYTURN_ROTATION__DIRECTORY", "", "rotation.directory", "empty"),
    ],
)
def test_a_wrong_variable_is_refused_like_a_wrong_setting(
    tmp_path: Path, variable: str, text: str, setting: str, word: str
) -> None:
    """A typing error in a variable would else be a setting that silently does nothing."""
    error = refusal(tmp_path, "", Rotation, **{variable: text})
    assert error.setting == setting
    assert word in str(error)


def test_a_setting_that_is_needed_is_asked_for(tmp_path: Path) -> None:
    """Both ways to set it are named."""
    error = refusal(tmp_path, shape=IssuerSettings)
    assert error.setting == "issuer.url"
    assert "KEYTURN_ISSUER__URL" in error.mend
    with pytest.raises(ConfigurationError, match="KEYTURN_POLICY__READ_ONLY__AUDIENCE"):
        read(tmp_path, "[policy.read-only]\n").named_sections(Policy)


@pytest.mark.parametrize("text", ["[rotation", "a = \xff".encode("latin-1"), b"#" * (1024 * 1024 + 1)])
def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path, text: str | bytes) -> None:
    """Broken TOML, another encoding, something huge."""
    file = tmp_path / "keyturn.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigurationError, match=r"keyturn\.toml"):
        Settings.read(file, environ={})


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """A process must not run on defaults because a path had a typing error."""
    absent = tmp_path / "absent.toml"
    with pytest.raises(ConfigurationError, match=r"absent\.toml cannot be read"):
        Settings.read(environ={"KEYTURN_CONFIG": str(absent)})
    with pytest.raises(ConfigurationError, match=r"absent\.toml cannot be read"):
        from_arguments("keyservice", about="Keys.", argv=["--config", str(absent)])


def test_the_command_line_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--config`, else KEYTURN_CONFIG, else ./keyturn.toml."""
    for name in ("argument", "variable", "keyturn"):
        (tmp_path / f"{name}.toml").write_text(f'[issuer]\nurl = "https://{name}.example"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KEYTURN_CONFIG", raising=False)

    def issuer(*argv: str) -> str:
        return from_arguments("keyservice", about="Keys.", argv=argv).section(IssuerSettings).url

    assert issuer() == "https://keyturn.example"
    monkeypatch.setenv("KEYTURN_CONFIG", "variable.toml")
    assert issuer() == "https://variable.example"
    assert issuer("--config", "argument.toml") == "https://argument.example"
    with pytest.raises(SystemExit) as ended:
        issuer("--conf", "argument.toml")
    assert ended.value.code == 2
