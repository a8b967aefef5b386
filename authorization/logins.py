"""The hand-over to whoever authenticates users: a sealed challenge goes out, a verifier for one use comes back.

The challenge holds all that was asked, sealed, so that nobody who only comes to `/authorize` can fill the store. What
the sign-in page says of the user is kept under the verifier, and is good in the browser in which it all began.
"""

from typing import Any, Final

import msgspec

from authorization.authorizing import AuthorizationRequest, Returning
from authorization.browsers import known_by
from authorization.grants import Grant
from keyturn import entropy
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, credential_kind, make_credential
from keyturn.contract.encoding import b64url, encode_json, unb64url
from keyturn.contract.errors import MalformedInput
from serving.problems import OAuthError
from serving.records import RecordStore
from serving.sealing import Sealer

PREFIX: Final = "keyturn:login:"
PURPOSE: Final = b"keyturn login challenges"
LOGIN_SECONDS: Final = 600.0
LONGEST_CHALLENGE: Final = 4096


class Login(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sign-in that was begun: what was asked, by whose browser, and until when it may be finished."""

    client_id: str
    redirect_uri: str
    state: str
    code_challenge: str
    scopes: tuple[str, ...]
    audiences: tuple[str, ...]
    browser: str
    until: float

    @property
    def returning(self) -> Returning:
        """Return where the user goes back to."""
        return Returning(redirect_uri=self.redirect_uri, state=self.state)


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the sign-in page said: the grant that the user has made, or the error that the client is told."""

    login: Login
    grant: Grant | None = None
    error: str = ""


class Logins:
    """Sign-ins under way."""

    def __init__(self, records: RecordStore, sealer: Sealer) -> None:
        """Keep outcomes in `records`, which are under our prefix, and seal challenges for our purpose."""
        self.records, self._sealer = records, sealer

    def challenge(self, request: AuthorizationRequest, *, browser: str, now: float) -> str:
        """Return the challenge of a sign-in that this browser begins; raises OAuthError for one that grew too long."""
        asked = request.asked
        login = Login(
            client_id=request.client_id, redirect_uri=request.returning.redirect_uri, state=request.returning.state,
            code_challenge=request.code_challenge, scopes=asked.scopes, audiences=asked.audiences,
            browser=known_by(browser), until=now + LOGIN_SECONDS,
        )  # fmt: skip
        challenge = b64url(self._sealer.seal(encode_json(login)))
        if len(challenge) > LONGEST_CHALLENGE:
            raise OAuthError("invalid_request", "that is too much to ask for at once")
        return challenge

    def opened(self, challenge: str, *, now: float) -> Login | None:
        """Return the sign-in of a challenge of ours whose time is not over."""
        if len(challenge) > LONGEST_CHALLENGE:
            return None
        try:
            content = self._sealer.open(unb64url(challenge))
            login = None if content is None else msgspec.json.decode(content, type=Login)
        except (MalformedInput, msgspec.DecodeError):  # Of another version, perhaps: the user begins again.
            return None
        return login if login is not None and now < login.until else None

    async def keep(self, outcome: Outcome) -> str:
        """Keep what the sign-in page said, and return the verifier by which it is found; raises StoreUnavailable."""
        verifier = make_credential(CredentialKind.LOGIN_VERIFIER, entropy.token_bytes(RANDOM_BYTES))
        await self.records.put(verifier, msgspec.to_builtins(outcome), expires_at=outcome.login.until)
        return verifier

    async def outcome(self, verifier: str, *, now: float) -> Outcome | None:
        """Return what was said, if it was not used yet and its time is not over; raises StoreUnavailable."""
        if credential_kind(verifier) is not CredentialKind.LOGIN_VERIFIER:
            return None
        outcome = _outcome_of(await self.records.get(verifier))
        return outcome if outcome is not None and now < outcome.login.until else None


def _outcome_of(record: dict[str, Any] | None) -> Outcome | None:
    try:
        return None if record is None else msgspec.convert(record, type=Outcome)
    except msgspec.ValidationError:
        return None
