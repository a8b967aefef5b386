"""What a JWT must look like before anything in it is believed (RFC 7519, RFC 8725, RFC 9068)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from keyturn.contract.encoding import decode_object, unb64url
from keyturn.contract.errors import InvalidToken, MalformedInput
from keyturn.contract.jwk import ALGORITHMS

ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
LARGEST_TOKEN_BYTES = 8 * 1024
_HEADERS_KEPT = 512
_FARTHEST_MOMENT = 1e11  # Unix seconds; a larger number is milliseconds or mischief.
_FOREIGN_KEY_MEMBERS = ("jku", "x5u", "jwk", "x5c")
_REQUIRED_STRINGS = ("iss", "sub", "client_id", "jti")


class Header(NamedTuple):
    """The members of a protected header that decide how a token is checked."""

    alg: str
    kid: str
    typ: str  # In lower case; empty where there is none.


class Token(NamedTuple):
    """A token of canonical form; nothing in it is verified yet."""

    header: Header
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes


_headers: dict[bytes, Header] = {}  # Pure results by input, bounded below: every token of a key shares its header.


def as_bytes(token: str | bytes) -> bytes:
    """Return a token's bytes; whatever is not ASCII stays what no token can be."""
    return token.encode("utf-8", "surrogatepass") if isinstance(token, str) else token


def parse_token(token: bytes, *, types: frozenset[str] = ACCESS_TOKEN_TYPES) -> Token:
    """Take an access token apart; raises InvalidToken unless it is the one canonical spelling of a plain JWS.

    Refused: over 8 KiB, base64url with padding or stray bits, member names that stand twice, `none`, HMAC, any
    header that brings its own key, any `crit`, and a `typ` that is not among `types` (by default RFC 9068's).
    """
    if len(token) > LARGEST_TOKEN_BYTES:
        raise InvalidToken("oversized", f"a token has at most {LARGEST_TOKEN_BYTES} bytes")
    parts = token.split(b".")
    if len(parts) != 3:  # noqa: PLR2004 - a compact JWS (RFC 7515, 7.1)
        raise InvalidToken("malformed", "not a compact JWS")
    segment, payload, signature = parts
    header = _headers.get(segment) or _read_header(segment)
    if header.typ not in types:
        raise InvalidToken("type", "not an access token (typ at+jwt)")
    try:
        return Token(header, decode_object(unb64url(payload)), segment + b"." + payload, unb64url(signature))
    except MalformedInput as error:
        raise InvalidToken("malformed", str(error)) from None


def _read_header(segment: bytes) -> Header:
    try:
        members = decode_object(unb64url(segment))
    except MalformedInput as error:
        raise InvalidToken("malformed", str(error)) from None
    alg, kid, typ = members.get("alg"), members.get("kid"), members.get("typ")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise InvalidToken("algorithm", "not an algorithm that we accept")
    if any(member in members for member in _FOREIGN_KEY_MEMBERS):
        raise InvalidToken("header", "a token does not bring its own key")
    if "crit" in members or "b64" in members:
        raise InvalidToken("header", "a critical extension that we do not know")
    if "typ" in members and not (isinstance(typ, str) and typ):
        raise InvalidToken("type", "typ is a string")
    if not isinstance(kid, str) or not kid:
        raise InvalidToken("header", "no kid")
    header = Header(alg, kid, (typ or "").lower())
    if len(_headers) >= _HEADERS_KEPT:
        _headers.clear()
    _headers[segment] = header
    return header


def check_claims(claims: Mapping[str, Any], *, issuer: str, now: float, skew_seconds: float) -> None:
    """Check form, issuer and time of an RFC 9068 access token; audience and scope are the policy's question.

    Raises InvalidToken with reason `claims`, `issuer`, `expired` or `not_yet_valid`.
    """
    if not all(isinstance(claims.get(name), str) for name in _REQUIRED_STRINGS):
        raise InvalidToken("claims", "iss, sub, client_id and jti are strings (RFC 9068, 2.2)")
    exp, iat, nbf = moment(claims, "exp"), moment(claims, "iat"), claims.get("nbf")
    if not isinstance(scope := claims.get("scope", ""), str) or scope != " ".join(scope.split(" ")).strip():
        raise InvalidToken("claims", "scope is a space-separated string")
    if not is_audience(claims.get("aud")):
        raise InvalidToken("claims", "aud is a string or a list of strings")
    if claims["iss"] != issuer:
        raise InvalidToken("issuer", "not our issuer")
    if now >= exp + skew_seconds:
        raise InvalidToken("expired")
    if iat > now + skew_seconds or (nbf is not None and moment(claims, "nbf") > now + skew_seconds):
        raise InvalidToken("not_yet_valid")


def is_audience(value: object) -> bool:
    """Say whether this is an `aud` (RFC 7519, 4.1.3): a string, or a list of strings that is not empty."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, str) for one in value)
    return isinstance(value, str)


def moment(claims: Mapping[str, Any], name: str) -> float:
    """Return a claim that is a NumericDate (RFC 7519, 2); raises InvalidToken (`claims`) for anything else."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _FARTHEST_MOMENT:
        raise InvalidToken("claims", f"{name} is a moment in Unix seconds")
    return value


def audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the audiences as a tuple, one or many."""
    value = claims.get("aud", ())
    return (value,) if isinstance(value, str) else tuple(value)
