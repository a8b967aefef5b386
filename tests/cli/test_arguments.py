"""What the command line takes and refuses; above all, that tokens stay out of arguments and messages."""

import subprocess
import sys
from pathlib import Path

import pytest

from keyturn.cli.main import main
from tests.cli.conftest import SIGNED, FakeOrigin, Run

ROOT = Path(__file__).parents[2]
OPAQUE = "kt_at_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.mark.parametrize("token", [SIGNED, OPAQUE])
@pytest.mark.parametrize("command", [["verify"], ["introspect"], ["revoke"], ["token", "inspect"]])
async def test_a_token_among_the_arguments_is_refused_and_not_repeated(
    run: Run, command: list[str], token: str
) -> None:
    """Arguments are seen by every user of the machine, and end up in histories; messages end up in logs."""
    for extra in ([token], ["-", token], ["--token", token], [f"--token={token}"], ["--json", token, token]):
        ran = await run(*command, *extra)
        assert ran.status == 2
        assert token not in ran.out + ran.err
        assert token[8:] not in ran.out + ran.err


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        ([], "COMMAND"),
        (["no-such-command"], "invalid choice"),
        (["verify"], "no token"),
        (["verify", "-", "--token-file", "x"], "one of"),
        (["verify", "--token-file", "/nowhere/token"], "cannot be read"),
        (["verify", "-", "--policy", "../weak"], "policy"),
        (["verify", "-"], "no single token"),
        (["revoke"], "one thing"),
        (["revoke", "--sub", "a", "-"], "no single token"),
        (["revoke", "--sub", "a", "--before", "yesterday"], "moment"),
        (["revoke", "--sub", "a", "--before", "2026-01-01T00:00:00"], "zone"),
        (["revoke", "--sub", "a", "--wait", "some"], "invalid choice"),
        (["keys", "revoke"], "required"),
        (["keys", "revoke", ".."], "kid"),
        (["keys", "revoke", "a b"], "kid"),
        (["keys", "rotate", "--idempotency-key", "a b"], "visible"),
        (["keys", "rotate", "--at", "tomorrow"], "moment"),
        (["keys", "import", "/nowhere/keys.pem", "--as", "retiring"], "cannot be read"),
        (["keys", "import", "k.pem"], "--as"),
        (["keys", "rotate", "--timeout", "1e9", "--wait", "all"], "seconds"),
        (["status", "--env", "/nowhere/dev.env"], "cannot be read"),
        (["keys", "list"], "KEYTURN_ADMIN_ID"),
        (["token", "get"], "KEYTURN_CLIENT_ID"),
        (["init", "--sidecars", "0"], "number"),
        (["init", "--verifier", "a/b"], "a-z"),
        (["keys", "rotate", "--wai", "all"], "unrecognized"),
    ],
)
async def test_wrong_usage_is_one_line_and_status_2(run: Run, argv: list[str], word: str) -> None:
    """A script must be able to tell a typing error from a no."""
    ran = await run(*argv)
    assert (ran.status, ran.out) == (2, "")
    assert word in ran.err
    assert ran.err.count("\n") == 1


async def test_a_timeout_without_a_wait_is_refused(keyturn: Run) -> None:
    """Else somebody believes to have waited."""
    ran = await keyturn("keys", "rotate", "--timeout", "3")
    assert (ran.status, "--wait" in ran.err) == (2, True)


@pytest.mark.parametrize("text", ["", " ", "a b", "a\nb", "ü", "x" * 70_000])
async def test_what_is_no_single_token_is_not_sent(keyturn: Run, fake: FakeOrigin, text: str) -> None:
    """Two tokens in one file, or a page of HTML, are a mistake and no question."""
    ran = await keyturn("verify", "-", stdin=text)
    assert (ran.status, fake.asked) == (2, [])


async def test_a_token_comes_from_a_file_without_its_line_break(keyturn: Run, fake: FakeOrigin, tmp_path: Path) -> None:
    """Editors and echo end files with one."""
    (tmp_path / "token").write_text(f"{SIGNED}\n")
    fake.answer("GET /nginx/default", 200)
    assert (await keyturn("verify", "--token-file", str(tmp_path / "token"))).status == 0
    assert fake.of("/nginx/default").authorization == f"Bearer {SIGNED}"


@pytest.mark.parametrize("command", [[], ["revoke"], ["keys"], ["keys", "rotate"], ["token", "get"], ["init"]])
def test_help_is_there_for_each(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """Help is an answer: status 0, on standard output."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: keyturn" in capsys.readouterr().out


def test_the_sidecar_is_started_without_an_http_client() -> None:
    """It stands beside every API: what only the other commands need must not cost it memory, or be installed."""
    program = (
        "import sys; from keyturn.cli.main import main; status = main(['sidecar', '--config', '/nowhere/k.toml']); "
        "sys.exit(status if 'aiohttp' not in sys.modules else 99)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT, check=False, timeout=30)
    assert (ran.returncode, ran.stderr.count(b"\n")) == (2, 1)
    assert b"/nowhere/k.toml cannot be read" in ran.stderr
