"""`[grants]`: how long what a user allowed a client once is good for."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from keyturn.process.settings import Section
from keyturn.process.values import Duration, Range

LONGEST_GRANT_SECONDS: Final = 366 * 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantSettings(Section):
    """`[grants]`."""

    SECTION: ClassVar[str] = "grants"
    life: Annotated[Duration, Range(300, LONGEST_GRANT_SECONDS)] = 30 * 86_400.0
    """From sign-in to the moment by which everything that came of it has ended; set it alike for authorization,
    introspection and revocation, which keeps for as long what names a grant."""
