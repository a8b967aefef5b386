"""`[authorization]`: where it listens, who it is to the signer, and how long access tokens live."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError, MalformedInput
from keyturn.contract.jwk import load_ed25519_private
from keyturn.process.settings import Section
from keyturn.process.values import Duration, Listen, Range, Secret


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
        if self.signer.path is None:
            raise ConfigurationError(
                "services are not authenticated to each other over TCP yet",
                setting="authorization.signer", mend="write the unix:/PATH of keyservice.signing_listen",
            )  # fmt: skip

    def signer_path(self) -> Path:
        """Return the path of the signer's socket."""
        return self.signer.path or Path()

    def identity_key(self) -> StatementKey:
        """Return the identity's key; raises ConfigurationError if the file holds something else."""
        try:
            return StatementKey(load_ed25519_private(json.loads(self.identity.reveal())))
        except (ValueError, AttributeError, MalformedInput) as error:
            raise ConfigurationError(
                "this is not a private Ed25519 JWK",
                setting="authorization.identity_file", mend="name the identity that `keyturn init` made",
            ) from error  # fmt: skip
