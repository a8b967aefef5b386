"""Where users come in: the authorization service with a sign-in page, a browser, and clients that send it there."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import ClientSession

from authorization.app import AuthorizationService
from authorization.pkce import challenge_of
from keyturn import entropy
from keyturn.contract.credentials import secret_hash
from keyturn.contract.encoding import b64url, encode_json
from keyturn.contract.jwk import ed25519_private_jwk
from keyturn.contract.trust import Client
from serving.service import Service
from tests.building import SECRETS, Standing, basic, new_secret, serving_at, write_secret
from tests.world import AUDIENCE

APP, WEB, SIGN_IN = "app", "web", "signin"
CODE_GRANTS = ("authorization_code", "refresh_token")
WEB_SECRET = new_secret()
OTHER = "https://two.example/v1"
BACK = {APP: "http://127.0.0.1/callback", WEB: "https://web.example/back?tenant=1"}
PAGE = "https://login.example/page?from=keyturn"
OF_USERS: Mapping[str, Client] = {
    APP: Client(secret_hash="", grant_types=CODE_GRANTS, scopes=("read", "write"), audiences=(AUDIENCE, OTHER)),
    WEB: Client(
        secret_hash=secret_hash(WEB_SECRET), grant_types=CODE_GRANTS, scopes=("read", "keyturn:admin"),
        audiences=(AUDIENCE,),
    ),
    SIGN_IN: Client(
        secret_hash=secret_hash(SECRETS["client"]), grant_types=("client_credentials",), scopes=("keyturn:login",),
        audiences=("keyturn:login",), always_opaque=True,
    ),
}  # fmt: skip
ROLES: dict[str, Any] = {f"redirects:{name}": ({"uri": uri},) for name, uri in BACK.items()}


@dataclass
class Browser:
    """A user's browser: it keeps the one cookie, and follows nobody by itself."""

    http: ClientSession
    cookie: str = ""

    async def open(self, method: str = "GET", path: str = "/authorize", **content: Any) -> "Seen":
        """Ask, and see what comes back."""
        headers = {"Cookie": self.cookie} if self.cookie else {}
        async with self.http.request(method, path, headers=headers, allow_redirects=False, **content) as answer:
            text = await answer.text()
            if "Set-Cookie" in answer.headers:
                self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
            return Seen(answer.status, dict(answer.headers), text)


@dataclass(frozen=True)
class Seen:
    """What a browser was answered."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def location(self) -> str:
        """Return where it is sent to, without what is told along."""
        return self.headers["Location"].partition("?")[0]

    @property
    def told(self) -> dict[str, str]:
        """Return what is told along, each name once."""
        pairs = parse_qsl(urlsplit(self.headers["Location"]).query, strict_parsing=True, keep_blank_values=True)
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)


@dataclass
class Door:
    """The service, and everybody who comes to it."""

    stage: Standing
    http: ClientSession
    verifier: str = field(default_factory=lambda: b64url(entropy.token_bytes(32)))
    page_token: str = ""

    def browser(self) -> Browser:
        """Return a browser that was never here."""
        return Browser(self.http)

    def asked(self, client_id: str = APP, **changes: str | None) -> dict[str, str]:
        """Return a good authorization request, with changed parameters; None takes one out."""
        members: dict[str, str | None] = {
            "response_type": "code", "client_id": client_id, "redirect_uri": BACK.get(client_id, BACK[APP]),
            "state": "s t/a=t&e", "code_challenge": challenge_of(self.verifier), "code_challenge_method": "S256",
        }  # fmt: skip
        return {name: value for name, value in (members | changes).items() if value is not None}

    async def begin(self, browser: Browser, client_id: str = APP, **changes: str | None) -> str:
        """Begin to sign in, and return the challenge that the sign-in page gets."""
        seen = await browser.open(params=self.asked(client_id, **changes))
        assert seen.status == 303, seen.text
        assert seen.location == PAGE.partition("?")[0]
        return seen.told["login_challenge"]

    async def page(self, method: str, challenge: str, **content: Any) -> tuple[int, Any]:
        """Ask as the sign-in page does."""
        if not self.page_token:
            self.page_token = await self.stage.put_opaque(client_id=SIGN_IN, sub=SIGN_IN, scope="keyturn:login")
        headers = {"Authorization": f"Bearer {self.page_token}"}
        async with self.http.request(method, f"/logins/{challenge}", headers=headers, **content) as answer:
            return answer.status, await answer.json(content_type=None)

    async def let_in(self, challenge: str, sub: str = "alice", **more: Any) -> str:
        """Say who the user is, and return the path by which the browser comes back."""
        status, content = await self.page("POST", challenge, json={"sub": sub, **more})
        assert status == 200, content
        return str(content["redirect_to"]).removeprefix(self.stage.world.issuer)

    async def code(self, client_id: str = APP, *, sub: str = "alice", **changes: str | None) -> str:
        """Sign a user in, and return the code that the client gets."""
        browser = self.browser()
        back = await self.let_in(await self.begin(browser, client_id, **changes), sub)
        seen = await browser.open(path=back)
        assert seen.status == 303, seen.text
        return seen.told["code"]

    async def redeem(self, good: str, client_id: str = APP, **changes: str | None) -> tuple[int, Any]:
        """Ask for the tokens of a code, as its client unless something is changed."""
        members: dict[str, str | None] = {
            "grant_type": "authorization_code", "code": good, "redirect_uri": BACK.get(client_id, BACK[APP]),
            "code_verifier": self.verifier, "client_id": client_id,
        }  # fmt: skip
        form = {name: value for name, value in (members | changes).items() if value is not None}
        headers = basic(WEB, WEB_SECRET) if client_id == WEB else {}
        async with self.http.post("/token", data=form, headers=headers) as answer:
            assert answer.headers["Cache-Control"] == "no-store"
            return answer.status, await answer.json()


@asynccontextmanager
async def door_on(
    stage: Standing, identity: Any, directory: Path, *, signer: str, beside: tuple[Service, ...] = ()
) -> AsyncIterator[Door]:
    """Serve the authorization service with a sign-in page of somebody's."""
    write_secret(directory / "identity.jwk", encode_json(ed25519_private_jwk(identity)).decode())
    own = {"identity_file": "identity.jwk", "signer": signer, "signin_url": PAGE}
    service = AuthorizationService(stage.settings(directory, authorization=own), stage.parts)
    async with serving_at([*beside, service], stage.parts) as http:
        yield Door(stage, http)
