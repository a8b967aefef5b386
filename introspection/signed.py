"""What the signer makes of a verdict: the signed answer of RFC 9701, and a JWT in place of an opaque token."""

from collections.abc import Mapping
from typing import Any, Final

from introspection.render import as_json, content
from keyturn.clock import Clock
from keyturn.contract.credentials import CredentialKind, credential_kind
from keyturn.contract.encoding import decode_object, encode_json, unb64url
from keyturn.contract.errors import MalformedInput, SignerUnavailable, SigningRefused
from keyturn.contract.keys import KeySet
from keyturn.contract.purposes import ACCESS_TOKEN, INTROSPECTION_ANSWER
from keyturn.verifier.replica import Replica
from keyturn.verifier.verdict import Kind, Verdict
from serving.signing import Signer

MOST_KEPT: Final = 1024  # Of each form, and altogether no more than so many bytes of what they say and are.
MOST_KEPT_BYTES: Final = 4 * 1024 * 1024
ANSWER_KEPT_SECONDS: Final = 1.0
PHANTOM_KEPT_SECONDS: Final = 30.0
# What a phantom token takes over from the record: RFC 9068, 2.2, and what a revocation or a binding may name.
# The signer sets `iss` and `iat`.
PHANTOM_MEMBERS: Final = (
    "sub", "client_id", "aud", "scope", "exp", "nbf", "jti", "grant_id", "sid", "cnf", "act", "status", "auth_time",
    "acr", "amr", "username", "roles", "groups", "entitlements",
)  # fmt: skip


class SignedAnswers:
    """Has answers signed; what would be signed the same again is kept for a moment, as long as the keys are the same.

    Verdicts are never kept here: each question was judged before it comes to this.
    """

    def __init__(self, signer: Signer, replica: Replica, clock: Clock) -> None:
        self._signer, self._replica, self._clock = signer, replica, clock
        self._answers, self._phantoms = Kept(replica, clock), Kept(replica, clock)

    async def answer(self, verdict: Verdict, *, client_id: str) -> bytes:
        """Return the JWT response for this caller (RFC 9701, 5): active or inactive, it is signed.

        `aud` is the caller; there is no `sub` and no `exp`, so that nobody takes it for an access token. It may have
        been signed up to a second ago. Raises SignerUnavailable or SignerMissing.
        """
        key = client_id, as_json(verdict)
        kept = self._answers.get(key)
        if kept is None:
            told = {"active": False} if verdict.kind is not Kind.ACTIVE else content(verdict)
            claims = {"aud": client_id, "token_introspection": told}
            keys = self._replica.keys
            kept = await self._sign(INTROSPECTION_ANSWER, claims)
            self._answers.keep(key, kept, keys=keys, seconds=ANSWER_KEPT_SECONDS)
        return kept

    async def phantom(self, token: str, verdict: Verdict) -> bytes | None:
        """Return an access token (RFC 9068) of the same names, audience and scope that ends no later than this one.

        A JWT is returned as it is. None for a token that is not active, or past its `exp` (which verdicts forgive for
        the skew): no JWT can be made of it that anybody would take; and for a refresh token, which is good for no API.
        Raises SignerUnavailable or SignerMissing.
        """
        ends, kind = verdict.claims.get("exp", 0), credential_kind(token)
        if verdict.kind is not Kind.ACTIVE or self._clock.now() >= ends or kind is CredentialKind.REFRESH:
            return None
        if kind is None:
            return token.encode("ascii")
        claims = {name: verdict.claims[name] for name in PHANTOM_MEMBERS if name in verdict.claims}
        key = "", encode_json(claims)
        kept = self._phantoms.get(key)
        if kept is None:
            keys = self._replica.keys
            kept = await self._sign(ACCESS_TOKEN, claims)
            left = _ending(kept, by=ends) - self._clock.now()  # The signer may have made it shorter.
            if left <= 0:
                return None
            self._phantoms.keep(key, kept, keys=keys, seconds=min(PHANTOM_KEPT_SECONDS, left / 2))
        return kept

    async def _sign(self, typ: str, claims: Mapping[str, Any]) -> bytes:
        try:
            return (await self._signer.sign(typ, claims)).encode("ascii")
        except SigningRefused as error:  # Our identity's trouble, not the caller's.
            raise SignerUnavailable(f"the signer makes no {typ} for this service: {error}") from error


def _ending(token: bytes, *, by: float) -> float:
    """Return the `exp` of a JWT that was just signed; raises SignerUnavailable if it would outlive what it is for."""
    try:
        ends = float(decode_object(unb64url(token.split(b".")[1]))["exp"])
    except (IndexError, KeyError, TypeError, ValueError, MalformedInput) as error:
        raise SignerUnavailable("the signer's answer is no token") from error
    if ends > by:
        raise SignerUnavailable("the signer made a token that outlives the one it stands for")
    return ends


class Kept:
    """Signed bytes by what they say, for some seconds and under one state of the key set; few, and few bytes."""

    def __init__(
        self, replica: Replica, clock: Clock, *, most: int = MOST_KEPT, most_bytes: int = MOST_KEPT_BYTES
    ) -> None:
        self._replica, self._clock = replica, clock
        self._most, self._most_bytes = most, most_bytes
        self._keys: KeySet | None = None
        self._kept: dict[tuple[str, bytes], tuple[float, bytes]] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        """Count what is kept."""
        return len(self._kept)

    def get(self, key: tuple[str, bytes]) -> bytes | None:
        """Return what was signed, None if it is too old or a key has changed since."""
        if self._replica.keys is not self._keys:
            self._keys = self._replica.keys
            self._kept.clear()
            self.size_bytes = 0
        until, signed = self._kept.get(key, (0.0, b""))
        return signed if self._clock.boottime() < until else None

    def keep(self, key: tuple[str, bytes], signed: bytes, *, keys: KeySet, seconds: float) -> None:
        """Remember what was signed since the key set was `keys`, if it still is; the oldest make way."""
        if self._keys is not keys or self._replica.keys is not keys:
            return  # A key that was revoked meanwhile may have signed it.
        if key in self._kept:
            self._drop(key)
        size = _size(key, signed)
        if size > self._most_bytes:
            return
        while len(self._kept) >= self._most or self.size_bytes + size > self._most_bytes:
            self._drop(next(iter(self._kept)))
        self._kept[key] = self._clock.boottime() + seconds, signed
        self.size_bytes += size

    def _drop(self, key: tuple[str, bytes]) -> None:
        self.size_bytes -= _size(key, self._kept.pop(key)[1])


def _size(key: tuple[str, bytes], signed: bytes) -> int:
    return len(key[0]) + len(key[1]) + len(signed)
