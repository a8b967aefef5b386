"""What a doctor goes by: facts that were found out about a store, its feed and the processes, and what could not be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from keyturn.contract.keys import KeySet
from keyturn.contract.positions import Lane
from keyturn.contract.reports import Report
from keyturn.contract.trust import Trust
from keyturn.process.redis import ServerFacts
from keyturn.verifier.freshness import Freshness


@dataclass(frozen=True, kw_only=True, slots=True)
class UserFacts:
    """One user of the store: why it could not log in, or the rights that are not as they must be."""

    trouble: str | None = None
    lacks: tuple[str, ...] = ()
    exceeds: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneFacts:
    """A lane as a verifier that begins now finds it."""

    top: str | None = None  # EPOCH:SEQUENCE as the store names it; None for a lane that never began.
    top_place: tuple[int, int] | None = None  # None where the store names no position.
    held: tuple[int, int] = (0, 0)  # How far the new verifier came.
    said_at: float | None = None  # When the newest statement was signed; None where it is not to be believed.
    complaints: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ServiceFacts:
    """A process that the configuration names an address of: ready, not, or not to be reached."""

    ready: bool | None
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchiveFacts:
    """The archive that the configuration names: how much is in it and how far it goes, or what is wrong with it."""

    directory: str
    segments: int = 0
    ends: tuple[str, ...] = ()  # LANE EPOCH:SEQUENCE of each lane's newest event.
    trouble: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """All that was found out; None and missing members are what could not be."""

    now: float
    freshness: Freshness
    users: Mapping[str, UserFacts] = field(default_factory=dict)
    separate_users: bool = True
    server: ServerFacts | None = None
    durable: bool = False
    trust: Trust | None = None
    trust_trouble: str | None = None
    lanes: Mapping[Lane, LaneFacts] = field(default_factory=dict)
    keys: KeySet = field(default_factory=KeySet)
    sealed: frozenset[str] | None = None
    reports: Sequence[Report] | None = None
    archive: ArchiveFacts | None = None
    services: Mapping[str, ServiceFacts] = field(default_factory=dict)
