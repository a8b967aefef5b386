"""`[introspection]`: where it listens, and how many verified tokens it keeps."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from keyturn.process.settings import Section
from keyturn.process.values import Listen, Range
from keyturn.verifier.verifier import CACHED_TOKENS


@dataclass(frozen=True, kw_only=True, slots=True)
class IntrospectionSettings(Section):
    """`[introspection]`."""

    SECTION: ClassVar[str] = "introspection"
    listen: Listen = field(default_factory=lambda: Listen(host="127.0.0.1", port=8403))
    cached_tokens: Annotated[int, Range(1, 4_194_304)] = CACHED_TOKENS
    """How many JWTs whose signature held are remembered; time and revocation are asked anew for each answer."""
