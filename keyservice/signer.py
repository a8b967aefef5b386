"""Signs tokens by the active key, as long as the store confirms that we know which one that is."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import msgspec

from keyservice.keyring import Keyring
from keyturn.clock import Clock
from keyturn.contract.encoding import b64url_bytes, encode_json
from keyturn.contract.errors import SignerUnavailable, SigningRefused
from keyturn.contract.jwk import PrivateKey, sign_each
from keyturn.contract.keys import KeyRecord, Use
from keyturn.contract.purposes import PURPOSES, Purpose
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


class _Slot(NamedTuple):
    """What signs a type of token at this moment."""

    purpose: Purpose
    key: KeyRecord
    private: PrivateKey
    header: bytes


_Wanted: TypeAlias = tuple[str, str | None]  # Type, and algorithm if the caller minds.


class Signer:
    """Composes `iss`, `iat` and the header, caps `exp`, and signs by the active key of a type's use (rules 2, 3).

    The lease G: the primary must have accepted a write of ours at our position within the last G seconds, looked
    at before and after the signature, so that a pause between the two signs nothing.
    """

    def __init__(
        self,
        keyring: Keyring,
        replica: Replica,
        publisher: Publisher,
        policies: Mapping[Use, RotationPolicy],
        clock: Clock,
    ) -> None:
        self._keyring, self._replica, self._publisher = keyring, replica, publisher
        self._policies, self._clock = policies, clock
        self._lease_seconds = min(policy.lease_seconds for policy in policies.values())

    def unready(self) -> str | None:
        """Return why something cannot be signed now, None if all of it can."""
        if not self._leased():
            return "the store has not confirmed the key set within the signer's lease"
        for use, policy in self._policies.items():
            alg = policy.algorithms[0]
            key = self._replica.keys.active(alg, use)
            if key is None:
                return f"no active {alg} key of use {use} yet"
            if self._keyring.get(key.kid) is None:
                return f"the private half of key {key.kid} is not open"
        return None

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
        slots = {wanted: self._slot(wanted) for wanted in {(one.typ, one.alg) for one in requests}}
        if not self._leased():
            raise SignerUnavailable("the signer's lease has run out")
        tokens = self._signed(requests, slots)
        active = self._replica.keys.active
        if not self._leased() or any(active(one.key.alg, one.key.use) is not one.key for one in slots.values()):
            raise SignerUnavailable("the signer's lease ran out while signing")
        return tokens

    def _slot(self, wanted: _Wanted) -> _Slot:
        typ, alg = wanted
        purpose = PURPOSES[typ]
        alg = alg or self._policies[purpose.use].algorithms[0]
        record = self._replica.keys.active(alg, purpose.use)
        private = self._keyring.get(record.kid) if record is not None else None
        if record is None or private is None:
            raise SignerUnavailable(f"no active {alg} key of use {purpose.use} that can sign")
        return _Slot(purpose, record, private, _header(alg, record.kid, typ))

    def _signed(self, requests: Sequence[Request], slots: Mapping[_Wanted, _Slot]) -> list[str]:
        now = self._clock.now()
        latest = {wanted: self._latest(slot.key, now) for wanted, slot in slots.items()}
        composed = {"iss": self._replica.issuer, "iat": int(now)}
        inputs, places = list[bytes](), {wanted: list[int]() for wanted in slots}
        for index, one in enumerate(requests):
            wanted, claims = (one.typ, one.alg), {**one.claims, **composed}
            slot = slots[wanted]
            if slot.purpose.expires:
                asked = claims.get("exp", latest[wanted])
                if isinstance(asked, bool) or not isinstance(asked, (int, float)) or asked <= now:
                    raise SigningRefused("exp is a moment to come, in Unix seconds")
                claims["exp"] = int(min(asked, latest[wanted]))
            inputs.append(slot.header + b64url_bytes(_encode(claims)))
            places[wanted].append(index)
        tokens = [""] * len(inputs)
        for wanted, (_, key, private, _) in slots.items():
            signatures = sign_each(key.alg, [inputs[index] for index in places[wanted]], private)
            for index, signature in zip(places[wanted], signatures, strict=True):
                tokens[index] = (inputs[index] + b"." + b64url_bytes(signature)).decode("ascii")
        return tokens

    def _latest(self, record: KeyRecord, now: float) -> float:
        """Return the latest `exp` that a key may sign now."""
        if record.sign_until is None or record.verify_until is None or now >= record.sign_until:
            raise SignerUnavailable(f"key {record.kid} is past the time in which it signs")
        return min(now + record.token_seconds, record.verify_until - 2 * self._policies[record.use].skew_seconds)

    def _leased(self) -> bool:
        return self._clock.boottime() - self._publisher.confirmed_boottime < self._lease_seconds


@lru_cache(maxsize=_HEADERS_KEPT)
def _header(alg: str, kid: str, typ: str) -> bytes:
    """Return the encoded header, and the dot after it, that all tokens of one key and type share."""
    return b64url_bytes(encode_json({"alg": alg, "kid": kid, "typ": typ})) + b"."


def _check_allowed(request: Request, allowed: MaySign | None) -> None:
    purpose, claims = PURPOSES.get(request.typ), request.claims
    if allowed is None or purpose is None:
        raise SigningRefused(f"this service may not have {request.typ} signed")
    if "iss" in claims or "iat" in claims:
        raise SigningRefused("iss and iat are set by the signer")
    if not purpose.expires and "exp" in claims:
        raise SigningRefused(f"a {request.typ} has no exp")
    if purpose.has_audience:
        _check_audience(claims, allowed)
    elif "aud" in claims:
        raise SigningRefused(f"a {request.typ} is for everybody, and has no audience")


def _check_audience(claims: Mapping[str, Any], allowed: MaySign) -> None:
    audience = claims.get("aud")
    if isinstance(audience, str) and audience in allowed.audiences:
        return
    if not is_audience(audience):
        raise SigningRefused("a token has an audience")
    if not allowed.any_audience and not all(one in allowed.audiences for one in audiences(claims)):
        raise SigningRefused("an audience that this service may not have signed")
