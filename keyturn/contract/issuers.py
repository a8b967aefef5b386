"""Issuers that are not ours: what is known of one, the public keys that it tells, and how its tokens are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jwt.algorithms import Algorithm

from keyturn.contract.encoding import decode_object
from keyturn.contract.errors import InvalidToken, MalformedInput
from keyturn.contract.foreign import read_keys
from keyturn.contract.jwk import ALGORITHMS, PRIVATE_MEMBERS, PublicKey, fits, load_public
from keyturn.contract.tokens import is_audience, moment

MOST_ISSUERS = 16
MOST_KEYS = 64  # In one set; providers tell two to ten.
STALE_SECONDS = 3600.0
NO_TYPE = ""
MAPPED_CLAIMS = frozenset({"sub", "client_id", "scope", "jti", "sid"})
# What ID tokens (OpenID Connect Core, 2 and 3.3.2.11) and security events (RFC 8417, 2.2) carry, and no access token.
_OF_OTHER_TOKENS = ("events", "nonce", "at_hash", "c_hash")
_ACCESS_TYPES = frozenset({"at+jwt", "application/at+jwt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignIssuer:
    """Another issuer, as our settings describe it.

    `url` is its `iss` byte for byte. `token_seconds` is the longest life of its tokens: a longer one is refused, since
    its revocation could be forgotten before it ends. `types` are the `typ` that its access tokens bear, without
    `application/`; NO_TYPE stands for a header without one. `claims` says which of its claims stands for one of ours,
    such as `azp` for `client_id`. `audience` is what its security events are for; `sessions` says that its access
    tokens carry `sid`. `jwks` is where its keys stand, a URL or a file; None: where its metadata says. For
    `stale_seconds` they are used beyond their time, where they cannot be read again.
    """

    name: str
    url: str
    token_seconds: float
    algorithms: tuple[str, ...] = ("RS256",)
    types: frozenset[str] = frozenset({"at+jwt"})
    audience: str | None = None
    sessions: bool = False
    claims: Mapping[str, str] = field(default_factory=dict)
    jwks: str | Path | None = None
    stale_seconds: float = STALE_SECONDS

    @property
    def header_types(self) -> frozenset[str]:
        """Return every spelling of `types` in a header, in lower case (RFC 7515, 4.1.9)."""
        types = frozenset(each.lower() for each in self.types)
        return types | {f"application/{each}" for each in types if each != NO_TYPE}


class IssuerKey(NamedTuple):
    """A public key of another issuer, bound to one algorithm."""

    kid: str
    alg: str
    key: PublicKey
    algorithm: Algorithm
    jwk: Mapping[str, str]


class IssuerKeySet(NamedTuple):
    """The keys that can be used, by kid, and why others of the set cannot."""

    keys: Mapping[str, IssuerKey]
    left_out: tuple[str, ...]


def read_key_set(raw: bytes, issuer: ForeignIssuer, held: Mapping[str, IssuerKey] | None = None) -> IssuerKeySet:
    """Read a JWK set (RFC 7517, 5) as far as it can be used; a key that is the same in `held` stays that object.

    Left out are keys that are weak, private, not for signatures (RFC 7517, 4.2 and 4.3), without a kid, or for none
    of the issuer's algorithms, and all that share one kid. A key that names no algorithm is for the first of the
    issuer's that fits its type (RFC 8725, 3.1: one algorithm a key). Raises MalformedInput for what is no set, one of
    more than 64 keys, and one of which no key can be used: it must not take the place of a good one.
    """
    members = decode_object(raw).get("keys")
    if not isinstance(members, list) or not all(isinstance(one, dict) for one in members):
        raise MalformedInput("a JWK set has the member keys, a list of objects")
    if len(members) > MOST_KEYS:
        raise MalformedInput(f"a set of {len(members)} keys is too large, {MOST_KEYS} are the most")
    keys: dict[str, IssuerKey] = {}
    left_out: list[str] = []
    kids = [one.get("kid") for one in members]
    for jwk in members:
        kid = jwk.get("kid")
        try:
            key = _read(jwk, issuer, namesakes=kids.count(kid))
        except MalformedInput as error:
            left_out.append(f"{str(kid)[:64]!r}: {error}")
            continue
        known = (held or {}).get(key.kid)
        keys[key.kid] = known if known is not None and (known.jwk, known.alg) == (key.jwk, key.alg) else key
    if not keys:
        raise MalformedInput(f"no key of the set can be used: {'; '.join(left_out)[:300] or 'it is empty'}")
    return IssuerKeySet(keys, tuple(left_out))


def _read(jwk: Mapping[str, Any], issuer: ForeignIssuer, *, namesakes: int) -> IssuerKey:
    if namesakes > 1:
        raise MalformedInput("two keys have this kid: nobody could say which of them signed")
    if not isinstance(jwk.get("kid"), str):
        raise MalformedInput("it has no kid, and tokens name their key by it")
    if PRIVATE_MEMBERS & jwk.keys():
        raise MalformedInput("its private half, or a shared secret, stands in the open")
    operations = jwk.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        raise MalformedInput("its key_ops do not have verify")
    if jwk.get("use") not in (None, "sig"):
        raise MalformedInput("its use is not sig")
    alg = jwk.get("alg") or next((one for one in issuer.algorithms if fits(jwk, one)), None)
    if alg not in issuer.algorithms:
        raise MalformedInput(f"it is for none of {', '.join(issuer.algorithms)}")
    (key,), _ = read_keys([dict(jwk)], alg=alg)
    return IssuerKey(key.kid, key.alg, load_public(key.jwk, key.alg), ALGORITHMS[key.alg], key.jwk)


def check_foreign_claims(
    claims: Mapping[str, Any], issuer: ForeignIssuer, *, typ: str, now: float, skew_seconds: float
) -> None:
    """Check form, type, time and life of another issuer's access token; its `iss` chose `issuer`.

    `sub`, `aud`, `iat` and `exp` must be there: without `iat` neither a cutoff nor the life could be compared.
    `jti`, `sid` and `client_id` may be absent; then a revocation cannot name the token by them. Raises InvalidToken
    with reason `claims`, `type`, `lifetime`, `expired` or `not_yet_valid`.
    """
    if not isinstance(claims.get("sub"), str):
        raise InvalidToken("claims", "sub is a string")
    if not is_audience(claims.get("aud")):
        raise InvalidToken("claims", "aud is a string or a list of strings")
    if typ not in _ACCESS_TYPES and any(name in claims for name in _OF_OTHER_TOKENS):
        raise InvalidToken("type", "an ID token or a security event, and no access token (RFC 8725, 3.12)")
    exp, iat = moment(claims, "exp"), moment(claims, "iat")
    if exp - iat > issuer.token_seconds:
        raise InvalidToken("lifetime", "lives longer than its issuer's setting token")
    if now >= exp + skew_seconds:
        raise InvalidToken("expired")
    if iat > now + skew_seconds or (claims.get("nbf") is not None and moment(claims, "nbf") > now + skew_seconds):
        raise InvalidToken("not_yet_valid")


def mapped_claims(claims: Mapping[str, Any], issuer: ForeignIssuer) -> dict[str, Any]:
    """Return the claims under our names: what stands for one of ours takes its place, where the token has it.

    A scope that is a list of strings becomes the space-separated string of RFC 6749, 3.3. Raises InvalidToken
    (`claims`) for a name or scope of another form: what cannot be compared must not pass as absent.
    """
    mapped = dict(claims) | {ours: claims[theirs] for ours, theirs in issuer.claims.items() if theirs in claims}
    scope = mapped.get("scope", "")
    if isinstance(scope, list) and all(isinstance(one, str) and one and " " not in one for one in scope):
        mapped["scope"] = scope = " ".join(scope)
    if not isinstance(scope, str) or scope != scope.strip():
        raise InvalidToken("claims", "scope is a space-separated string, or a list")
    if any(name in mapped and not isinstance(mapped[name], str) for name in MAPPED_CLAIMS):
        raise InvalidToken("claims", "sub, client_id, jti and sid are strings")
    return mapped
