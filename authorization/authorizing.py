"""What a request to sign a user in asks for, and who is told what is wrong with it: pure decisions.

RFC 6749, 4.1.1 and 4.1.2.1; RFC 7636, 4.3; RFC 8707; RFC 9207; RFC 9700, 2.1.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from authorization.asking import Asked, read_asked
from authorization.metadata import AUTHORIZATION_CODE, RESPONSE_MODES, RESPONSE_TYPES
from authorization.pkce import METHODS, is_challenge
from keyturn.contract.errors import KeyturnError
from keyturn.contract.redirects import may_redirect
from keyturn.contract.trust import OPERATING_SCOPES, Client, Trust
from serving.authentication import LONGEST_CLIENT_ID
from serving.forms import Form
from serving.problems import OAuthError

LONGEST_STATE: Final = 512
_STATE: Final = re.compile(r"[\x20-\x7e]+")  # RFC 6749, A.5.
# Whoever sends one of these relies on something that we do not do: to pass over it would be to do less than asked.
_UNSUPPORTED: Final = {"request": "request_not_supported", "request_uri": "request_uri_not_supported"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Returning:
    """Where a user is sent back to, and what the client gave along to know it by."""

    redirect_uri: str
    state: str

    def answer(self, issuer: str, **members: str) -> str:
        """Return the URI with an answer in it (RFC 6749, 4.1.2), and who gives it (RFC 9207)."""
        told = members | ({"state": self.state} if self.state else {}) | {"iss": issuer}
        return f"{self.redirect_uri}{'&' if '?' in self.redirect_uri else '?'}{urlencode(told)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """What a client asks a user for, all of it allowed."""

    client_id: str
    returning: Returning
    code_challenge: str
    asked: Asked


class ClientTold(KeyturnError):
    """An error that the client is told, by sending its user back (RFC 6749, 4.1.2.1)."""

    code = "client_told"

    def __init__(self, error: str, description: str = "", *, returning: Returning) -> None:
        super().__init__(f"{error}: {description}" if description else error)
        self.error, self.description, self.returning = error, description, returning

    def location(self, issuer: str) -> str:
        """Return where the user is sent."""
        more = {"error_description": self.description} if self.description else {}
        return self.returning.answer(issuer, error=self.error, **more)


def read_request(form: Form, trust: Trust) -> AuthorizationRequest:
    """Return what is asked for.

    Raises OAuthError where client or redirect URI are not right: then the person is told, and nobody is sent anywhere
    (RFC 6749, 4.1.2.1). Raises ClientTold for all else.
    """
    client_id, client, redirect_uri = _who_and_where(form, trust)
    state = form.get("state", "")
    sound = len(state) <= LONGEST_STATE and (not state or _STATE.fullmatch(state) is not None)
    returning = Returning(redirect_uri=redirect_uri, state=state if sound and "state" not in form.twice else "")
    try:
        _check(form, client, sound_state=sound)
        asked = _asked(form, client)
    except OAuthError as error:
        raise ClientTold(error.error, error.description, returning=returning) from None
    return AuthorizationRequest(
        client_id=client_id, returning=returning, code_challenge=form["code_challenge"], asked=asked
    )


def _who_and_where(form: Form, trust: Trust) -> tuple[str, Client, str]:
    client_id, redirect_uri = form.get("client_id", ""), form.get("redirect_uri", "")
    if not form.twice.isdisjoint({"client_id", "redirect_uri"}):
        raise OAuthError("invalid_request", "client_id or redirect_uri stands twice")
    client = trust.document.clients.get(client_id) if len(client_id) <= LONGEST_CLIENT_ID else None
    if client is None:
        raise OAuthError("invalid_request", "the application that sent you here is not known (client_id)")
    if not redirect_uri:
        raise OAuthError("invalid_request", "the application that sent you here does not say where to go back to "
                                            "(redirect_uri)")  # fmt: skip
    if not may_redirect(redirect_uri, trust.redirects(client_id)):
        raise OAuthError("invalid_request", "the application that sent you here names another address to go back to "
                                            "than it may (redirect_uri)")  # fmt: skip
    return client_id, client, redirect_uri


def _asked(form: Form, client: Client) -> Asked:
    asked = read_asked(form, client)
    if not OPERATING_SCOPES.isdisjoint(asked.scopes):
        raise OAuthError("invalid_scope", "no user can allow this to a client")
    return asked


def _check(form: Form, client: Client, *, sound_state: bool) -> None:
    if not sound_state:
        raise OAuthError("invalid_request", f"state has at most {LONGEST_STATE} printable ASCII characters")
    if form.twice:
        raise OAuthError("invalid_request", "a parameter stands twice")
    for name, error in _UNSUPPORTED.items():
        if name in form:
            raise OAuthError(error)
    if "response_type" not in form:
        raise OAuthError("invalid_request", "response_type is missing")
    if form["response_type"] not in RESPONSE_TYPES:
        raise OAuthError("unsupported_response_type", "response_type is code")
    if form.get("response_mode", "query") not in RESPONSE_MODES:
        raise OAuthError("invalid_request", "response_mode is query")
    if AUTHORIZATION_CODE not in client.grant_types:
        raise OAuthError("unauthorized_client", "not a grant of this client")
    # RFC 7636, 4.3: without a method it would be `plain`, which is refused (RFC 9700, 2.1.1).
    if form.get("code_challenge_method") not in METHODS:
        raise OAuthError("invalid_request", "code_challenge_method is S256")
    if not is_challenge(form.get("code_challenge", "")):
        raise OAuthError("invalid_request", "code_challenge is a SHA-256 in base64url, of 43 characters")
