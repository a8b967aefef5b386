"""Sections of `keyturn.toml` that all HTTP services share, beside those of every process."""

from dataclasses import dataclass
from typing import ClassVar

from keyturn.contract.errors import ConfigurationError, MalformedInput
from keyturn.process.settings import Section, Settings
from keyturn.process.values import Secret
from serving.records import RecordKeys


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
