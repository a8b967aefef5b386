"""Sections of `keyturn.toml` that all HTTP services share, beside those of every process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from redis.asyncio import Redis

from keyturn.clock import Clock
from keyturn.contract.errors import ConfigurationError, MalformedInput
from keyturn.process.grants import GrantSettings
from keyturn.process.pinned import statement_key
from keyturn.process.settings import Section, Settings
from keyturn.process.values import Duration, Listen, Range, Secret, Unfit
from serving.endings import Endings
from serving.families import Families
from serving.listings import Listings
from serving.parts import Parts
from serving.promises import GrantLife, Promises
from serving.records import PREFIX, RecordKeys, RecordStore
from serving.sealing import Sealer
from serving.signing import NoSigner, Signer, SigningClient


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


def record_store(settings: Settings, redis: Redis, clock: Clock, *, prefix: str = PREFIX) -> RecordStore:
    """Return the records of opaque tokens, or of what else has a prefix; other keys in the file are taken up.

    Raises ConfigurationError.
    """
    section = settings.section(RecordSettings)
    return RecordStore(redis, section.keys(), clock, renew=KeysInFile(section.key).renewed, prefix=prefix)


def sealer(settings: Settings, *, purpose: bytes) -> Sealer:
    """Return what seals for one purpose by the same keys. Raises ConfigurationError."""
    section = settings.section(RecordSettings)
    return Sealer(section.keys(), purpose=purpose, renew=KeysInFile(section.key).renewed)


def listings(settings: Settings, redis: Redis) -> Listings:
    """Return what the store knows of status lists, by the same keys. Raises ConfigurationError."""
    section = settings.section(RecordSettings)
    return Listings(redis, section.keys(), renew=KeysInFile(section.key).renewed)


def families(settings: Settings, redis: Redis) -> Families:
    """Return the families of refresh tokens, by the same keys. Raises ConfigurationError."""
    section = settings.section(RecordSettings)
    return Families(redis, section.keys(), renew=KeysInFile(section.key).renewed)


def endings(settings: Settings, redis: Redis) -> Endings:
    """Return the grants that have to end, by the same keys. Raises ConfigurationError."""
    section = settings.section(RecordSettings)
    return Endings(redis, section.keys(), renew=KeysInFile(section.key).renewed)


def promises(settings: Settings, redis: Redis) -> Promises:
    """Return revocation's word on how long it keeps what names a grant, by the same keys. Raises ConfigurationError."""
    section = settings.section(RecordSettings)
    return Promises(redis, section.keys(), renew=KeysInFile(section.key).renewed)


def grant_life(settings: Settings, parts: Parts) -> GrantLife:
    """Return how long grants last, by `grants.life` and by that word. Raises ConfigurationError."""
    own_seconds = settings.section(GrantSettings).life
    return GrantLife(promises(settings, parts.redis), parts.clock, issuer=parts.issuer, own_seconds=own_seconds)


class KeysInFile:
    """The file of the record keys, read again whenever somebody has to know; it may change under a running service."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def renewed(self) -> RecordKeys | None:
        """Return the keys that stand there now, None if they are those of before, or cannot be read."""
        try:
            key = self._key.again()
            if key.reveal() == self._key.reveal():
                return None
            keys = RecordKeys.parse(key.reveal())
        except (Unfit, MalformedInput):  # Half-written, or gone: what was read before stays.
            return None
        self._key = key
        return keys


def signer_path(signer: Listen, *, service: str) -> Path:
    """Return the path of the signer's socket; raises ConfigurationError for a signer on the network."""
    if signer.path is None:
        raise ConfigurationError(
            "services are not authenticated to each other over TCP yet",
            setting=f"{service}.signer", mend="write the unix:/PATH of keyservice.signing_listen",
        )  # fmt: skip
    return signer.path


def signer_of(service: str, *, identity: Secret | None, signer: Listen | None, clock: Clock) -> Signer:
    """Return a service's way to the signer, by its settings `identity_file` and `signer`; NoSigner without both.

    Raises ConfigurationError for one without the other, and for what they must not name.
    """
    if identity is None and signer is None:
        return NoSigner(service)
    if identity is None or signer is None:
        missing, there = ("identity_file", "signer") if identity is None else ("signer", "identity_file")
        raise ConfigurationError(
            f"{service}.{there} is set and this is not: neither signs without the other",
            setting=f"{service}.{missing}", mend="set both, or take both out",
        )  # fmt: skip
    key = statement_key(identity, setting=f"{service}.identity_file")
    return SigningClient(signer_path(signer, service=service), key, clock, service=service)


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusListSettings(Section):
    """`[statuslists]`: whether JWT access tokens name a place in a status list, and how long a list may be cached."""

    SECTION: ClassVar[str] = "statuslists"
    enabled: bool = False
    """Whether tokens carry `status` and the lists are served; set it alike for authorization and revocation."""
    ttl: Annotated[Duration, Range(1, 3600)] = 15.0
    """For how long who verifies by a list may keep it before asking again: `ttl` and `max-age`."""
