"""One HTTP origin as the command line asks it: an issuer or a sidecar, each failure in one clear line."""

import asyncio
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlsplit

import msgspec
from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, TCPConnector, UnixConnector

from keyturn.cli.answers import CannotTell, OutcomeUnknown, WrongUsage
from keyturn.cli.environment import Credentials
from keyturn.cli.tables import plain
from keyturn.process.settings import is_loopback

ANSWER_SECONDS = 15.0
CONNECT_SECONDS = 3.0
LARGEST_ANSWER_BYTES = 8 * 1024 * 1024
_LONGEST_PROBLEM = 300
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, headers and, where there was any, the JSON, or the text of another type asked for."""

    status: int
    headers: Mapping[str, str]
    body: Any

    def object(self) -> dict[str, Any]:
        """Return the JSON object; raises CannotTell where there is none."""
        if not isinstance(self.body, dict):
            raise CannotTell(f"an answer of status {self.status} that is no JSON object; is this a Keyturn?")
        return self.body

    @property
    def problem(self) -> str:
        """Return what went wrong in the server's words (RFC 9457, RFC 6749), else the status."""
        told = self.body if isinstance(self.body, dict) else {}
        if isinstance(reasons := told.get("reasons"), dict) and reasons:
            return plain([f"{name}: {reason}" for name, reason in reasons.items()])[:_LONGEST_PROBLEM]
        names = ("detail", "title") if "title" in told or "detail" in told else ("error_description", "error", "reason")
        words = next((told[name] for name in names if told.get(name)), f"status {self.status}")
        return plain(words)[:_LONGEST_PROBLEM]


class Origin:
    """One origin, asked with at most one set of credentials for each request; redirects are not followed."""

    def __init__(self, http: ClientSession, url: str, *, shown_as: str) -> None:
        self._http, self._url, self._shown_as = http, url, shown_as

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
        authorization: str | None = None,
        idempotency_key: str | None = None,
        media_type: str = _JSON,
        accept: tuple[int, ...],
    ) -> Answer:
        """Return the answer if its status is one of `accept`; raises CannotTell otherwise. JSON is always taken, too.

        It is OutcomeUnknown where the request was sent and no answer, or 503, came back.
        """
        named = {"Authorization": authorization, "Idempotency-Key": idempotency_key}
        wanted = media_type if media_type == _JSON else f"{media_type}, {_JSON};q=0.5"
        headers = {"Accept": wanted} | {name: text for name, text in named.items() if text is not None}
        body = {"data": form} if form is not None else {"json": json} if json is not None else {}
        with self._reaching():
            async with self._http.request(
                method, self._url + path, params=query, headers=headers, allow_redirects=False, **body
            ) as response:
                raw = await _read(response.content.iter_chunked(65_536))
                text = response.content_type == media_type != _JSON
                answer = Answer(response.status, dict(response.headers), _ascii(raw) if text else _json(raw))
        self._require(method, path, answer, accept)
        return answer

    @asynccontextmanager
    async def lines(
        self, path: str, *, query: Mapping[str, str], authorization: str, sent: bytes | None = None
    ) -> AsyncIterator[tuple[Mapping[str, str], AsyncIterator[bytes]]]:
        """Ask for an answer that comes line by line and may be long; give its headers and its lines.

        With `sent`, lines of JSON, it is a POST of them. Raises CannotTell and OutcomeUnknown as `ask` does.
        """
        headers, patience = {"Authorization": authorization}, ClientTimeout(total=None, sock_read=ANSWER_SECONDS)
        method = "GET"
        if sent is not None:
            method, headers["Content-Type"] = "POST", "application/x-ndjson"
        with self._reaching():
            async with self._http.request(
                method,
                self._url + path,
                params=query,
                headers=headers,
                allow_redirects=False,
                timeout=patience,
                data=sent,
            ) as response:
                if response.status != 200:  # noqa: PLR2004 - HTTP
                    raw = await _read(response.content.iter_chunked(65_536))
                    answer = Answer(response.status, dict(response.headers), _json(raw))
                    self._require(method, path, answer, accept=())
                yield response.headers, _lines(response.content.iter_chunked(65_536))

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except ClientConnectorError as error:
            raise CannotTell(
                f"{self._shown_as} cannot be reached: {_reason(error.os_error)}; is it running?"
            ) from error
        except TimeoutError as error:
            raise OutcomeUnknown(f"{self._shown_as} gave no answer in time") from error
        except (ClientError, OSError, ValueError) as error:
            raise OutcomeUnknown(f"{self._shown_as} broke off: {type(error).__name__}") from error

    def _require(self, method: str, path: str, answer: Answer, accept: tuple[int, ...]) -> None:
        if answer.status not in accept:
            unavailable = answer.status == 503  # noqa: PLR2004 - HTTP
            raise (OutcomeUnknown if unavailable else CannotTell)(self._unexpected(method, path, answer))

    def _unexpected(self, method: str, path: str, answer: Answer) -> str:
        match answer.status:
            case 401:
                return f"{self._shown_as} refused the credentials: {answer.problem}"
            case 403:
                return f"{self._shown_as} does not allow this to these credentials: {answer.problem}"
            case 503:
                later = answer.headers.get("Retry-After")
                again = f"; ask again in {plain(later)} s" if later else "; ask again later"
                return f"{self._shown_as} cannot answer now: {answer.problem}{again}"
        return f"{self._shown_as} answered {answer.status} to {method} {path}: {answer.problem}"


@asynccontextmanager
async def origin(url: str) -> AsyncIterator[Origin]:
    """Open an origin by its URL (http, https or unix:/PATH); raises WrongUsage for anything else.

    Plain http is for this machine only, since tokens and secrets travel on it.
    """
    parts = urlsplit(url)
    timeout = ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
    if parts.scheme == "unix":
        async with ClientSession(connector=UnixConnector(parts.path), timeout=timeout) as http:
            yield Origin(http, "http://localhost", shown_as=url)
        return
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongUsage(f"{plain(url)} is not an http or https URL")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise WrongUsage(f"{plain(url)} would carry tokens and secrets in the clear: use https")
    async with ClientSession(connector=TCPConnector(limit=8), timeout=timeout) as http:
        yield Origin(http, url.rstrip("/"), shown_as=plain(url))


def basic(credentials: Credentials) -> str:
    """Return the Authorization header of a client (RFC 6749, 2.3.1: form-encoded, then base64)."""
    pair = f"{quote_plus(credentials.client_id)}:{quote_plus(credentials.secret)}"
    return "Basic " + b64encode(pair.encode("ascii")).decode("ascii")


def bearer(token: str) -> str:
    """Return the Authorization header of a token (RFC 6750, 2.1)."""
    return "Bearer " + token


async def get_token(issuer: Origin, credentials: Credentials, **asked: str) -> dict[str, Any]:
    """Return the answer of the token endpoint to a client (RFC 6749, 4.4); raises CannotTell."""
    form = {"grant_type": "client_credentials"} | asked
    answer = await issuer.ask("POST", "/token", form=form, authorization=basic(credentials), accept=(200, 400, 401))
    if answer.status == 401:  # noqa: PLR2004 - HTTP
        names = f"KEYTURN_{credentials.role}_ID and KEYTURN_{credentials.role}_SECRET"
        raise CannotTell(f"the issuer refused {names}: {answer.problem}")
    return granted(answer)


async def refreshed(issuer: Origin, client_id: str, token: str, **asked: str) -> Answer:
    """Return what the token endpoint says to a public client that turns a refresh token (RFC 6749, 6)."""
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": client_id} | asked
    return await issuer.ask("POST", "/token", form=form, accept=(200, 400, 401))


def granted(answer: Answer) -> dict[str, Any]:
    """Return an answer of the token endpoint that has a token (RFC 6749, 5.1); raises CannotTell."""
    told = answer.object()
    token = told.get("access_token")
    if answer.status != 200 or not (isinstance(token, str) and token.isascii() and token.isprintable()):  # noqa: PLR2004
        raise CannotTell(f"the issuer gave no token: {answer.problem}")
    return told


async def _read(chunks: AsyncIterator[bytes]) -> bytes:
    raw = bytearray()
    async with asyncio.timeout(ANSWER_SECONDS):
        async for chunk in chunks:
            raw += chunk
            if len(raw) > LARGEST_ANSWER_BYTES:
                raise CannotTell(f"an answer larger than {LARGEST_ANSWER_BYTES} bytes")
    return bytes(raw)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    held = b""
    async for chunk in chunks:
        *whole, held = (held + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(held) > LARGEST_ANSWER_BYTES:
            raise CannotTell(f"a line larger than {LARGEST_ANSWER_BYTES} bytes")
    if held:
        yield held


def _reason(error: OSError) -> str:
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return error.strerror or type(error).__name__  # Name resolution has numbers of its own.


def _ascii(raw: bytes) -> str | None:
    text = raw.decode("ascii", "replace")
    return text if text.isascii() and text.isprintable() else None


def _json(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw) if raw else None
    except msgspec.DecodeError:
        return None
