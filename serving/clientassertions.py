"""How a client proves itself by a JWT that it signed (private_key_jwt: RFC 7523, 2.2 and 3), each one used once."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.encoding import decode_object, digest, encode_json, unb64url
from keyturn.contract.errors import InvalidToken, MalformedInput
from keyturn.contract.jwk import ALGORITHMS, PublicKey, load_public
from serving.storing import stored

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SIGNING_ALGORITHMS: Final = tuple(ALGORITHMS)
PREFIX: Final = "keyturn:assertion:"
LARGEST_ASSERTION_BYTES: Final = 8 * 1024
LONGEST_LIFE_SECONDS: Final = 3600.0
LONGEST_JTI: Final = 256
MOST_KEYS: Final = 16
# None at all, as most libraries have it, or what says what it is; above all no access token (RFC 8725, 3.11).
_TYPES: Final = frozenset(
    {"jwt", "application/jwt", "client-authentication+jwt", "application/client-authentication+jwt"}
)
_FOREIGN_KEY_MEMBERS: Final = frozenset({"jku", "x5u", "jwk", "x5c", "crit", "b64"})
_FARTHEST_MOMENT: Final = 1e11
_DECOY: Final = ALGORITHMS["ES256"]
_DECOY_SIGNATURE: Final = b"\x01" * 64


class ClientAssertion(NamedTuple):
    """An assertion of canonical form; the signature is not checked yet, and the claims are the sender's word."""

    client_id: str
    jti: str
    expires_at: float
    alg: str
    kid: str | None
    signing_input: bytes
    signature: bytes


def read_assertion(compact: str, *, issuer: str, now: float, skew_seconds: float) -> ClientAssertion:
    """Take a client's assertion apart and check all that can be checked without its key.

    `iss` and `sub` are one client, `aud` is the issuer and nobody else (a token endpoint's URL is not: another server
    could send us what was made for it), `exp` is to come and at most an hour away, `nbf` and `iat` are not to come, and
    there is a `jti`. Raises InvalidToken, whose text says which of these it was and nothing of the assertion.
    """
    if len(compact) > LARGEST_ASSERTION_BYTES:
        raise InvalidToken("oversized", f"an assertion has at most {LARGEST_ASSERTION_BYTES} bytes")
    parts = compact.encode("utf-8", "surrogatepass").split(b".")
    if len(parts) != 3:  # noqa: PLR2004 - a compact JWS (RFC 7515, 7.1)
        raise InvalidToken("malformed", "client_assertion is no compact JWS")
    try:
        header, claims = (decode_object(unb64url(part)) for part in parts[:2])
        signature = unb64url(parts[2])
    except MalformedInput as error:
        raise InvalidToken("malformed", f"client_assertion is no signed JWT: {error}") from None
    alg, kid = _read_header(header)
    client_id, jti, expires_at = _read_claims(claims, issuer=issuer, now=now, skew_seconds=skew_seconds)
    return ClientAssertion(client_id, jti, expires_at, alg, kid, parts[0] + b"." + parts[1], signature)


def _read_header(header: Mapping[str, Any]) -> tuple[str, str | None]:
    alg, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise InvalidToken("algorithm", f"an assertion is signed by one of {', '.join(ALGORITHMS)}")
    if typ is not None and not (isinstance(typ, str) and typ.lower() in _TYPES):
        raise InvalidToken("type", "an assertion's typ is client-authentication+jwt, JWT or none")
    if _FOREIGN_KEY_MEMBERS & header.keys():
        raise InvalidToken("header", "an assertion brings no key of its own and has no critical extension")
    if kid is not None and not isinstance(kid, str):
        raise InvalidToken("header", "kid is a string")
    return alg, kid


def _read_claims(claims: Mapping[str, Any], *, issuer: str, now: float, skew_seconds: float) -> tuple[str, str, float]:
    subject, jti = claims.get("sub"), claims.get("jti")
    if not isinstance(subject, str) or not subject or claims.get("iss") != subject:
        raise InvalidToken("claims", "iss and sub are the client's id (RFC 7523, 3)")
    if claims.get("aud") not in (issuer, [issuer]):
        raise InvalidToken("audience", "aud is the issuer, and nobody else")
    if not isinstance(jti, str) or not 0 < len(jti) <= LONGEST_JTI:
        raise InvalidToken("claims", f"jti is a string of 1 to {LONGEST_JTI} characters")
    exp = _moment(claims, "exp")
    if exp is None:
        raise InvalidToken("claims", "exp is missing")
    if now >= exp + skew_seconds:
        raise InvalidToken("expired", "the assertion has expired")
    if exp > now + LONGEST_LIFE_SECONDS + skew_seconds:
        raise InvalidToken("claims", f"exp is at most {LONGEST_LIFE_SECONDS:.0f} s away")
    if any((moment := _moment(claims, name)) is not None and moment > now + skew_seconds for name in ("nbf", "iat")):
        raise InvalidToken("not_yet_valid", "nbf and iat are not to come")
    return subject, jti, exp


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _FARTHEST_MOMENT:
        raise InvalidToken("claims", f"{name} is a moment in Unix seconds")
    return float(value)


class ClientKeys:
    """The public keys of one client, prepared once; those that do not fit an algorithm of ours are none."""

    def __init__(self, jwks: Sequence[Mapping[str, Any]] = ()) -> None:
        self._jwks = jwks[:MOST_KEYS]
        self._prepared: dict[tuple[int, str], PublicKey | None] = {}

    def verify(self, assertion: ClientAssertion) -> bool:
        """Say whether one of the keys made the signature: the one that `kid` names, where both have one.

        A client without a key that fits costs a signature check as well: the time does not tell who has which keys.
        """
        algorithm, fitting = ALGORITHMS[assertion.alg], list(self._fitting(assertion))
        if not fitting:
            _DECOY.verify(assertion.signing_input, _decoy_key(), _DECOY_SIGNATURE)
        return any(algorithm.verify(assertion.signing_input, key, assertion.signature) for key in fitting)

    def _fitting(self, assertion: ClientAssertion) -> Iterator[PublicKey]:
        for index, jwk in enumerate(self._jwks):
            named = assertion.kid is None or jwk.get("kid") in (None, assertion.kid)
            key = self._key(index, jwk, assertion.alg) if named else None
            if key is not None:
                yield key

    def _key(self, index: int, jwk: Mapping[str, Any], alg: str) -> PublicKey | None:
        if jwk.get("alg") not in (None, alg) or jwk.get("use") not in (None, "sig"):
            return None
        if (index, alg) not in self._prepared:
            try:
                self._prepared[index, alg] = load_public(jwk, alg)
            except MalformedInput:
                self._prepared[index, alg] = None
        return self._prepared[index, alg]


@cache
def _decoy_key() -> PublicKey:
    """Return a key that nobody has the other half of."""
    return entropy.new_key("ES256").public_key()


class SpentAssertions:
    """The assertions that were used, by client and `jti`, for as long as they could be used again."""

    def __init__(self, redis: Redis, clock: Clock, *, skew_seconds: float) -> None:
        self._redis, self._clock, self._skew = redis, clock, skew_seconds

    async def spend(self, assertion: ClientAssertion) -> bool:
        """Use an assertion up: True for exactly one of all who try, in any process; raises StoreUnavailable.

        Whoever loses the answer to that has to make a new one.
        """
        name = PREFIX + digest(encode_json([assertion.client_id, assertion.jti]))
        # Twice the skew: this process may be ahead of another that would take it still.
        lasting_ms = int((assertion.expires_at + 2 * self._skew - self._clock.now()) * 1000) + 1000
        with stored():
            return bool(await self._redis.set(name, b"", nx=True, px=max(1000, lasting_ms)))
