"""What a client may be granted of what it asks for: scope, audience and form of the token; pure decisions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import msgspec

from authorization.grants import Grant
from keyturn.contract.trust import OPERATING_SCOPES, Client, TokenFormat
from serving.forms import Form
from serving.problems import OAuthError

LONGEST_SCOPE = 2048
MOST_TARGETS = 16
LONGEST_TARGET = 512
REPEATABLE = frozenset({"resource", "audience"})
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")  # RFC 6749, 3.3.


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is granted: scopes, audiences, and the form of the token."""

    scopes: tuple[str, ...]
    audiences: tuple[str, ...]
    token_format: TokenFormat


def read_asked(form: Form, client: Client) -> Asked:
    """Return what this client gets; raises OAuthError `invalid_scope`, `invalid_target` or `invalid_request`."""
    scopes = _scopes(form.get("scope"), client)
    return Asked(scopes=scopes, audiences=_audiences(form, client), token_format=_format(form, client, scopes))


def read_narrowed(form: Form, client: Client, grant: Grant) -> Asked:
    """Return what a client gets of a grant: all of it, unless it asks for less (RFC 6749, 6; RFC 8707, 2.2).

    Neither is more than the client may still have. Raises what `read_asked` does.
    """
    scopes, audiences = (
        tuple(one for one in granted if one in allowed)
        for granted, allowed in ((grant.scopes, client.scopes), (grant.audiences, client.audiences))
    )
    if grant.scopes and not scopes:
        raise OAuthError("invalid_scope", "nothing is left of the grant that this client may have")
    rest = msgspec.structs.replace(client, scopes=scopes, audiences=audiences)
    asked = read_asked(form, rest)
    everywhere = not any(form.every(name) for name in REPEATABLE)
    return replace(asked, audiences=audiences) if everywhere else asked


def _scopes(asked: str | None, client: Client) -> tuple[str, ...]:
    """Return the scopes asked for, all of the client's if none are (RFC 6749, 3.3)."""
    if asked is None:
        return client.scopes
    words = asked.split(" ")
    if len(asked) > LONGEST_SCOPE or not all(_SCOPE_TOKEN.fullmatch(word) for word in words):
        raise OAuthError("invalid_scope", "scope is a list of words, one space between them")
    if not set(words) <= set(client.scopes):
        raise OAuthError("invalid_scope", "more than this client may ask for")
    return tuple(dict.fromkeys(words))


def _audiences(form: Form, client: Client) -> tuple[str, ...]:
    """Return the audiences asked for by `resource` (RFC 8707) and `audience`, else the client's first."""
    resources, named = form.every("resource"), form.every("audience")
    for resource in resources:
        _check_resource(resource)
    wanted = tuple(dict.fromkeys((*resources, *named))) or client.audiences[:1]
    if not wanted:
        raise OAuthError("invalid_target", "this client has no audience")
    if len(wanted) > MOST_TARGETS or not set(wanted) <= set(client.audiences):
        raise OAuthError("invalid_target", "not an audience of this client")
    return wanted


def _check_resource(resource: str) -> None:
    """Refuse what is no absolute URI, or has a fragment (RFC 8707, 2)."""
    try:
        parts = urlsplit(resource)
    except ValueError:
        parts = urlsplit("")
    absolute = parts.scheme and (parts.netloc or parts.path)
    plain = len(resource) <= LONGEST_TARGET and resource.isascii() and resource.isprintable() and " " not in resource
    if not absolute or not plain or "#" in resource:
        raise OAuthError("invalid_target", "resource is an absolute URI without a fragment")


def _format(form: Form, client: Client, scopes: Sequence[str]) -> TokenFormat:
    """Return the form asked for, else the client's, else JWT; operators always get an opaque token."""
    asked = form.get("token_format")
    if asked is not None and asked not in tuple(TokenFormat):
        raise OAuthError("invalid_request", "token_format is opaque or jwt")
    if client.always_opaque or not OPERATING_SCOPES.isdisjoint(scopes):
        if asked == TokenFormat.JWT:
            raise OAuthError("invalid_request", "this client's tokens are always opaque")
        return TokenFormat.OPAQUE
    return TokenFormat(asked or client.token_format or TokenFormat.JWT)
