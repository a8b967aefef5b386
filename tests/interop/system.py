"""The whole system as `make up` runs it, for clients of other makers."""

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from keyturn.clock import SystemClock
from keyturn.process.parent import tied
from stack.devenv import read_dev_env
from stack.plan import Orders, prepare
from stack.ports import free_port
from tests.waiting import eventually

AUDIENCE = "https://api.example"
ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class System:
    """Where a running system is, by the names of its `dev.env`."""

    env: dict[str, str]
    log: Path

    @property
    def issuer(self) -> str:
        """Return the issuer."""
        return self.env["KEYTURN_ISSUER"]

    def credentials(self, role: str) -> tuple[str, str]:
        """Return a client's id and secret: CLIENT, RESOURCE or ADMIN."""
        return self.env[f"KEYTURN_{role}_ID"], self.env[f"KEYTURN_{role}_SECRET"]

    async def metadata(self) -> dict[str, Any]:
        """Return what the issuer says of itself (RFC 8414)."""
        async with httpx2.AsyncClient() as client:
            answer = await client.get(f"{self.issuer}/.well-known/oauth-authorization-server")
        return dict(answer.raise_for_status().json())

    async def new_token(self, role: str = "CLIENT") -> str:
        """Return a fresh access token."""
        async with httpx2.AsyncClient() as client:
            answer = await client.post(
                f"{self.issuer}/token", data={"grant_type": "client_credentials"}, auth=self.credentials(role)
            )
        return str(answer.raise_for_status().json()["access_token"])

    async def rotate(self, use: str = "access") -> str:
        """Rotate the signing key of a use, and return the kid of the one that signs next."""
        return str((await self.order("/keys/rotate", {"use": use}))["kid"])

    async def revoke_key(self, kid: str) -> str:
        """Reject a key by name, and return the kid of its successor."""
        return str((await self.order(f"/keys/{kid}/revoke"))["kid"])

    async def order(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Order something as an operator, wait until all verifiers have adopted it, and return the receipt."""
        bearer = {"Authorization": f"Bearer {await self.new_token('ADMIN')}"}
        async with httpx2.AsyncClient(timeout=10) as client:
            answer = await client.post(f"{self.issuer}{path}?wait=all", headers=bearer, json=body or {})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@asynccontextmanager
async def running_system(settings: str = "", *, port: int | None = None) -> AsyncIterator[System]:
    """Run `python -m stack up` in a directory of its own until the block ends, on a free port if none is named.

    `settings` are lines at the end of its `keyturn.toml`, where `[policy.default]` stands.
    """
    with tempfile.TemporaryDirectory(prefix="keyturn-") as name:
        directory = Path(name)
        env_file, log = directory / "system/dev.env", directory / "log"
        process = _start(directory, log, settings, port or free_port())
        try:
            await eventually(
                lambda: env_file.exists() or process.poll() is not None,
                within_seconds=_START_SECONDS, saying=log.read_text,
            )  # fmt: skip
            assert process.poll() is None, log.read_text()
            yield System(read_dev_env(env_file), log)
        finally:
            process.terminate()
            await eventually(lambda: process.poll() is not None, within_seconds=20, saying=log.read_text)


def _start(directory: Path, log: Path, settings: str, port: int) -> subprocess.Popen[bytes]:
    orders = Orders(directory=directory / "system", port=port, sidecar_port=free_port())
    prepare(orders, now=SystemClock().now())
    with (orders.directory / "keyturn.toml").open("a") as file:
        file.write(settings)
    command = [sys.executable, "-m", "stack", "up", "--port", str(orders.port)]
    command += ["--sidecar-port", str(orders.sidecar_port)]
    with log.open("wb") as out:
        return subprocess.Popen(
            tied([*command, "--dir", str(directory / "system"), "--sidecars", "1"]),
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT,
        )  # fmt: skip
