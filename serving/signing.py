"""Has tokens signed by the key service, over its unix socket; those that are asked for together go together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

from aiohttp import ClientError, ClientSession, ClientTimeout, UnixConnector

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.assertions import sign_assertion
from keyturn.contract.encoding import decode_object, encode_json
from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import MalformedInput, SignerMissing, SignerUnavailable, SigningRefused
from serving.gathering import Gathering

PATH = "/sign"
MOST_TOGETHER = 256  # What the signer takes in one request,
LARGEST_BODY_BYTES = 512 * 1024  # and how large that may be.
MOST_WAITING = 2048
ANSWER_SECONDS = 3.0
CONNECT_SECONDS = 1.0
_SIGNED, _FORBIDDEN = 200, 403


class Unsigned(NamedTuple):
    """A token before its signature; the signer adds `iss` and `iat`, and caps `exp`."""

    typ: str
    claims: Mapping[str, Any]


class Signer(Protocol):
    """Who has claims signed: the key service, or nobody. An async context manager."""

    async def __aenter__(self) -> Self:
        """Open the way there."""
        ...

    async def __aexit__(self, *error: object) -> None:
        """Close it."""
        ...

    async def sign(self, typ: str, claims: Mapping[str, Any]) -> str:
        """Return the compact JWS of these claims; raises SigningRefused, SignerUnavailable or SignerMissing."""
        ...


class NoSigner:
    """What a service has that was not told of a signer: it serves, but for what asks for a signature."""

    def __init__(self, service: str) -> None:
        self._service = service

    async def __aenter__(self) -> Self:
        """Open nothing."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close nothing."""

    async def sign(self, typ: str, claims: Mapping[str, Any]) -> str:  # noqa: ARG002 - see the protocol
        """Raise SignerMissing, which names the settings."""
        raise SignerMissing(typ=typ, service=self._service)


class SigningClient:
    """The key service as this service sees it; use it as an async context manager."""

    def __init__(self, socket: Path, key: StatementKey, clock: Clock, *, service: str) -> None:
        self._socket, self._key, self._clock, self._service = socket, key, clock, service
        self._session: ClientSession | None = None
        self._signing: Gathering[Unsigned, str | SigningRefused] = Gathering(
            self._sign_all, most_together=MOST_TOGETHER, most_waiting=MOST_WAITING
        )

    async def __aenter__(self) -> Self:
        """Open the client; nothing is sent yet."""
        timeout = ClientTimeout(total=ANSWER_SECONDS, connect=CONNECT_SECONDS)
        self._session = ClientSession(connector=UnixConnector(str(self._socket)), timeout=timeout)
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    async def sign(self, typ: str, claims: Mapping[str, Any]) -> str:
        """Return the compact JWS of these claims.

        Raises SigningRefused for what this service may not have signed, SignerUnavailable where the signer cannot be
        reached or cannot sign now.
        """
        token = await self._signing.ask(Unsigned(typ, claims))
        if isinstance(token, SigningRefused):
            raise SigningRefused(*token.args)
        return token

    async def _sign_all(self, wanted: Sequence[Unsigned]) -> Sequence[str | SigningRefused]:
        try:
            return await self._send(wanted)
        except SigningRefused as refused:
            if len(wanted) == 1:
                return [refused]
        # All or none: one that is refused must not take the others along.
        return [answer for one in wanted for answer in await self._sign_all([one])]

    async def _send(self, wanted: Sequence[Unsigned]) -> list[str]:
        body = encode_json({"tokens": [one._asdict() for one in wanted]})
        if len(body) > LARGEST_BODY_BYTES and len(wanted) > 1:
            half = len(wanted) // 2
            return [*await self._send(wanted[:half]), *await self._send(wanted[half:])]
        try:
            status, answer = await self._post(body)
        except (ClientError, OSError):
            # A connection that the signer closed while it was idle; a token signed twice harms nobody.
            status, answer = await self._post_again(body)
        if status == _FORBIDDEN:
            raise SigningRefused("the signer refuses; compare the identity's may_sign in the trust document")
        if status != _SIGNED:
            raise SignerUnavailable(f"the signer answered {status}")
        return _read_tokens(answer, len(wanted))

    async def _post_again(self, body: bytes) -> tuple[int, bytes]:
        try:
            return await self._post(body)
        except (ClientError, OSError) as error:
            raise SignerUnavailable(f"the signer cannot be reached: {type(error).__name__}") from error

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        if self._session is None:
            raise SignerUnavailable("the signing client is not open")
        now = self._clock.now()
        assertion = sign_assertion(
            self._key, service=self._service, method="POST", path=PATH, body=body, now=now, jti=entropy.uuid7(now)
        )
        headers = {
            "Authorization": f"Keyturn-Assertion {assertion}",
            "X-Keyturn-Service": self._service,
            "Content-Type": "application/json",
        }
        try:
            async with self._session.post(f"http://signer{PATH}", data=body, headers=headers) as answer:
                return answer.status, await answer.read()
        except TimeoutError as error:
            raise SignerUnavailable("the signer did not answer in time") from error


def _read_tokens(answer: bytes, count: int) -> list[str]:
    try:
        tokens = decode_object(answer).get("tokens")
    except MalformedInput as error:
        raise SignerUnavailable("the signer's answer cannot be read") from error
    if not isinstance(tokens, list) or len(tokens) != count or not all(isinstance(one, str) for one in tokens):
        raise SignerUnavailable("the signer's answer is not what was asked for")
    return tokens
