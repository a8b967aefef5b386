"""`keyturn token get --sign-in` and `token refresh`: whose answer is taken, what is written where, and when it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
from aiohttp import ClientSession

from keyturn.cli.answers import CannotTell
from keyturn.cli.origin import origin
from keyturn.cli.signingin import SignIn, sign_in
from keyturn.cli.tables import Printer
from keyturn.contract.credentials import CredentialKind, make_credential
from keyturn.contract.encoding import digest
from tests.cli.conftest import FakeOrigin, Run
from tests.waiting import eventually

FIRST, SECOND = (make_credential(CredentialKind.REFRESH, bytes([number]) * 32) for number in (1, 2))
TOLD = {"access_token": "kt_at_1", "token_type": "Bearer", "expires_in": 300, "refresh_token": FIRST}


class Listening(Printer):
    """Somebody who reads what is said on standard error."""

    def __init__(self) -> None:
        """Have heard nothing yet."""
        super().__init__(as_json=False)
        self.heard: list[str] = []

    def aside(self, line: str) -> None:
        """Hear it."""
        self.heard.append(line)


class Attempt:
    """A sign-in that waits for its answer."""

    def __init__(self, fake: FakeOrigin, signing_in: SignIn, task: "asyncio.Task[dict[str, Any]]", link: str) -> None:
        """Read what the link asks for."""
        self.fake, self.signing_in, self.task, self.link = fake, signing_in, task, link
        self.asked = dict(parse_qsl(urlsplit(link).query, strict_parsing=True))

    async def come_back(self, path: str = "", **changes: str | None) -> int:
        """Answer as a browser that was sent back, with changed parameters; return the status."""
        members: dict[str, str | None] = {"code": "kt_ac_1", "state": self.asked["state"], "iss": self.fake.url}
        told = {name: value for name, value in (members | changes).items() if value is not None}
        async with ClientSession() as http, http.get(self.asked["redirect_uri"] + path, params=told) as answer:
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
            return answer.status


@asynccontextmanager
async def signing_in(fake: FakeOrigin, *, wait_seconds: float = 30.0) -> AsyncIterator[Attempt]:
    """Begin to sign in at the fake issuer."""
    fake.answer("POST /token", 200, TOLD)
    printer, begun = Listening(), SignIn.begin(fake.url, "app", {"scope": "read"})
    async with origin(fake.url) as issuer:
        task = asyncio.create_task(
            sign_in(issuer, begun, printer, more={"token_format": "jwt"}, wait_seconds=wait_seconds)
        )
        await eventually(lambda: printer.heard)
        try:
            yield Attempt(fake, begun, task, printer.heard[0].removeprefix("visit "))
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_the_answer_is_exchanged_with_the_verifier_of_the_link(fake: FakeOrigin) -> None:
    """RFC 7636, 4; RFC 8252, 7.3: one state, one challenge and one port for each sign-in."""
    async with signing_in(fake) as one, signing_in(fake) as other:
        for name in ("state", "code_challenge", "redirect_uri"):
            assert one.asked[name] != other.asked[name]
        assert one.asked["code_challenge_method"] == "S256"
        assert one.asked["scope"] == "read"
        assert urlsplit(one.asked["redirect_uri"]).hostname == "127.0.0.1"
        assert await one.come_back() == 200
        assert await one.task == TOLD
        form = {name: values[0] for name, values in parse_qs(fake.of("/token").body.decode()).items()}
        assert digest(form.pop("code_verifier").encode()) == one.asked["code_challenge"]
        assert form == {
            "grant_type": "authorization_code", "code": "kt_ac_1", "client_id": "app", "token_format": "jwt",
            "redirect_uri": one.asked["redirect_uri"],
        }  # fmt: skip
        assert one.signing_in.verifier not in one.link
        assert fake.of("/token").authorization == ""


async def test_what_is_not_waited_for_changes_nothing(fake: FakeOrigin) -> None:
    """Any page can make the browser ask this port; without the state it says nothing (RFC 9700, 4.7)."""
    async with signing_in(fake) as one:
        wrong: list[dict[str, str | None]] = [
            {"state": "x"},
            {"state": None},
            {"state": "\u00e9"},
            {"error": "access_denied", "state": "x"},
        ]
        for changes in wrong:
            assert await one.come_back("", **changes) == 400
        assert await one.come_back(f"?state={one.asked['state']}&code=a&code=b") == 400
        assert not one.task.done()
        assert await one.come_back() == 200
        assert await one.task == TOLD


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"error": "access_denied", "code": None}, "access_denied"),
        ({"error": "x", "error_description": "\x1b[2Jgone", "code": None}, "?[2Jgone"),
        ({"code": None}, "no code"),
    ],
)
async def test_an_answer_that_is_none_of_the_issuers_is_not_exchanged(
    fake: FakeOrigin, changes: dict[str, str | None], said: str
) -> None:
    """RFC 9207, 2.4: a code of one issuer must not be brought to another; and nothing steers the terminal."""
    async with signing_in(fake) as one:
        assert await one.come_back("", **changes) == 200
        with pytest.raises(CannotTell) as caught:
            await one.task
    assert said in str(caught.value)
    assert not any(asked.target == "/token" for asked in fake.asked)


async def test_it_does_not_wait_for_ever(fake: FakeOrigin) -> None:
    """A script that nobody answers ends by itself, and its port is closed."""
    async with signing_in(fake, wait_seconds=0.05) as one:
        with pytest.raises(CannotTell):
            await one.task


@pytest.fixture
def app(keyturn: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command that finds a public client as well."""
    monkeypatch.setenv("KEYTURN_APP_ID", "app")
    return keyturn


async def test_a_refresh_token_turns_in_its_file(app: Run, fake: FakeOrigin, tmp_path: Path) -> None:
    """The next one takes the place of the used one, for its owner's eyes alone; neither is printed."""
    file = tmp_path / "refresh"
    file.write_text(FIRST + "\n")
    fake.answer("POST /token", 200, {**TOLD, "refresh_token": SECOND})
    ran = await app("token", "refresh", "--token-file", str(file), "--scope", "read")
    assert (ran.status, ran.out, file.read_text()) == (0, "kt_at_1\n", SECOND + "\n")
    assert file.stat().st_mode & 0o777 == 0o600
    assert parse_qs(fake.of("/token").body.decode()) == {
        "grant_type": ["refresh_token"], "refresh_token": [FIRST], "client_id": ["app"], "scope": ["read"],
    }  # fmt: skip
    ran = await app("token", "refresh", "--token-file", str(file), "--json")
    assert ran.json == {"access_token": "kt_at_1", "token_type": "Bearer", "expires_in": 300}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [((400, {"error": "invalid_grant"}), 1), ((400, {"error": "invalid_scope"}), 3),
     ((401, {"error": "invalid_client"}), 3), ((503, None), 3), ((200, {"refresh_token": SECOND}), 3),
     ((200, {**TOLD, "refresh_token": "x"}), 3)],
)  # fmt: skip
async def test_a_token_that_did_not_turn_stays(
    app: Run, fake: FakeOrigin, tmp_path: Path, answer: tuple[int, Any], expected: int
) -> None:
    """It is all that stands between its owner and signing in again."""
    file = tmp_path / "refresh"
    file.write_text(FIRST)
    fake.answer("POST /token", *answer)
    ran = await app("token", "refresh", "--token-file", str(file))
    assert (ran.status, file.read_text()) == (expected, FIRST)
    assert FIRST not in ran.out + ran.err


@pytest.mark.parametrize(
    "argv",
    [
        ["token", "get", "--refresh-token-file", "x"],
        ["token", "get", "--sign-in", "--as", "admin"],
        ["token", "refresh"],
        ["token", "refresh", "--token-file", "missing"],
    ],
)
async def test_what_cannot_be_meant_is_refused(app: Run, argv: list[str]) -> None:
    """Before anything is asked of the issuer."""
    assert (await app(*argv)).status == 2


async def test_without_a_public_client_nobody_can_sign_in(keyturn: Run) -> None:
    """The name that is missing is told."""
    ran = await keyturn("token", "get", "--sign-in")
    assert (ran.status, "KEYTURN_APP_ID" in ran.err) == (2, True)
