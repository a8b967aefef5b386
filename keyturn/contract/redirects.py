"""Where a client may have its users sent back to: which URIs can be signed for, and which one a request means."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from keyturn.contract.errors import MalformedInput

LONGEST_REDIRECT: Final = 512
MOST_REDIRECTS: Final = 32
ANSWERED: Final = frozenset({"code", "state", "iss", "error", "error_description", "error_uri"})
"""What the answer adds to a redirect URI, and so no URI has already."""
_PLAIN: Final = re.compile(r"[\x21-\x7e]+")
_SPECIAL: Final = frozenset('"<>\\^`{|}')  # Never in a URI (RFC 3986, 2); a browser makes something else of each.
_LOOPBACK: Final = re.compile(r"http://(127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?((?:[/?].*)?)")
_REVERSE_DOMAIN: Final = re.compile(r"[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+")


def check_redirect(uri: str) -> None:
    """Raise MalformedInput for what is not to be a client's redirect URI, saying why.

    It is an absolute URI without a fragment (RFC 6749, 3.1.2): https; http to 127.0.0.1 or [::1] (RFC 8252, 7.3;
    `localhost` is not recommended, 8.3); or the private scheme of an app, a domain name in reverse (7.1).
    """
    if not 0 < len(uri) <= LONGEST_REDIRECT or _PLAIN.fullmatch(uri) is None or not _SPECIAL.isdisjoint(uri):
        raise MalformedInput(f"a redirect URI has 1 to {LONGEST_REDIRECT} characters of those that a URI may have")
    if "#" in uri:
        raise MalformedInput("a redirect URI has no fragment (RFC 6749, 3.1.2)")
    try:
        parts = urlsplit(uri)
        named = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise MalformedInput("that is no URI") from error
    if not ANSWERED.isdisjoint(named):
        raise MalformedInput(f"a redirect URI must not have {min(ANSWERED & named)} already: the answer adds it")
    if "@" in parts.netloc:
        raise MalformedInput("a redirect URI names no user")
    scheme = uri.partition(":")[0]
    if scheme == "https" and host:
        return
    if scheme == "http":
        if _LOOPBACK.fullmatch(uri) is None:
            raise MalformedInput("http is for 127.0.0.1 and [::1] only (RFC 8252, 7.3): use https")
    elif _REVERSE_DOMAIN.fullmatch(scheme) is None or not uri.startswith(f"{scheme}:/"):
        raise MalformedInput("use https, or a scheme such as com.example.app:/ (RFC 8252, 7.1)")


def redirects_of(rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the URIs of a client's rows; a row that is not as we sign them names none."""
    uris = (row.get("uri") for row in rows)
    return tuple(uri for uri in uris if isinstance(uri, str) and _is_sound(uri))


def may_redirect(presented: str, registered: Iterable[str]) -> bool:
    """Say whether a client may have its user sent there: exactly as registered (RFC 9700, 2.1).

    Only the port of a loopback address is free, since an app gets whichever the system has left (RFC 8252, 7.3).
    """
    return len(presented) <= LONGEST_REDIRECT and any(_matches(presented, uri) for uri in registered)


def _matches(presented: str, registered: str) -> bool:
    if presented == registered:
        return True
    here, there = _LOOPBACK.fullmatch(presented), _LOOPBACK.fullmatch(registered)
    return here is not None and there is not None and here.groups() == there.groups()


def _is_sound(uri: str) -> bool:
    try:
        check_redirect(uri)
    except MalformedInput:
        return False
    return True
