"""deploy/nginx/api.conf on a real nginx: what reaches the API and the sidecar, and what the client is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from stack.ports import LOOPBACK, free_port
from tests.deploy.composition import Composition
from tests.deploy.containers import ROOT
from tests.deploy.recording import Recorder, recording
from tests.nginx import running_nginx
from tests.waiting import eventually

IDENTITY = ("Subject", "Client", "Scope", "Issuer", "Token-Id", "State")


@dataclass
class Gateway:
    """nginx as api.conf has it, between a client and an API that writes down what it gets."""

    client: httpx2.AsyncClient
    api: Recorder
    token: str = ""

    def bearer(self) -> dict[str, str]:
        """Return the header of the good token."""
        return {"Authorization": f"Bearer {self.token}"}


@asynccontextmanager
async def guarding(directory: Path, *, sidecar: int, policy: str = "default") -> AsyncIterator[Gateway]:
    """Run nginx with api.conf before a recorder as the API, asking the sidecar on that port."""
    port = free_port()
    async with recording() as api:
        text = (ROOT / "deploy/nginx/api.conf").read_text()
        for there, here in {
            "listen 8080": f"listen {LOOPBACK}:{port}",
            f"{LOOPBACK}:8081": f"{LOOPBACK}:{api.port}",
            f"{LOOPBACK}:8410": f"{LOOPBACK}:{sidecar}",
            "/nginx/default": f"/nginx/{policy}",
        }.items():
            assert text.count(there) == 1
            text = text.replace(there, here)
        async with (
            running_nginx(directory / "nginx", text, port=port),
            httpx2.AsyncClient(base_url=f"http://{LOOPBACK}:{port}") as client,
        ):
            yield Gateway(client, api)


async def new_token(composition: Composition) -> str:
    """Return a token for the API."""
    async with httpx2.AsyncClient() as client:
        answer = await client.post(
            f"{composition.url(8400)}/token",
            data={"grant_type": "client_credentials"}, auth=("client", composition.secret("client")),
        )  # fmt: skip
    return str(answer.json()["access_token"])


@pytest.fixture
async def gateway(composition: Composition, tmp_path: Path) -> AsyncIterator[Gateway]:
    """Run a gateway with the composition's sidecar."""
    async with guarding(tmp_path, sidecar=composition.ports[8410]) as gateway:
        gateway.token = await new_token(composition)
        yield gateway


async def test_the_api_learns_who_asks_from_the_sidecar_alone(gateway: Gateway) -> None:
    """What a client says of itself in our headers, however it spells them, must never reach the API."""
    spoofed = [(f"X-Auth-{name}", "root") for name in IDENTITY] * 2
    spoofed += [("x-auth-subject", "root"), ("X_Auth_Subject", "root"), ("X.Auth.Subject", "root")]
    answer = await gateway.client.get("/", headers=[*gateway.bearer().items(), *spoofed])
    assert answer.status_code == 200
    (seen,) = gateway.api.requests
    assert "root" not in str(seen.headers)
    assert seen.all("X-Auth-Subject") == ["client"]
    assert seen.all("X-Auth-Client") == ["client"]
    assert seen.all("X-Auth-Scope") == ["read write"]
    assert seen.all("X-Auth-State") == ["fresh"]
    assert len(seen.all("X-Auth-Issuer")) == len(seen.all("X-Auth-Token-Id")) == 1


async def test_a_header_that_the_sidecar_leaves_empty_is_removed(tmp_path: Path) -> None:
    """A token without a subject must not borrow the one that the client made up."""
    empty = "".join(f"X-Auth-{name}: \r\n" for name in IDENTITY).encode()
    async with (
        recording(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + empty + b"\r\n") as sidecar,
        guarding(tmp_path, sidecar=sidecar.port) as gateway,
    ):
        await gateway.client.get("/", headers={f"X-Auth-{name}": "root" for name in IDENTITY})
        (seen,) = gateway.api.requests
        assert [name for name, _ in seen.headers if name.startswith("x-auth")] == []


async def test_only_the_token_travels_to_the_sidecar(tmp_path: Path) -> None:
    """A sidecar that saw the client's headers or path could be talked into judging by them."""
    sent = {
        "Authorization": "Bearer t", "Cookie": "a=b", "X-Original-URI": "/public", "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Method": "OPTIONS", "X-Auth-Subject": "root",
    }  # fmt: skip
    async with recording() as sidecar, guarding(tmp_path, sidecar=sidecar.port) as gateway:
        await gateway.client.put("/nginx/other?policy=weak", headers=sent, content=b"x" * 5000)
        (asked,) = sidecar.requests
        assert asked.line == "GET /nginx/default HTTP/1.1"
        assert asked.headers == [("host", "sidecar"), ("authorization", "Bearer t")]
        assert asked.body == b""


async def test_a_request_reaches_the_api_whole(gateway: Gateway) -> None:
    """Asking the sidecar first must not cost the API method, path, query or body."""
    body = bytes(range(256)) * 400
    answer = await gateway.client.post("/orders/%2e%2e/x?a=1&a=2", headers=gateway.bearer(), content=body)
    assert answer.status_code == 200
    (seen,) = gateway.api.requests
    assert seen.line == "POST /orders/%2e%2e/x?a=1&a=2 HTTP/1.1"
    assert seen.body == body
    assert seen.all("Authorization") == [f"Bearer {gateway.token}"]


async def test_two_tokens_reach_neither_sidecar_nor_api(gateway: Gateway) -> None:
    """Which of two tokens was checked, and which one the API reads, would be anybody's guess."""
    good, bad = f"Bearer {gateway.token}", "Bearer x"
    for pair in ([good, bad], [bad, good], [good, good]):
        answer = await gateway.client.get("/", headers=[("Authorization", value) for value in pair])
        assert answer.status_code == 400
        joined = await gateway.client.get("/", headers={"Authorization": ", ".join(pair)})
        assert joined.status_code == 401
    assert gateway.api.requests == []


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ({}, 'Bearer realm="keyturn"'),
        ({"Authorization": "Bearer no.such.token"}, 'error="invalid_token"'),
        ({"Authorization": "Basic Y2xpZW50OnNlY3JldA=="}, 'Bearer realm="keyturn"'),
    ],
)
async def test_the_challenge_reaches_the_client(gateway: Gateway, authorization: dict[str, str], expected: str) -> None:
    """By RFC 6750 a client learns from it whether to send a token or to get another one."""
    answer = await gateway.client.get("/", headers=authorization)
    assert answer.status_code == 401
    assert expected in answer.headers["WWW-Authenticate"]
    assert gateway.api.requests == []


async def test_a_token_without_the_scope_is_forbidden(composition: Composition, tmp_path: Path) -> None:
    """The policy in api.conf's path decides what a token must be good for."""
    async with guarding(tmp_path, sidecar=composition.ports[8410], policy="admins") as gateway:
        gateway.token = await new_token(composition)
        answer = await gateway.client.get("/", headers=gateway.bearer())
        assert answer.status_code == 403
        assert gateway.api.requests == []


async def test_a_client_cannot_ask_the_sidecar_itself(gateway: Gateway) -> None:
    """The route of the question is nginx's own."""
    answer = await gateway.client.get("/-/keyturn", headers=gateway.bearer())
    assert answer.status_code == 404


@pytest.mark.parametrize("status", ["500 Internal Server Error", "404 Not Found", "401 Unauthorized"])
async def test_an_error_of_the_api_stays_the_apis(gateway: Gateway, status: str) -> None:
    """Only the check's own failure becomes a 503: an API's 500 must be seen as what it is."""
    gateway.api.answer = f"HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\noops".encode()
    answer = await gateway.client.get("/", headers=gateway.bearer())
    assert f"{answer.status_code} {answer.reason_phrase}" == status
    assert answer.text == "oops"


async def test_without_a_sidecar_nothing_passes(tmp_path: Path) -> None:
    """A check that cannot be made is neither a yes nor a no: 503, come back."""
    async with guarding(tmp_path, sidecar=free_port()) as gateway:
        answer = await gateway.client.get("/", headers={"Authorization": "Bearer t"})
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert gateway.api.requests == []


async def test_an_expired_replica_is_a_503_and_recovers(composition: Composition, tmp_path: Path) -> None:
    """A sidecar that has heard nothing for too long may have missed a revocation: it says so, and so does nginx."""
    limits = {"KEYTURN_FRESHNESS__STALE": "1.5", "KEYTURN_FRESHNESS__EXPIRED": "2.5"}
    assert await composition.end("sidecar") == 0
    composition.start("sidecar", variables=limits)
    await eventually(composition.ready, within_seconds=30, saying=composition.last_words)
    async with guarding(tmp_path, sidecar=composition.ports[8410]) as gateway:
        gateway.token = await new_token(composition)

        async def answers(status: int) -> bool:
            answer = await gateway.client.get("/", headers=gateway.bearer())
            assert answer.status_code in (200, 503)
            assert answer.status_code == 200 or answer.headers["Retry-After"] == "1"
            return answer.status_code == status

        await eventually(lambda: answers(200))
        composition.freeze("valkey")
        try:
            await eventually(lambda: answers(503), within_seconds=10)
            before = len(gateway.api.requests)
            assert await answers(503)
            assert len(gateway.api.requests) == before
        finally:
            composition.thaw("valkey")
        await eventually(lambda: answers(200), within_seconds=15, saying=composition.last_words)
    assert await composition.end("sidecar") == 0
    composition.start("sidecar")
    await eventually(composition.ready, within_seconds=30, saying=composition.last_words)
