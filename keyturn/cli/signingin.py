"""Signs a person in at a terminal (RFC 8252): a link to visit, a loopback port to come back to, PKCE in between."""

import asyncio
import hmac
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import web

from keyturn import entropy
from keyturn.cli.answers import CannotTell
from keyturn.cli.origin import Origin, granted
from keyturn.cli.tables import Printer, plain
from keyturn.contract.encoding import b64url, digest

PATH: Final = "/callback"
WAIT_SECONDS: Final = 300.0
_SECRET_BYTES: Final = 32
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """One attempt: who asks for what, and the secrets by which its answer is known."""

    issuer: str
    client_id: str
    asked: Mapping[str, str]
    state: str
    verifier: str

    @classmethod
    def begin(cls, issuer: str, client_id: str, asked: Mapping[str, str]) -> "SignIn":
        """Return a new attempt."""
        state, verifier = (b64url(entropy.token_bytes(_SECRET_BYTES)) for _ in range(2))
        return cls(issuer=issuer, client_id=client_id, asked=asked, state=state, verifier=verifier)

    def link(self, redirect_uri: str) -> str:
        """Return what the person has to visit."""
        return f"{self.issuer}/authorize?" + urlencode({
            "response_type": "code", "client_id": self.client_id, "redirect_uri": redirect_uri, "state": self.state,
            "code_challenge": digest(self.verifier.encode("ascii")), "code_challenge_method": "S256", **self.asked,
        })  # fmt: skip

    def is_answered_by(self, told: Mapping[str, str]) -> bool:
        """Say whether an answer belongs to this attempt, by its `state`; compares in constant time."""
        return hmac.compare_digest(told.get("state", "").encode("utf-8"), self.state.encode("ascii"))

    def code_of(self, told: Mapping[str, str]) -> str:
        """Return the code of an answer; raises CannotTell for another issuer's (RFC 9207, 2.4) and for a refusal."""
        if told.get("iss") != self.issuer:
            raise CannotTell("the answer comes from another issuer than was asked; nothing was sent to it")
        if "error" in told:
            raise CannotTell(f"nobody signed in: {plain(told.get('error_description') or told['error'])[:200]}")
        if "code" not in told:
            raise CannotTell("the answer has no code")
        return told["code"]


async def sign_in(
    issuer: Origin,
    attempt: SignIn,
    printer: Printer,
    *,
    more: Mapping[str, str],
    wait_seconds: float = WAIT_SECONDS,
) -> dict[str, Any]:
    """Return the token answer for the person who signs in by the link that is printed; raises CannotTell.

    `more` is sent along when the code is exchanged.
    """
    answer: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()
    app = web.Application()
    app.router.add_get(PATH, _receiver(attempt, answer))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        redirect_uri = f"http://127.0.0.1:{runner.addresses[0][1]}{PATH}"
        printer.aside(f"visit {attempt.link(redirect_uri)}")
        try:
            async with asyncio.timeout(wait_seconds):
                told = await answer
        except TimeoutError as error:
            raise CannotTell(f"nobody came back within {wait_seconds:g} s") from error
    finally:
        await runner.cleanup()
    form = {
        "grant_type": "authorization_code", "code": attempt.code_of(told), "redirect_uri": redirect_uri,
        "code_verifier": attempt.verifier, "client_id": attempt.client_id, **more,
    }  # fmt: skip
    return granted(await issuer.ask("POST", "/token", form=form, accept=(200, 400, 401)))


def _receiver(attempt: SignIn, answer: "asyncio.Future[Mapping[str, str]]") -> Any:
    async def receive(request: web.Request) -> web.Response:
        told = dict(request.query)
        if len(told) != len(request.query) or not attempt.is_answered_by(told):
            return web.Response(status=400, text="This is not the sign-in that is waited for.\n", headers=_HEADERS)
        with suppress(asyncio.InvalidStateError):  # The first one counts.
            answer.set_result(told)
        return web.Response(text="Back to the terminal: this window can be closed.\n", headers=_HEADERS)

    return receive
