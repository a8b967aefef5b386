"""`[streams.NAME]`: who is told of revocations, how, and of which."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from keyturn.contract.errors import ConfigurationError
from keyturn.contract.selectors import SelectorKind
from keyturn.process.settings import Section, Settings, is_loopback
from keyturn.process.values import Duration, Range, Secret
from revocation.streams.addresses import is_public

MOST_STREAMS = 32
_NAME = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamSettings(Section):
    """One `[streams.NAME]`: either `push` or `client`."""

    SECTION: ClassVar[str] = "streams"
    audience: str
    """The `aud` of its Security Event Tokens, as the receiver expects it."""
    push: str | None = None
    """The receiver's URL, to which each one is sent."""
    authorization: Secret | None = None
    """A bearer token that the receiver asks for."""
    private_addresses: bool = False
    """Whether `push` may lead to an address that is not public."""
    client: str | None = None
    """The client that may fetch them, by its secret."""
    hold: Annotated[Duration, Range(0, 7 * 86_400)] = 3600.0
    """How long the feed keeps events for a receiver that is behind, above what it keeps for verifiers."""
    selectors: tuple[SelectorKind, ...] = ()
    """Of which revocations it is told; of all, if none is named."""


def read_streams(settings: Settings) -> Mapping[str, StreamSettings]:
    """Return all streams by name; raises ConfigurationError for one that cannot work."""
    streams = settings.named_sections(StreamSettings)
    if len(streams) > MOST_STREAMS:
        raise ConfigurationError(f"{len(streams)} streams are too many", setting="streams",
                                 mend=f"keep {MOST_STREAMS} of them")  # fmt: skip
    for name, stream in streams.items():
        if _NAME.fullmatch(name) is None:
            raise ConfigurationError(
                f"{name!r} cannot stand in a path", setting=f"streams.{name}", mend="name it with a-z, 0-9 and -"
            )
        _check_delivery(f"streams.{name}", stream)
    return streams


def _check_delivery(where: str, stream: StreamSettings) -> None:
    if (stream.push is None) == (stream.client is None):
        raise ConfigurationError(
            "a stream is either pushed or polled", setting=f"{where}.push",
            mend="set push (the receiver's URL) or client (who fetches), not both",
        )  # fmt: skip
    if stream.push is None:
        if stream.authorization is not None or stream.private_addresses:
            raise ConfigurationError(
                "nothing is sent to a receiver that polls", setting=f"{where}.client",
                mend="take authorization_file and private_addresses out",
            )  # fmt: skip
        return
    _check_url(where, stream.push, may_be_private=stream.private_addresses)
    if stream.authorization is not None and not _fits_a_header(stream.authorization):
        raise ConfigurationError(
            "this cannot stand in a header", setting=f"{where}.authorization_file", mend="one line of printable ASCII"
        )


def _check_url(where: str, url: str, *, may_be_private: bool) -> None:
    mend = "write an https URL without user, fragment and spaces (http on loopback only)"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError("this is not a URL", setting=f"{where}.push", mend=mend) from error
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    if not host or not secure or set("@# ") & set(url):
        # Not repeated: what stands before an @ may be a password.
        raise ConfigurationError("nothing can be pushed there", setting=f"{where}.push", mend=mend)
    if not may_be_private and (is_loopback(host) or not _may_be_public(host)):
        raise ConfigurationError(
            "the receiver has an address that is not public", setting=f"{where}.private_addresses",
            mend="set it to true if that is meant",
        )  # fmt: skip


def _may_be_public(host: str) -> bool:
    """Say whether a URL's host is a public address, or a name, which is looked at once it is resolved."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return not host.replace(".", "").isdigit()  # An address as no one but a resolver reads it: 2130706433.
    return is_public(host)


def _fits_a_header(secret: Secret) -> bool:
    value = secret.reveal()
    return value.isascii() and all(0x20 < byte < 0x7F for byte in value)  # noqa: PLR2004 - visible ASCII
