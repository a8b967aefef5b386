"""What rotating takes, wired together: for the key service and for the worker alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from keyservice.importing import Importer
from keyservice.keyring import Keyring
from keyservice.rotator import Rotator
from keyservice.sealing import KeySealer
from keyservice.settings import KeyserviceSettings, TransitSettings
from keyturn.contract.keys import Use
from keyturn.contract.positions import Lane
from keyturn.contract.rotation import RotationPolicy
from keyturn.contract.trust import Trust
from keyturn.feed.presence import PresenceWatch
from keyturn.feed.publisher import Publisher
from keyturn.feed.recovery import Recovery
from keyturn.process.pinned import statement_key
from keyturn.process.rolekeys import RoleKeyFile
from keyturn.process.rotation import rotation_policies
from keyturn.process.settings import RedisSettings, Settings
from keyturn.verifier.statefiles import StateDirectory
from serving.archiving import archive_of
from serving.parts import Parts

ROLE_KEY = "keyservice.role_key_file"


@dataclass(frozen=True, slots=True)
class RotationParts:
    """The keys lane's publisher, the watch over verifiers, the opened keys, and who acts on all of them."""

    policies: Mapping[Use, RotationPolicy]
    publisher: Publisher
    role_key: RoleKeyFile
    recovery: Recovery
    watch: PresenceWatch
    keyring: Keyring
    rotator: Rotator
    importer: Importer

    @classmethod
    def make(cls, settings: Settings, parts: Parts, *, files: StateDirectory | None = None) -> Self:
        """Wire them from `[keyservice]`, `[rotation]` and the sections beside it; raises ConfigurationError.

        `files` is where who signs keeps the sealed forms of its keys, for a store that has lost them.
        """
        own, freshness = settings.section(KeyserviceSettings), parts.replica.freshness
        policies = rotation_policies(settings, freshness)
        key = statement_key(own.role_key, setting=ROLE_KEY)
        archive = archive_of(settings, parts)
        publisher = Publisher(Lane.KEYS, key, parts.feed, parts.replica, parts.clock, archive=archive, keep=parts.keep)
        role_key = RoleKeyFile(publisher, own.role_key, parts.clock, setting=ROLE_KEY, note=parts.log.warning)
        parts.follower.publishes.add(Lane.KEYS)
        live_seconds = freshness.expired_after_seconds + freshness.skew_seconds
        watch = PresenceWatch(
            parts.feed,
            trust_of(parts),
            parts.clock,
            live_seconds=live_seconds,
            durable=settings.section(RedisSettings).durable,
            hash_at=parts.replica.hash_at,
        )
        sealer = KeySealer(settings.section(TransitSettings).wrapper(own.kek_file))
        keyring = Keyring(sealer, parts.feed, parts.replica, files=files)
        rotator = Rotator(
            publisher=publisher, follower=parts.follower, watch=watch, keyring=keyring,
            policies=policies, clock=parts.clock, note=parts.log.info,
        )  # fmt: skip
        importer = Importer(
            publisher=publisher, follower=parts.follower, keyring=keyring, policy=policies[Use.ACCESS],
            clock=parts.clock, note=parts.log.info,
        )  # fmt: skip
        recovery = Recovery(
            publisher, parts.feed, parts.replica, parts.clock, read_anew=parts.follower.read_anew,
            genesis=own.genesis_file.read_bytes, note=parts.log.warning, beside=keyring.beside,
        )  # fmt: skip
        return cls(policies, publisher, role_key, recovery, watch, keyring, rotator, importer)

    @property
    def policy(self) -> RotationPolicy:
        """Return the policy of access tokens' keys."""
        return self.policies[Use.ACCESS]


def trust_of(parts: Parts) -> Callable[[], Trust]:
    """Return a reader of the newest trust document that the replica adopted."""
    return lambda: parts.replica.trust
