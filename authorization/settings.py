"""`[authorization]`: where it listens, who it is to the signer, and how long access tokens live."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from keyturn.contract.envelope import StatementKey
from keyturn.process.pinned import statement_key
from keyturn.process.settings import Section
from keyturn.process.values import Duration, Listen, Range, Secret
from serving.settings import signer_path


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorizationSettings(Section):
    """`[authorization]`."""

    SECTION: ClassVar[str] = "authorization"
    identity: Secret
    """Private JWK of this service's identity, by which the signer knows it."""
    signer: Listen
    """The key service's signing listener."""
    listen: Listen = field(default_factory=lambda: Listen(host="127.0.0.1", port=8401))
    access_token: Annotated[Duration, Range(1, 86_400)] = 300.0
    """How long an access token is good for; the signer caps that of a JWT by its own limit."""

    def __post_init__(self) -> None:
        """Refuse a signer on the network."""
        signer_path(self.signer, service=self.SECTION)

    def identity_key(self) -> StatementKey:
        """Return the identity's key; raises ConfigurationError if the file holds something else."""
        return statement_key(self.identity, setting="authorization.identity_file")
