"""`[introspection]`: where it listens, and how many tokens it remembers."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from keyturn.process.settings import Section
from keyturn.process.values import Listen, Range, Secret
from keyturn.verifier.verifier import CACHED_TOKENS


@dataclass(frozen=True, kw_only=True, slots=True)
class IntrospectionSettings(Section):
    """`[introspection]`."""

    SECTION: ClassVar[str] = "introspection"
    listen: Listen = field(default_factory=lambda: Listen(host="127.0.0.1", port=8403))
    cached_tokens: Annotated[int, Range(1, 4_194_304)] = CACHED_TOKENS
    """How many JWTs whose signature held are remembered, and as many opaque tokens whose record was read; time and
    revocation are asked anew for each answer."""
    identity: Secret | None = None
    """Private JWK of this service's identity, by which the signer knows it; None where nothing is to be signed."""
    signer: Listen | None = None
    """The key service's signing listener; set both, or neither."""
