"""The command line against a small origin that answers what a test wants, and remembers what it was asked."""

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from keyturn.cli.main import main

SIGNED = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTgwMDAwMDAwMH0.c2lnbmF0dXJl"
ADMIN_TOKEN = "kt_at_of-the-admin"
SECRETS = {"CLIENT": "kt_cs_client/secret", "RESOURCE": "kt_cs_resource", "ADMIN": "kt_cs_admin"}


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    target: str
    authorization: str
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """Return the JSON body."""
        return json.loads(self.body)


@dataclass
class FakeOrigin:
    """Issuer and sidecar in one: canned answers by method and path."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    answers: dict[str, tuple[int, Any, dict[str, str]]] = field(default_factory=dict)
    acts: dict[str, Callable[[], tuple[Any, ...]]] = field(default_factory=dict)

    def answer(self, route: str, status: int, body: Any = None, **headers: str) -> None:
        """Set the answer to `METHOD /path`; header names with underscores for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[route] = (status, body, named)

    def act(self, route: str, answer: Callable[[], tuple[Any, ...]]) -> None:
        """Let a function answer `METHOD /path`: status, body and, of a lane, the running epoch."""
        self.acts[route] = answer

    async def handle(self, request: web.Request) -> web.Response:
        """Answer as set, 404 otherwise; the token endpoint always works for the right secrets."""
        authorization = request.headers.get("Authorization", "")
        body, headers = await request.read(), dict(request.headers)
        self.asked.append(Asked(request.method, request.raw_path, authorization, body, headers))
        route = f"{request.method} {request.raw_path.partition('?')[0]}"
        if route in self.acts:
            status, told, *epoch = self.acts[route]()
            self.answer(route, status, told, **({"Keyturn_Epoch": epoch[0]} if epoch else {}))
        status, told, headers = self.answers.get(route, (404, {"title": "Not Found"}, {}))
        if told is None or isinstance(told, bytes):
            return web.Response(status=status, headers=headers, body=told)
        return web.json_response(told, status=status, headers=headers)

    def of(self, path: str) -> Asked:
        """Return the last request for a path."""
        return next(one for one in reversed(self.asked) if one.target.partition("?")[0] == path)


@dataclass
class Ran:
    """What came of one command."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return the one JSON document on standard output."""
        return json.loads(self.out)


Run = Callable[..., Any]


@pytest.fixture
async def fake() -> AsyncIterator[FakeOrigin]:
    """Serve the fake origin on a free port."""
    origin = FakeOrigin()
    origin.answer("POST /token", 200, {"access_token": ADMIN_TOKEN, "token_type": "Bearer", "expires_in": 300})
    runner = web.ServerRunner(web.Server(origin.handle))  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    origin.url = "http://127.0.0.1:{1}".format(*runner.addresses[0])
    yield origin
    await runner.cleanup()


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stand in an empty folder, with no KEYTURN_… name set."""
    for name in [name for name in os.environ if name.startswith("KEYTURN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(clean: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command as a shell would, with that standard input."""

    async def run(*argv: str, stdin: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        status = await asyncio.to_thread(main, argv)
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return run


@pytest.fixture
def keyturn(run: Run, fake: FakeOrigin, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command that finds the fake origin and all credentials in its environment."""
    monkeypatch.setenv("KEYTURN_ISSUER", fake.url)
    monkeypatch.setenv("KEYTURN_SIDECAR_URL", fake.url)
    for role, secret in SECRETS.items():
        monkeypatch.setenv(f"KEYTURN_{role}_ID", role.lower())
        monkeypatch.setenv(f"KEYTURN_{role}_SECRET", secret)
    return run
