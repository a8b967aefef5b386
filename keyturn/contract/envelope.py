"""Signed statements: a compact JWS by an Ed25519 key, its type and its signer in the protected header (RFC 7515)."""

from collections.abc import Mapping
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keyturn.contract.encoding import b64url, decode_object, encode_json, unb64url
from keyturn.contract.errors import ForgedSignature, MalformedInput
from keyturn.contract.jwk import public_jwk, thumbprint

LARGEST_STATEMENT_BYTES = 8 * 1024 * 1024  # The longest manifest of revocations; everything else is far smaller.
_LONGEST_HEADER = 512
_HEADERS_KEPT = 256


class StatementType(StrEnum):
    """The `typ` of each kind of statement, so that none can stand in for another (RFC 8725, 3.11)."""

    EVENT = "keyturn-event+jws"
    HEAD = "keyturn-head+jws"
    SNAPSHOT = "keyturn-snapshot+jws"
    TRUST = "keyturn-trust+jws"
    ROOT = "keyturn-root+jws"
    REPORT = "keyturn-report+jws"
    ASSERTION = "keyturn-assertion+jws"


class StatementKey:
    """A private Ed25519 key of the root, a role or an identity; signs statements and shows nothing of itself."""

    __slots__ = ("_key", "kid", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: dict[str, str] = public_jwk(key.public_key())
        self.kid = thumbprint(self.public)

    def __repr__(self) -> str:
        """Name the key by its public thumbprint."""
        return f"StatementKey({self.kid})"

    def sign(self, typ: StatementType, payload: bytes) -> bytes:
        """Return the compact JWS of that payload."""
        header = b64url(encode_json({"alg": "EdDSA", "kid": self.kid, "typ": typ.value}))
        signing_input = f"{header}.{b64url(payload)}".encode("ascii")
        return signing_input + b"." + b64url(self._key.sign(signing_input)).encode("ascii")


def statement_type(compact: bytes) -> StatementType:
    """Return what an unverified statement says it is; raises ForgedSignature for anything else."""
    header = _header(compact)
    try:
        return StatementType(header["typ"])
    except ValueError as error:
        raise ForgedSignature("a statement of no known type") from error


def statement_signer(compact: bytes) -> str:
    """Return the kid of the key that is said to have signed a statement; raises ForgedSignature for no statement."""
    return _header(compact)["kid"]


def open_statement(compact: bytes, typ: StatementType, signers: Mapping[str, Ed25519PublicKey]) -> bytes:
    """Return the payload if one of `signers` (by kid) made this statement of that type; else raise ForgedSignature."""
    header = _header(compact)
    if header["typ"] != typ.value:
        raise ForgedSignature(f"expected {typ.value}")
    signer = signers.get(header["kid"])
    if signer is None:
        raise ForgedSignature(f"{typ.value} by a key that has not this role")
    signing_input, _, signature = compact.rpartition(b".")
    try:
        signer.verify(unb64url(signature), signing_input)
        return unb64url(signing_input.partition(b".")[2])
    except (InvalidSignature, MalformedInput) as error:
        raise ForgedSignature(f"the signature of a {typ.value} does not hold") from error


_headers: dict[bytes, dict[str, str]] = {}  # Pure results by input, bounded: a signer's statements share a header.


def _header(compact: bytes) -> dict[str, str]:
    if len(compact) > LARGEST_STATEMENT_BYTES or compact.count(b".") != 2:  # noqa: PLR2004 - three parts
        raise ForgedSignature("not a compact JWS of acceptable size")
    segment = compact.partition(b".")[0]
    header = _headers.get(segment)
    if header is None:
        header = _read_header(segment)
        if len(_headers) >= _HEADERS_KEPT:
            _headers.clear()
        _headers[segment] = header
    return header


def _read_header(segment: bytes) -> dict[str, str]:
    if len(segment) > _LONGEST_HEADER:
        raise ForgedSignature("a statement's header is short")
    try:
        header = decode_object(unb64url(segment))
    except MalformedInput as error:
        raise ForgedSignature("not a compact JWS") from error
    plain = header.keys() == {"alg", "kid", "typ"} and all(isinstance(value, str) for value in header.values())
    if not plain or header["alg"] != "EdDSA":
        raise ForgedSignature("a statement's header has exactly alg EdDSA, kid and typ")
    return header
