"""Where issuer and credentials come from: the environment, else a file; never one's secret with another's id."""

from pathlib import Path

import pytest

from keyturn.cli.answers import WrongUsage
from keyturn.cli.environment import Environment, Role
from tests.cli.conftest import FakeOrigin, Run


def write(path: Path, **values: str) -> Path:
    """Write an env file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    return path


def test_the_environment_stands_before_the_file(tmp_path: Path) -> None:
    """What is exported for this shell is meant for this shell."""
    file = write(tmp_path / "a.env", KEYTURN_ISSUER="https://file.example", KEYTURN_SIDECAR_URL="https://s.example")
    environment = Environment.read(file, variables={"KEYTURN_ISSUER": "https://shell.example"})
    assert (environment.issuer, environment.sidecar) == ("https://shell.example", "https://s.example")


def test_id_and_secret_come_from_one_source(tmp_path: Path) -> None:
    """Half a pair in the shell must not send the file's secret under another name."""
    file = write(tmp_path / "a.env", KEYTURN_ADMIN_ID="filed", KEYTURN_ADMIN_SECRET="filed-secret")
    credentials = Environment.read(file, variables={"KEYTURN_ADMIN_ID": "shell"}).credentials(Role.ADMIN)
    assert (credentials.client_id, credentials.secret) == ("filed", "filed-secret")


def test_credentials_do_not_show_their_secret() -> None:
    """A repr ends up in a traceback sooner or later."""
    names = {"KEYTURN_CLIENT_ID": "id", "KEYTURN_CLIENT_SECRET": "kt_cs_hush"}
    assert "hush" not in repr(Environment(names, {}).credentials(Role.CLIENT))


@pytest.mark.parametrize("line", ["KEYTURN_ISSUER", "export KEYTURN_ISSUER=x", "=x", "kt_cs_secret"])
def test_a_broken_line_is_named_by_its_number_and_not_repeated(tmp_path: Path, line: str) -> None:
    """It may be a secret that lost its name."""
    (tmp_path / "a.env").write_text(f"# fine\n\n{line}\n")
    with pytest.raises(WrongUsage, match=r"line 3 of .*a\.env is not NAME=value") as caught:
        Environment.read(tmp_path / "a.env", variables={})
    assert line not in str(caught.value)


def test_sidecars_are_all_or_the_one() -> None:
    """`up` names several; a single one is enough."""
    several = Environment({"KEYTURN_SIDECAR_URLS": "http://a, http://b,", "KEYTURN_SIDECAR_URL": "http://a"}, {})
    assert several.sidecars == ["http://a", "http://b"]
    assert Environment({"KEYTURN_SIDECAR_URL": "http://a"}, {}).sidecars == ["http://a"]
    assert Environment({}, {}).sidecars == []


async def test_the_development_stacks_file_is_found_by_itself(run: Run, fake: FakeOrigin, tmp_path: Path) -> None:
    """`make up` in one terminal, `keyturn …` in another: nothing to export."""
    write(
        tmp_path / ".keyturn" / "dev.env",
        KEYTURN_ISSUER=fake.url, KEYTURN_CLIENT_ID="client", KEYTURN_CLIENT_SECRET="secret",
    )  # fmt: skip
    assert (await run("token", "get")).status == 0


@pytest.mark.parametrize("url", ["http://issuer.example", "ftp://127.0.0.1", "issuer.example", "file:///etc/passwd"])
async def test_secrets_do_not_travel_in_the_clear(keyturn: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Plain http is for this machine only."""
    monkeypatch.setenv("KEYTURN_ISSUER", url)
    ran = await keyturn("token", "get")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "https" in ran.err
