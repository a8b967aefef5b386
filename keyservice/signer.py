"""Signs tokens by the active key, as long as the store confirms that we know which one that is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyservice.keyring import Keyring
from keyturn.clock import Clock
from keyturn.contract.encoding import b64url, encode_json
from keyturn.contract.errors import SignerUnavailable, SigningRefused
from keyturn.contract.jwk import ALGORITHMS, PrivateKey
from keyturn.contract.keys import KeyRecord
from keyturn.contract.rotation import RotationPolicy
from keyturn.contract.tokens import audiences, is_audience
from keyturn.contract.trust import Identity
from keyturn.feed.publisher import Publisher
from keyturn.verifier.replica import Replica

_COMPOSED_HERE = frozenset({"iss", "iat"})


@dataclass(frozen=True, slots=True)
class Request:
    """One token to sign: its type and claims, and the algorithm if the caller minds."""

    typ: str
    claims: Mapping[str, Any]
    alg: str | None = None


class Signer:
    """Composes `iss`, `iat` and the header, caps `exp`, and signs by the active key of an algorithm (rules 2, 3).

    The lease G: the primary must have accepted a write of ours at our position within the last G seconds, looked
    at before and after the signature, so that a pause between the two signs nothing.
    """

    def __init__(
        self, keyring: Keyring, replica: Replica, publisher: Publisher, policy: RotationPolicy, clock: Clock
    ) -> None:
        self._keyring, self._replica, self._publisher = keyring, replica, publisher
        self._policy, self._clock = policy, clock

    def unready(self) -> str | None:
        """Return why nothing can be signed now, None if something can."""
        if not self._leased():
            return "the store has not confirmed the key set within the signer's lease"
        alg = self._policy.algorithms[0]
        key = self._replica.keys.active(alg, self._policy.use)
        if key is None:
            return f"no active {alg} key yet"
        return None if self._keyring.get(key.kid) else f"the private half of key {key.kid} is not open"

    def sign(self, request: Request, *, identity: Identity) -> str:
        """Return the compact JWS.

        Raises SigningRefused for a type or audience that this identity may not have signed, and SignerUnavailable
        where the lease has run out or no key can sign.
        """
        _check_allowed(request, identity)
        alg = request.alg or self._policy.algorithms[0]
        record = self._replica.keys.active(alg, self._policy.use)
        private = self._keyring.get(record.kid) if record is not None else None
        if record is None or private is None:
            raise SignerUnavailable(f"no active {alg} key that can sign")
        if not self._leased():
            raise SignerUnavailable("the signer's lease has run out")
        token = self._signed(request, record, private)
        if not self._leased() or self._replica.keys.active(alg, self._policy.use) is not record:
            raise SignerUnavailable("the signer's lease ran out while signing")
        return token

    def _signed(self, request: Request, record: KeyRecord, private: PrivateKey) -> str:
        now = self._clock.now()
        if record.sign_until is None or record.verify_until is None or now >= record.sign_until:
            raise SignerUnavailable(f"key {record.kid} is past the time in which it signs")
        latest = min(now + record.token_seconds, record.verify_until - 2 * self._policy.skew_seconds)
        asked = request.claims.get("exp", latest)
        if isinstance(asked, bool) or not isinstance(asked, int | float) or asked <= now:
            raise SigningRefused("exp is a moment to come, in Unix seconds")
        claims = {**request.claims, "iss": self._replica.issuer, "iat": int(now), "exp": int(min(asked, latest))}
        header = {"alg": record.alg, "kid": record.kid, "typ": request.typ}
        signing_input = f"{b64url(encode_json(header))}.{b64url(encode_json(claims))}"
        signature = ALGORITHMS[record.alg].sign(signing_input.encode("ascii"), private)
        return f"{signing_input}.{b64url(signature)}"

    def _leased(self) -> bool:
        return self._clock.boottime() - self._publisher.confirmed_boottime < self._policy.lease_seconds


def _check_allowed(request: Request, identity: Identity) -> None:
    allowed = next((one for one in identity.may_sign if one.typ == request.typ), None)
    if allowed is None:
        raise SigningRefused(f"this service may not have {request.typ} signed")
    if _COMPOSED_HERE & request.claims.keys():
        raise SigningRefused("iss and iat are set by the signer")
    if not is_audience(request.claims.get("aud")):
        raise SigningRefused("a token has an audience")
    if not allowed.any_audience and not set(audiences(request.claims)) <= set(allowed.audiences):
        raise SigningRefused("an audience that this service may not have signed")
