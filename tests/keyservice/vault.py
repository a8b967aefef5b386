"""A stand-in that speaks the documented HTTP API of Vault's Transit engine, as far as sealing uses it.

It is not Vault: no real one runs in these tests. Forms and statuses follow the Transit API's reference.
"""

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyturn import entropy

TOKEN = "hvs.stand-in"


@dataclass
class Vault:
    """One AEAD key with its versions; `answer_only` makes every answer that status."""

    versions: list[AESGCM] = field(default_factory=lambda: [AESGCM(entropy.token_bytes(32))])
    answer_only: int | None = None
    url: str = ""

    def rotate(self) -> None:
        """Add a version, which encrypts from now on."""
        self.versions.append(AESGCM(entropy.token_bytes(32)))

    async def handle(self, request: web.Request) -> web.Response:
        """Answer `GET keys/NAME`, `POST encrypt/NAME` and `POST decrypt/NAME`."""
        if self.answer_only is not None:
            return web.json_response({"errors": []}, status=self.answer_only)
        if request.headers.get("X-Vault-Token") != TOKEN:
            return web.json_response({"errors": ["permission denied"]}, status=403)
        body = await request.json() if request.can_read_body else {}
        match request.method, request.match_info["verb"]:
            case "GET", "keys":
                return _data(latest_version=len(self.versions), type="aes256-gcm96")
            case "POST", "encrypt":
                return _data(ciphertext=self._encrypt(body), key_version=len(self.versions))
            case "POST", "decrypt":
                return self._decrypt(body)
        return web.json_response({"errors": ["unsupported path"]}, status=404)

    def _encrypt(self, body: dict[str, Any]) -> str:
        nonce = entropy.token_bytes(12)
        sealed = self.versions[-1].encrypt(nonce, b64decode(body["plaintext"]), b64decode(body["associated_data"]))
        return f"vault:v{len(self.versions)}:{b64encode(nonce + sealed).decode()}"

    def _decrypt(self, body: dict[str, Any]) -> web.Response:
        _, version, sealed = body["ciphertext"].split(":")
        try:
            box, raw = self.versions[int(version[1:]) - 1], b64decode(sealed)
            plain = box.decrypt(raw[:12], raw[12:], b64decode(body["associated_data"]))
        except (IndexError, ValueError, InvalidTag):
            return web.json_response({"errors": ["cipher: message authentication failed"]}, status=400)
        return _data(plaintext=b64encode(plain).decode())


@asynccontextmanager
async def vault_at() -> AsyncIterator[Vault]:
    """Run the stand-in on loopback."""
    vault = Vault()
    app = web.Application()
    app.router.add_route("*", "/v1/transit/{verb}/keyturn", vault.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    vault.url = f"http://{host}:{port}"
    try:
        yield vault
    finally:
        await runner.cleanup()


def _data(**members: Any) -> web.Response:
    return web.json_response({"data": members})
