"""A KEK that never leaves Vault or OpenBao: wrapping by their Transit engine over HTTP."""

import re
from base64 import b64decode, b64encode
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from keyservice.wrapping import SealedKeyUnreadable
from keyturn.contract.errors import WrapperUnavailable
from keyturn.process.values import Secret

ANSWER_SECONDS = 5.0
_PREFIX = b"transit\0"
_CIPHERTEXT = re.compile(r"vault:v(\d+):[A-Za-z0-9+/=]+")


class TransitWrapper:
    """Wraps by `encrypt` and `decrypt` of one Transit key, with associated data (an AEAD key type, aes256-gcm96).

    The wrapped form is `transit`, NUL, and the engine's own ciphertext, which names the key's version. A session
    belongs to the event loop, so each call opens its own: keys are opened once, not for each signature.
    """

    def __init__(self, *, url: str, mount: str, key: str, token: Secret) -> None:
        self._base, self._key, self._token = f"{url.rstrip('/')}/v1/{mount}", key, token

    def __repr__(self) -> str:
        """Name the key, never the token."""
        return f"TransitWrapper({self._key})"

    async def current(self) -> str:
        """Return the newest version of the key, by `GET /keys/NAME`."""
        told = await self._ask("GET", f"keys/{self._key}")
        version = told.get("latest_version")
        if not isinstance(version, int):
            raise WrapperUnavailable("Transit told no latest_version")
        return self._id(version)

    async def wrap(self, raw: bytes, *, bound: bytes) -> bytes:
        """Wrap by the newest version of the key."""
        told = await self._ask("POST", f"encrypt/{self._key}", plaintext=_b64(raw), associated_data=_b64(bound))
        ciphertext = told.get("ciphertext")
        if not isinstance(ciphertext, str) or _CIPHERTEXT.fullmatch(ciphertext) is None:
            raise WrapperUnavailable("Transit told no ciphertext")
        return _PREFIX + ciphertext.encode("ascii")

    async def unwrap(self, wrapped: bytes, *, bound: bytes) -> bytes:
        """Unwrap by the version that the ciphertext names."""
        ciphertext = self._ciphertext(wrapped)
        told = await self._ask("POST", f"decrypt/{self._key}", ciphertext=ciphertext, associated_data=_b64(bound))
        try:
            return b64decode(told["plaintext"], validate=True)
        except (KeyError, TypeError, ValueError) as error:
            raise WrapperUnavailable("Transit told no plaintext") from error

    def kek_of(self, wrapped: bytes) -> str:
        """Return the key and version that wrapped this; empty for what Transit never made."""
        match = _CIPHERTEXT.fullmatch(wrapped.removeprefix(_PREFIX).decode("ascii", "replace"))
        return self._id(int(match[1])) if match and wrapped.startswith(_PREFIX) else ""

    def is_foreign(self, wrapped: bytes) -> bool:  # noqa: ARG002 - see the protocol
        """Say no: Transit holds every version of its key, and what it does not open was edited or is given up."""
        return False

    def _ciphertext(self, wrapped: bytes) -> str:
        if not self.kek_of(wrapped):
            raise SealedKeyUnreadable("not sealed by Transit")
        return wrapped.removeprefix(_PREFIX).decode("ascii")

    def _id(self, version: int) -> str:
        return f"transit:{self._key}:v{version}"

    async def _ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        headers = {"X-Vault-Token": self._token.reveal_text(), "X-Vault-Request": "true"}
        try:
            async with (
                ClientSession(timeout=ClientTimeout(total=ANSWER_SECONDS)) as http,
                http.request(method, f"{self._base}/{path}", json=body or None, headers=headers) as answer,
            ):
                told = await answer.json(content_type=None) if answer.status in (200, 400) else {}
                status = answer.status
        except (ClientError, OSError, ValueError) as error:
            raise WrapperUnavailable(f"Transit cannot be reached: {type(error).__name__}") from error
        if status == 400 and path.startswith("decrypt/"):  # noqa: PLR2004 - the engine's word for a bad ciphertext
            raise SealedKeyUnreadable("Transit does not open it: made for another key, or edited")
        if status != 200 or not isinstance(told, dict) or not isinstance(told.get("data"), dict):  # noqa: PLR2004
            raise WrapperUnavailable(f"Transit answered {status}")
        data: dict[str, Any] = told["data"]
        return data


def _b64(raw: bytes) -> str:
    return b64encode(raw).decode("ascii")
