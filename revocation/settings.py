"""`[revocation]`: where it listens, the lane's role key, and how long a revocation is kept."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from keyturn.process.settings import Section
from keyturn.process.values import Duration, Listen, Range, Secret


@dataclass(frozen=True, kw_only=True, slots=True)
class RevocationSettings(Section):
    """The section of the revocation service."""

    SECTION: ClassVar[str] = "revocation"
    role_key: Secret
    """The private JWK of the `revocations` role."""
    genesis_file: Path
    listen: Listen = field(default_factory=lambda: Listen(host="127.0.0.1", port=8404))
    bootstrap: bool = False
    """Whether to begin the lane where the store has none. Never set it where one should be."""
    leeway: Annotated[Duration, Range(10, 86_400)] = 60.0
    """Request timeout (10 s) and what the slowest resource server takes for a request; a revocation is kept for
    `rotation.token` + `rotation.lease` + 2 `freshness.skew` + this."""
    identity: Secret | None = None
    """Private JWK of this service's identity, by which the signer knows it; None where nothing is to be signed."""
    signer: Listen | None = None
    """The key service's signing listener; set both, or neither."""
