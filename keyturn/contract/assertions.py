"""How one service proves to another's listener who it is: a signed statement bound to one request, used once."""

from typing import Annotated

import msgspec
from msgspec import Meta

from keyturn.contract.encoding import digest, encode_json
from keyturn.contract.envelope import StatementKey, StatementType, open_statement
from keyturn.contract.errors import ForgedSignature
from keyturn.contract.trust import IdentityKind, Trust

LIFE_SECONDS = 30.0


class Assertion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who sends which request, until when; `jti` is spent by the first use."""

    service: str
    method: str
    path: str
    body: str  # base64url SHA-256 of the body.
    exp: float
    jti: Annotated[str, Meta(min_length=16, max_length=64)]


def sign_assertion(
    key: StatementKey, *, service: str, method: str, path: str, body: bytes, now: float, jti: str
) -> str:
    """Return the assertion for one request, valid for 30 s."""
    assertion = Assertion(service=service, method=method, path=path, body=digest(body), exp=now + LIFE_SECONDS, jti=jti)
    return key.sign(StatementType.ASSERTION, encode_json(assertion)).decode("ascii")


def open_assertion(
    compact: bytes,
    trust: Trust,
    *,
    service: str,
    method: str,
    path: str,
    body: bytes,
    now: float,
    skew_seconds: float,
) -> Assertion:
    """Return the assertion if `service` signed it for exactly this request; that its `jti` is new, the caller sees to.

    Raises ForgedSignature otherwise.
    """
    payload = open_statement(compact, StatementType.ASSERTION, trust.identity(service, IdentityKind.SERVICE))
    try:
        assertion = msgspec.json.decode(payload, type=Assertion)
    except msgspec.DecodeError as error:
        raise ForgedSignature("not an assertion") from error
    if (assertion.service, assertion.method, assertion.path, assertion.body) != (
        service,
        method,
        path,
        digest(body),
    ):
        raise ForgedSignature("an assertion for another request")
    if not now - skew_seconds < assertion.exp <= now + LIFE_SECONDS + skew_seconds:
        raise ForgedSignature("an assertion out of its time; compare the clocks of both services")
    return assertion
