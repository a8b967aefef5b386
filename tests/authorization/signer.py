"""A signer on a unix socket, as the key service is one: checks the assertion, signs by the world's active key."""

from typing import Any

from aiohttp import web

from keyservice.signing import LARGEST_BODY_BYTES
from keyturn.contract.assertions import open_assertion
from keyturn.contract.encoding import decode_object, encode_json
from keyturn.contract.errors import ForgedSignature
from keyturn.contract.purposes import PURPOSES
from keyturn.contract.trust import IdentityKind
from tests.building import Standing


class FakeSigner:
    """Signs `POST /sign`; a test can make it fail in the ways that a real one does."""

    def __init__(self, stage: Standing) -> None:
        """Begin without a fault."""
        self._stage = stage
        self.batches: list[int] = []
        self.status = 200
        self.answer: bytes | None = None
        self.longest_seconds = 86_400.0
        self.late_seconds = 0
        self.kids: dict[str, str] = {}  # By type, where it is not the world's.

    def application(self) -> web.Application:
        """Return it as an application."""
        app = web.Application(client_max_size=LARGEST_BODY_BYTES)
        app.router.add_post("/sign", self.sign)
        return app

    async def sign(self, request: web.Request) -> web.Response:
        """Answer as interfaces between services say."""
        body = await request.read()
        service = request.headers["X-Keyturn-Service"]
        assertion = request.headers["Authorization"].removeprefix("Keyturn-Assertion ")
        trust, now = self._stage.parts.replica.trust, self._stage.world.clock.now()
        try:
            open_assertion(
                assertion.encode(), trust, service=service, method="POST", path="/sign", body=body, now=now,
                skew_seconds=2,
            )  # fmt: skip
        except ForgedSignature:
            return web.Response(status=401)
        if self.status != 200:
            return web.Response(status=self.status)
        wanted = decode_object(body)["tokens"]
        self.batches.append(len(wanted))
        allowed = {one.typ for one in trust.document.identities[service].may_sign}
        if trust.identity(service, IdentityKind.SERVICE) and any(
            one["typ"] not in allowed or one["claims"].get("sub") == "refused" for one in wanted
        ):
            return web.Response(status=403)
        if self.answer is not None:
            return web.Response(body=self.answer)
        signed = [self._signed(one) for one in wanted]
        await self.meanwhile()
        return web.Response(body=encode_json({"tokens": signed}))

    async def meanwhile(self) -> None:
        """Stand in for what else happens between a signature and its answer; a test replaces it."""

    def _signed(self, one: dict[str, Any]) -> str:
        world, now, typ = self._stage.world, int(self._stage.world.clock.now()), one["typ"]
        kid = self.kids.get(typ, world.signing_kid)
        claims = {**one["claims"], "iss": world.issuer, "iat": now}
        if PURPOSES[typ].expires:
            claims["exp"] = int(min(claims["exp"], now + self.longest_seconds)) + self.late_seconds
        header = {"alg": world.algorithms[kid], "kid": kid, "typ": typ}
        return world.sign_raw(encode_json(header), encode_json(claims), kid=kid).decode()


def unsigned(**claims: Any) -> dict[str, Any]:
    """Return claims as the authorization service sends them."""
    return {"sub": "client", "aud": "https://api.example", "exp": 2_000_000_000, **claims}
