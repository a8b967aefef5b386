"""The JSON Web Key Set as bytes, made once for each state of the key set (RFC 7517)."""

from collections.abc import Collection
from dataclasses import dataclass

from keyturn.contract.encoding import digest, encode_json
from keyturn.contract.keys import KeySet, Phase, Use

_SHOWN = frozenset({Phase.PUBLISHED, Phase.ACTIVE, Phase.RETIRING})


@dataclass(frozen=True, slots=True)
class Jwks:
    """A key set's public form and its entity tag (RFC 9110, 8.8.3)."""

    body: bytes
    etag: str
    count: int


def render_jwks(keys: KeySet, *, uses: Collection[Use] = tuple(Use)) -> Jwks:
    """Return every key of these uses that verifies or will, in order of publication; public members alone."""
    shown = [
        {**key.jwk, "kid": key.kid, "alg": key.alg, "use": "sig"}
        for key in keys
        if key.phase in _SHOWN and key.use in uses
    ]
    body = encode_json({"keys": shown})
    return Jwks(body, f'"{digest(body)}"', len(shown))
