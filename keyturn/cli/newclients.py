"""OAuth clients that are to be made: as `keyturn init` makes its own, and as `keyturn trust add-client` adds others."""

from dataclasses import dataclass

from keyturn import entropy
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential, secret_hash
from keyturn.contract.errors import MalformedInput
from keyturn.contract.redirects import MOST_REDIRECTS, check_redirect
from keyturn.contract.trust import (
    ADMIN_SCOPE,
    CODE_GRANT,
    LOGIN_SCOPE,
    OPERATING_SCOPES,
    PUBLIC_GRANTS,
    REFRESH_GRANT,
    Client,
    TokenFormat,
)

CLIENT_GRANT = "client_credentials"
GRANTS = (CLIENT_GRANT, CODE_GRANT, REFRESH_GRANT)
DEFAULT_AUDIENCE = "https://api.example"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewClient:
    """A client to make, with the id that it gets; a `public` one has no secret."""

    client_id: str
    grant_types: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    redirects: tuple[str, ...] = ()
    public: bool = False
    token_format: TokenFormat | None = None
    always_opaque: bool = False
    may_introspect: bool = False

    def check(self) -> None:
        """Raise MalformedInput, saying why, for a client that could do nothing, or more than one may."""
        for redirect in self.redirects:
            check_redirect(redirect)
        grants = set(self.grant_types)
        if len(self.redirects) > MOST_REDIRECTS:
            raise MalformedInput(f"a client has at most {MOST_REDIRECTS} redirect URIs")
        if (CODE_GRANT in grants) != bool(self.redirects):
            raise MalformedInput(f"the grant {CODE_GRANT} and redirect URIs go together: users are sent back there")
        if self.public and (CODE_GRANT not in grants or grants - PUBLIC_GRANTS or self.may_introspect):
            raise MalformedInput(f"a public client signs users in, by {CODE_GRANT} and {REFRESH_GRANT}, and no more")
        if not OPERATING_SCOPES.isdisjoint(self.scopes) and (grants - {CLIENT_GRANT} or not self.always_opaque):
            raise MalformedInput(f"a client that operates has the grant {CLIENT_GRANT} alone, and opaque tokens always")

    def entry(self, secret: str) -> Client:
        """Return what the trust document says of it; the secret of a public client is empty, and nothing fits."""
        return Client(
            secret_hash="" if self.public else secret_hash(secret), grant_types=self.grant_types, scopes=self.scopes,
            audiences=self.audiences, token_format=self.token_format, always_opaque=self.always_opaque,
            may_introspect=self.may_introspect,
        )  # fmt: skip


DEFAULT_CLIENTS = (
    NewClient(
        client_id="client", grant_types=(CLIENT_GRANT,), scopes=("read", "write"), audiences=(DEFAULT_AUDIENCE,)
    ),
    NewClient(
        client_id="app", grant_types=(CODE_GRANT, REFRESH_GRANT), scopes=("read", "write"),
        audiences=(DEFAULT_AUDIENCE,), redirects=("http://127.0.0.1/callback",), public=True,
    ),
    NewClient(client_id="resource", audiences=(DEFAULT_AUDIENCE,), may_introspect=True),
    NewClient(
        client_id="admin", grant_types=(CLIENT_GRANT,), scopes=(ADMIN_SCOPE,), audiences=(ADMIN_SCOPE,),
        always_opaque=True,
    ),
    NewClient(
        client_id="signin", grant_types=(CLIENT_GRANT,), scopes=(LOGIN_SCOPE,), audiences=(LOGIN_SCOPE,),
        always_opaque=True,
    ),
)  # fmt: skip


def new_secret() -> str:
    """Make a client's secret."""
    return make_credential(CredentialKind.CLIENT_SECRET, entropy.token_bytes(RANDOM_BYTES))
