"""`[freshness]`: the limits of a replica's age, for every process that has a replica."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from keyturn.contract.errors import ConfigurationError
from keyturn.process.settings import Section
from keyturn.process.values import Duration, Range
from keyturn.verifier.freshness import Freshness


@dataclass(frozen=True, kw_only=True, slots=True)
class FreshnessSettings(Section):
    """`[freshness]`: the clock skew S that is forgiven, and when a replica is stale and expired."""

    SECTION: ClassVar[str] = "freshness"
    skew: Annotated[Duration, Range(0, 60)] = 2.0
    stale: Annotated[Duration, Range(1.5, 3600)] = 5.0
    expired: Annotated[Duration, Range(2, 86_400)] = 900.0

    def __post_init__(self) -> None:
        """Refuse an order of the limits by which a replica would expire before it is stale."""
        if not self.stale < self.expired:
            raise ConfigurationError(
                f"a replica would expire ({self.expired:g} s) before it is stale ({self.stale:g} s)",
                setting="freshness.expired", mend="make it longer than freshness.stale",
            )  # fmt: skip

    def freshness(self) -> Freshness:
        """Return the limits as the replica takes them."""
        return Freshness(stale_after_seconds=self.stale, expired_after_seconds=self.expired, skew_seconds=self.skew)
