"""How a browser is known again while its user signs in elsewhere: by a cookie that no script reads."""

import hmac
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from keyturn import entropy
from keyturn.contract.encoding import b64url, digest, unb64url
from keyturn.contract.errors import MalformedInput

_SECRET_BYTES: Final = 32
_LENGTH: Final = 43


class BrowserCookie:
    """The cookie of an issuer: `__Host-` where it has TLS, so that no neighbouring host can set or read it."""

    def __init__(self, issuer: str, *, lasting_seconds: float) -> None:
        """Let it last for so long after each use; an issuer without TLS is on loopback."""
        self._secure, self._seconds = urlsplit(issuer).scheme == "https", int(lasting_seconds)
        self.name = "__Host-keyturn-sign-in" if self._secure else "keyturn-sign-in"

    def read(self, request: web.Request) -> str | None:
        """Return what a browser is known by, None if it brings nothing that we could have made."""
        text = request.cookies.get(self.name, "")
        try:
            return text if len(text) == _LENGTH and len(unb64url(text)) == _SECRET_BYTES else None
        except MalformedInput:
            return None

    def give(self, response: web.Response, browser: str) -> None:
        """Have a browser bring it from now on, also when another site sends its user here (`Lax`)."""
        response.set_cookie(
            self.name, browser, max_age=self._seconds, path="/", httponly=True, secure=self._secure, samesite="Lax"
        )


def new_browser() -> str:
    """Return what a browser may be known by."""
    return b64url(entropy.token_bytes(_SECRET_BYTES))


def known_by(browser: str) -> str:
    """Return how we remember a browser: by a hash, which opens nothing."""
    return digest(b"keyturn browser\0" + browser.encode("ascii"))


def is_browser_of(known: str, browser: str | None) -> bool:
    """Say whether it is the one that we remember; compares in constant time."""
    return browser is not None and hmac.compare_digest(known_by(browser), known)
