"""Where the keys of another issuer are read: a file, a URL, or what its own metadata names."""

import asyncio
import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Final, NamedTuple, Protocol
from urllib.parse import SplitResult, urlsplit

from keyturn.clock import Clock
from keyturn.contract.encoding import decode_object
from keyturn.contract.errors import MalformedInput
from keyturn.contract.issuers import ForeignIssuer
from keyturn.verifier.pulling import Answer, pull

LARGEST_SET_BYTES = 256 * 1024
LARGEST_METADATA_BYTES = 64 * 1024
LONGEST_SECONDS = 10.0  # From asking for the metadata to the last byte of the keys.
FILE_SECONDS = 10.0  # A file is looked at so often.
USUAL_AGE_SECONDS, LEAST_AGE_SECONDS, MOST_AGE_SECONDS = 300.0, 60.0, 3600.0
_FOUND: Final = 200
_MAX_AGE = re.compile(r'(?:^|[,\s])max-age="?(\d{1,9})"?(?=$|[,\s;])')
_FORBIDDEN = re.compile(r"(?:^|[,\s])no-(?:store|cache)(?=$|[,\s;=])")


class KeysTold(NamedTuple):
    """A JWK set as it was told, and for how long it need not be read again (seconds)."""

    raw: bytes
    age_seconds: float


class SourceFailed(Exception):
    """The keys could not be read; says why."""


class KeySource(Protocol):
    """What reads the keys of one issuer."""

    async def read(self) -> KeysTold:
        """Return the JWK set; raises SourceFailed."""
        ...


def source_of(issuer: ForeignIssuer, clock: Clock) -> KeySource:
    """Return what reads an issuer's keys, as its description says."""
    if isinstance(issuer.jwks, Path):
        return FileSource(issuer.jwks)
    return HttpSource(issuer.url, clock, url=issuer.jwks)


class FileSource:
    """A JWK set in a file, which may change under a running process."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> KeysTold:
        """Return what the file holds now; raises SourceFailed."""
        try:
            raw = await asyncio.to_thread(self._content)
        except OSError as error:
            raise SourceFailed(f"{self._path} cannot be read: {error.strerror}") from error
        if len(raw) > LARGEST_SET_BYTES:
            raise SourceFailed(f"{self._path} is larger than {LARGEST_SET_BYTES} bytes")
        return KeysTold(raw, FILE_SECONDS)

    def _content(self) -> bytes:
        with self._path.open("rb") as file:
            return file.read(LARGEST_SET_BYTES + 1)


class HttpSource:
    """A JWK set behind a URL; without one, behind the `jwks_uri` of the issuer's metadata.

    The metadata is OpenID Connect Discovery's (section 4), else RFC 8414's (section 3), and has to name the issuer byte
    for byte (RFC 8414, 3.3); it may name a `jwks_uri` on another host, by https, or http where the issuer is on
    loopback itself. Redirects are refused.
    """

    def __init__(self, issuer: str, clock: Clock, *, url: str | None = None) -> None:
        self._issuer, self._clock, self._url = issuer, clock, url
        self._until = float("-inf")

    async def read(self) -> KeysTold:
        """Return the JWK set that is told now; raises SourceFailed."""
        self._until = self._clock.boottime() + LONGEST_SECONDS
        answer = await self._get(urlsplit(self._url or await self._discovered()), most=LARGEST_SET_BYTES)
        if answer.status != _FOUND:
            raise SourceFailed(f"its keys were answered with status {answer.status}")
        return KeysTold(answer.body, age_told(answer.headers))

    async def _discovered(self) -> str:
        status = 0
        for place in metadata_urls(self._issuer):
            answer = await self._get(urlsplit(place), most=LARGEST_METADATA_BYTES)
            if answer.status == _FOUND:
                return jwks_uri(answer.body, issuer=self._issuer)
            status = answer.status
        raise SourceFailed(f"its metadata was answered with status {status}")

    async def _get(self, url: SplitResult, *, most: int) -> Answer:
        try:
            answer = await pull(
                url, f"{url.path or '/'}{'?' if url.query else ''}{url.query}", most_bytes=most,
                overdue=self._overdue, longest_seconds=LONGEST_SECONDS,
            )  # fmt: skip
        except (OSError, HTTPException, ValueError) as error:
            raise SourceFailed(f"{url.hostname} could not be asked: {type(error).__name__}: {error}"[:200]) from error
        if answer is None:
            raise SourceFailed(f"{url.hostname} answers more than {most} bytes, or too slowly")
        return answer

    def _overdue(self) -> bool:
        return self._clock.boottime() > self._until


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Return where an issuer's metadata stands: by OpenID Connect Discovery (4.1), and by RFC 8414 (3.1)."""
    parts, bare = urlsplit(issuer), issuer.removesuffix("/")
    path = parts.path.removesuffix("/")
    return (
        f"{bare}/.well-known/openid-configuration",
        parts._replace(path=f"/.well-known/oauth-authorization-server{path}").geturl(),
    )


def jwks_uri(raw: bytes, *, issuer: str) -> str:
    """Return the `jwks_uri` of an issuer's metadata; raises SourceFailed for that of another, and an unsafe URL."""
    try:
        told = decode_object(raw)
        url = told.get("jwks_uri")
        parts = urlsplit(url if isinstance(url, str) else "")
        well = bool(parts.hostname) and parts.username is None and parts.port != 0
    except (MalformedInput, ValueError) as error:
        raise SourceFailed(f"its metadata cannot be read: {error}"[:200]) from error
    if told.get("issuer") != issuer:
        raise SourceFailed("its metadata names another issuer (RFC 8414, 3.3)")
    if (
        not well
        or not isinstance(url, str)
        or not url.isascii()
        or parts.scheme not in ("https", urlsplit(issuer).scheme)
    ):
        raise SourceFailed("its metadata names no jwks_uri that can be used")
    return url


def age_told(headers: Mapping[str, str]) -> float:
    """Return for how long an answer is good, by Cache-Control and Age (RFC 9111, 4.2 and 5.1): 1 min to 1 h."""
    control = headers.get("cache-control", "").lower()
    if _FORBIDDEN.search(control):
        return LEAST_AGE_SECONDS
    found = _MAX_AGE.search(control)
    if found is None:
        return USUAL_AGE_SECONDS
    past = headers.get("age", "0")
    left = float(found[1]) - (float(past) if past.isascii() and past.isdigit() and len(past) <= len("123456789") else 0)
    return min(max(left, LEAST_AGE_SECONDS), MOST_AGE_SECONDS)
