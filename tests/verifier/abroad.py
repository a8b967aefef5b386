"""A provider that people have already: its keys, the set that tells them, and tokens as it makes them."""

from typing import Any

from keyturn.clock import Clock
from keyturn.contract.encoding import encode_json
from keyturn.contract.issuers import ForeignIssuer
from keyturn.verifier.keysources import KeysTold, SourceFailed
from tests.world import World

URL = "https://login.example/tenant/"
KEYS_GOOD_SECONDS = 300.0


class Abroad:
    """A source of keys, and the tokens that they sign; `reachable` is the test's to change."""

    def __init__(self, clock: Clock, alg: str = "ES256", **members: Any) -> None:
        described: dict[str, Any] = {
            "name": "workforce", "url": URL, "token_seconds": 3600.0, "algorithms": (alg,), "types": frozenset({"jwt"}),
            "claims": {"client_id": "azp", "scope": "scp"},
        }  # fmt: skip
        self.issuer = ForeignIssuer(**(described | members))
        self.reachable, self.asked = True, 0
        self._alg = alg
        self._world = World(clock=clock, issuer=self.issuer.url)
        self.told: dict[str, dict[str, Any]] = {}
        self.rotate()

    def rotate(self) -> str:
        """Sign with a new key from now on, and tell it beside the others; return its kid."""
        published = self._world.new_key(self._alg)
        self._world.signing_kid = published.kid
        self.told[published.kid] = {"kid": published.kid, "use": "sig", **published.jwk}
        return published.kid

    def mint(self, *, kid: str | None = None, header: dict[str, Any] | None = None, **changes: Any) -> bytes:
        """Return an access token as such a provider makes it; a change to None drops the claim."""
        claims = {"client_id": None, "grant_id": None, "jti": None, "azp": "shop", "scope": None, "scp": ["read"]}
        return self._world.mint(kid=kid, header={"typ": "JWT"} | (header or {}), **(claims | changes))

    @property
    def jwks(self) -> bytes:
        """Return the set that it tells."""
        return encode_json({"keys": list(self.told.values())})

    async def read(self) -> KeysTold:
        """Tell it, as a source of keys."""
        self.asked += 1
        if not self.reachable:
            raise SourceFailed("it is away")
        return KeysTold(self.jwks, KEYS_GOOD_SECONDS)
