"""Signs tokens by the active key, as long as the store confirms that we know which one that is."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from keyservice.keyring import Keyring
from keyturn.clock import Clock
from keyturn.contract.encoding import b64url_bytes, encode_json
from keyturn.contract.errors import SignerUnavailable, SigningRefused
from keyturn.contract.jwk import PrivateKey, sign_each
from keyturn.contract.keys import KeyRecord
from keyturn.contract.rotation import RotationPolicy
from keyturn.contract.tokens import audiences, is_audience
from keyturn.contract.trust import Identity, MaySign
from keyturn.feed.publisher import Publisher
from keyturn.verifier.replica import Replica

_HEADERS_KEPT = 128
_encode = msgspec.json.Encoder().encode  # Members as they came: nothing is compared with a token's bytes.


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token to sign: its type and claims, and the algorithm if the caller minds."""

    typ: str
    claims: dict[str, Any]
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
        """Return the compact JWS; raises what `sign_all` raises."""
        return self.sign_all([request], identity=identity)[0]

    def sign_all(self, requests: Sequence[Request], *, identity: Identity) -> list[str]:
        """Return a compact JWS for each request, all issued at one moment, or none at all.

        Raises SigningRefused for a type or audience that this identity may not have signed, and SignerUnavailable
        where the lease has run out or no key can sign.
        """
        allowed = {one.typ: one for one in reversed(identity.may_sign)}
        for request in requests:
            _check_allowed(request, allowed.get(request.typ))
        usual = self._policy.algorithms[0]
        keys = {alg: self._key(alg) for alg in {request.alg or usual for request in requests}}
        if not self._leased():
            raise SignerUnavailable("the signer's lease has run out")
        tokens = self._signed(requests, keys, usual)
        active = self._replica.keys.active
        if not self._leased() or any(active(alg, self._policy.use) is not key for alg, (key, _) in keys.items()):
            raise SignerUnavailable("the signer's lease ran out while signing")
        return tokens

    def _key(self, alg: str) -> tuple[KeyRecord, PrivateKey]:
        record = self._replica.keys.active(alg, self._policy.use)
        private = self._keyring.get(record.kid) if record is not None else None
        if record is None or private is None:
            raise SignerUnavailable(f"no active {alg} key that can sign")
        return record, private

    def _signed(
        self, requests: Sequence[Request], keys: Mapping[str, tuple[KeyRecord, PrivateKey]], usual: str
    ) -> list[str]:
        now = self._clock.now()
        latest = {alg: self._latest(record, now) for alg, (record, _) in keys.items()}
        composed, inputs = {"iss": self._replica.issuer, "iat": int(now)}, []
        for one in requests:
            alg, claims = one.alg or usual, one.claims
            asked = claims.get("exp", latest[alg])
            if isinstance(asked, bool) or not isinstance(asked, (int, float)) or asked <= now:
                raise SigningRefused("exp is a moment to come, in Unix seconds")
            payload = _encode({**claims, **composed, "exp": int(min(asked, latest[alg]))})
            inputs.append(_header(alg, keys[alg][0].kid, one.typ) + b64url_bytes(payload))
        tokens = [""] * len(inputs)
        for alg, (_, private) in keys.items():
            of_alg = [index for index, one in enumerate(requests) if (one.alg or usual) == alg]
            signatures = sign_each(alg, [inputs[index] for index in of_alg], private)
            for index, signature in zip(of_alg, signatures, strict=True):
                tokens[index] = (inputs[index] + b"." + b64url_bytes(signature)).decode("ascii")
        return tokens

    def _latest(self, record: KeyRecord, now: float) -> float:
        """Return the latest `exp` that a key may sign now."""
        if record.sign_until is None or record.verify_until is None or now >= record.sign_until:
            raise SignerUnavailable(f"key {record.kid} is past the time in which it signs")
        return min(now + record.token_seconds, record.verify_until - 2 * self._policy.skew_seconds)

    def _leased(self) -> bool:
        return self._clock.boottime() - self._publisher.confirmed_boottime < self._policy.lease_seconds


@lru_cache(maxsize=_HEADERS_KEPT)
def _header(alg: str, kid: str, typ: str) -> bytes:
    """Return the encoded header, and the dot after it, that all tokens of one key and type share."""
    return b64url_bytes(encode_json({"alg": alg, "kid": kid, "typ": typ})) + b"."


def _check_allowed(request: Request, allowed: MaySign | None) -> None:
    if allowed is None:
        raise SigningRefused(f"this service may not have {request.typ} signed")
    claims = request.claims
    if "iss" in claims or "iat" in claims:
        raise SigningRefused("iss and iat are set by the signer")
    audience = claims.get("aud")
    if isinstance(audience, str) and audience in allowed.audiences:
        return
    if not is_audience(audience):
        raise SigningRefused("a token has an audience")
    if not allowed.any_audience and not all(one in allowed.audiences for one in audiences(claims)):
        raise SigningRefused("an audience that this service may not have signed")
