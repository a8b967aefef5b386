"""Sections of `keyturn.toml` that all HTTP services share, beside those of every process."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from keyturn.contract.errors import ConfigurationError, MalformedInput
from keyturn.process.settings import Section, Settings
from keyturn.process.values import Duration, Range, Secret
from keyturn.verifier.freshness import Freshness
from serving.records import RecordKeys


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


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordSettings(Section):
    """`[records]`: the keys that records of opaque tokens are sealed and named with."""

    SECTION: ClassVar[str] = "records"
    key: Secret

    def keys(self) -> RecordKeys:
        """Return the keys; raises ConfigurationError if the file holds something else."""
        try:
            return RecordKeys.parse(self.key.reveal())
        except MalformedInput as error:
            raise ConfigurationError(
                str(error), setting="records.key_file", mend="name the records.json that `keyturn init` made"
            ) from error


def record_keys(settings: Settings) -> RecordKeys:
    """Return the keys of the record store; raises ConfigurationError."""
    return settings.section(RecordSettings).keys()
