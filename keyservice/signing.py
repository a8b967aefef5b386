"""The signing listener: other services send assertions and claims over a unix socket, and get tokens back."""

from typing import Annotated

import msgspec
from aiohttp import web

from keyservice.signer import Request, Signer
from keyturn.clock import Clock
from keyturn.contract.assertions import LIFE_SECONDS, open_assertion
from keyturn.contract.encoding import count_members, refuse_duplicates
from keyturn.contract.errors import AssertionRefused, ForgedSignature, MalformedInput
from keyturn.contract.trust import Identity, IdentityKind
from keyturn.verifier.replica import Replica
from serving.problems import Style, json_answer
from serving.routing import add_route

SCHEME = "Keyturn-Assertion"
SERVICE_HEADER = "X-Keyturn-Service"
MOST_TOKENS = 256
LARGEST_BODY_BYTES = 512 * 1024
_MOST_SPENT = 200_000


class SpentAssertions:
    """The assertion ids of the last minute: each is good for one request. Full means refuse, never forget early."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._recent: set[str] = set()
        self._older: set[str] = set()
        self._turned = clock.boottime()

    def spend(self, jti: str) -> bool:
        """Take an id; False if it was taken before."""
        now = self._clock.boottime()
        if now - self._turned > 2 * LIFE_SECONDS:
            self._recent, self._older, self._turned = set(), self._recent, now
        if jti in self._recent or jti in self._older or len(self._recent) >= _MOST_SPENT:
            return False
        self._recent.add(jti)
        return True


class SigningEndpoint:
    """`POST /sign`: `{"tokens": [{"typ", "claims", "alg"?}]}` to `{"tokens": ["eyJ…"]}`, all or none."""

    def __init__(self, signer: Signer, replica: Replica, clock: Clock) -> None:
        self._signer, self._replica, self._clock = signer, replica, clock
        self._spent = SpentAssertions(clock)

    def add_routes(self, app: web.Application) -> None:
        """Serve `POST /sign`."""
        operation = {"summary": "Sign tokens for a service"}
        add_route(app, "POST", "/sign", self.sign, style=Style.PROBLEM, operation=operation)

    async def sign(self, request: web.Request) -> web.Response:
        """Check who asks and for what, then sign."""
        body = await request.read()
        identity = self._identify(request, body)
        wanted = _read(body)
        return json_answer({"tokens": self._signer.sign_all(wanted, identity=identity)})

    def _identify(self, request: web.Request, body: bytes) -> Identity:
        service = request.headers.get(SERVICE_HEADER, "")
        scheme, _, assertion = request.headers.get("Authorization", "").partition(" ")
        identity = self._replica.trust.document.identities.get(service)
        if scheme != SCHEME or identity is None or identity.kind is not IdentityKind.SERVICE:
            raise AssertionRefused(f"send {SERVICE_HEADER} and a {SCHEME} by that service")
        try:
            opened = open_assertion(
                assertion.encode("utf-8", "surrogateescape"), self._replica.trust, service=service,
                method=request.method, path=request.path, body=body, now=self._clock.now(),
                skew_seconds=self._replica.freshness.skew_seconds,
            )  # fmt: skip
        except ForgedSignature as error:
            raise AssertionRefused(str(error)) from error
        if not self._spent.spend(opened.jti):
            raise AssertionRefused("the assertion was used before")
        return identity


class _Body(msgspec.Struct):
    tokens: Annotated[list[Request], msgspec.Meta(min_length=1, max_length=MOST_TOKENS)]


_BODY = msgspec.json.Decoder(_Body)


def _read(body: bytes) -> list[Request]:
    try:
        tokens = _BODY.decode(body).tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput(
            f"tokens is a list of 1 to {MOST_TOKENS} requests: typ is a string, claims an object, perhaps alg a string"
        ) from error
    members = 1 + sum(2 + (one.alg is not None) + count_members(one.claims) for one in tokens)
    refuse_duplicates(body, members=members)
    return tokens
