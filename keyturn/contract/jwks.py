"""The JSON Web Key Set as bytes, made once for each state of the key set (RFC 7517)."""

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


def render_jwks(keys: KeySet) -> Jwks:
    """Return every key that verifies or will, in order of publication; public members alone."""
    shown = [
        {**key.jwk, "kid": key.kid, "alg": key.alg, "use": "sig"}
        for key in keys
        if key.phase in _SHOWN and key.use is Use.ACCESS
    ]
    body = encode_json({"keys": shown})
    return Jwks(body, f'"{digest(body)}"', len(shown))
