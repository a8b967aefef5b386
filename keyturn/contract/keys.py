"""A signing key, the phase of its life that it is in, and the set of all keys of an issuer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeAlias

import msgspec

from keyturn.contract.errors import BrokenChain

REMOVED_KEPT = 64  # Removed keys that GET /keys still tells of.


class Phase(StrEnum):
    """Where a key stands; computed from its moments, never stored."""

    PUBLISHED = "published"  # In the JWKS so that verifiers hold it before it signs.
    ACTIVE = "active"
    RETIRING = "retiring"  # Signs nothing new; still vouches for what it signed.
    REMOVED = "removed"  # Nothing that it signed can still be valid.
    REVOKED = "revoked"  # Rejected by name.


class Use(StrEnum):
    """What a key signs; one key never serves two uses."""

    ACCESS = "access"
    INTROSPECTION = "introspection"
    STATUS = "status"


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the feed says of one key; moments are Unix seconds, written once."""

    kid: str
    alg: str
    jwk: dict[str, Any]  # Public members only.
    use: Use
    token_seconds: float  # T: the longest life of what it signs.
    published_at: float
    published_place: tuple[int, int]  # Epoch and sequence of its publication: what a verifier must have adopted.
    active_at: float | None = None
    sign_until: float | None = None  # The signer refuses afterwards, and verifiers refuse a later `iat`.
    verify_until: float | None = None  # The signer refuses an `exp` beyond it.
    retiring_at: float | None = None
    removed_at: float | None = None
    revoked_at: float | None = None

    @property
    def phase(self) -> Phase:
        """Return the phase that the moments add up to; `revoked` absorbs every other."""
        if self.revoked_at is not None:
            return Phase.REVOKED
        if self.removed_at is not None:
            return Phase.REMOVED
        if self.retiring_at is not None:
            return Phase.RETIRING
        return Phase.PUBLISHED if self.active_at is None else Phase.ACTIVE


class _Change(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """A step in a key's life."""


class Published(_Change, frozen=True, tag="published"):
    """A new key enters the JWKS."""

    kid: str
    alg: str
    jwk: dict[str, Any]
    use: Use
    token_seconds: float


class Activated(_Change, frozen=True, tag="activated"):
    """A published key begins to sign; its two limits are written here, once."""

    kid: str
    sign_until: float
    verify_until: float


class Retired(_Change, frozen=True, tag="retired"):
    """The active key stops signing."""

    kid: str


class Removed(_Change, frozen=True, tag="removed"):
    """A retiring key leaves the JWKS."""

    kid: str


class Revoked(_Change, frozen=True, tag="revoked"):
    """A key is rejected by name from now on."""

    kid: str
    reason: str = ""


class RotationRequested(_Change, frozen=True, tag="rotation_requested"):
    """An operator asked for the next key of an algorithm; the next activation answers it."""

    alg: str
    use: Use
    not_before: float | None = None  # Unix seconds; None means as soon as the barrier holds.
    kid: str | None = None  # The published key that is to sign next; None means the one that was published first.


KeyChange: TypeAlias = Published | Activated | Retired | Removed | Revoked | RotationRequested


class RotationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that no activation has answered yet."""

    alg: str
    use: Use
    at: float
    not_before: float | None = None
    kid: str | None = None


class KeySet:
    """All keys of an issuer by kid, in order of publication; a value, changed by making the next one."""

    __slots__ = ("_active", "_records", "requests")

    def __init__(self, records: Iterable[KeyRecord] = (), requests: Iterable[RotationRequest] = ()) -> None:
        self._records: Mapping[str, KeyRecord] = {record.kid: record for record in records}
        self.requests = tuple(requests)
        active = [record for record in self._records.values() if record.phase is Phase.ACTIVE]
        self._active = {(record.alg, record.use): record for record in reversed(active)}

    def __iter__(self) -> Iterator[KeyRecord]:
        """Iterate over the records in order of publication."""
        return iter(self._records.values())

    def __len__(self) -> int:
        """Count the keys of every phase."""
        return len(self._records)

    def get(self, kid: str) -> KeyRecord | None:
        """Return the record of a kid, if there ever was one."""
        return self._records.get(kid)

    def of(self, alg: str, use: Use, phase: Phase) -> list[KeyRecord]:
        """Return the keys of one algorithm, use and phase, the oldest first."""
        return [key for key in self if key.alg == alg and key.use is use and key.phase is phase]

    def active(self, alg: str, use: Use) -> KeyRecord | None:
        """Return the key that signs for an algorithm and use."""
        return self._active.get((alg, use))

    def standby(self, alg: str, use: Use) -> KeyRecord | None:
        """Return the published key that signs next: the one asked for by name, else the one held the longest."""
        published, request = self.of(alg, use, Phase.PUBLISHED), self.requested(alg, use)
        named = None if request is None else request.kid
        return next((key for key in published if key.kid == named), published[0] if published else None)

    def requested(self, alg: str, use: Use) -> RotationRequest | None:
        """Return the open request for an algorithm and use."""
        return next((request for request in self.requests if (request.alg, request.use) == (alg, use)), None)

    def after(self, changes: Sequence[KeyChange], *, at: float, place: tuple[int, int]) -> "KeySet":
        """Return the set after the changes of one event, made at `at` (Unix seconds) and standing at `place`.

        Raises BrokenChain for a step that no key can take, such as activating one that is not published.
        """
        records, requests = dict(self._records), list(self.requests)
        for change in changes:
            match change:
                case Published():
                    if change.kid in records:
                        raise BrokenChain(f"key {change.kid} is published twice")
                    records[change.kid] = KeyRecord(
                        kid=change.kid, alg=change.alg, jwk=change.jwk, use=change.use,
                        token_seconds=change.token_seconds, published_at=at, published_place=place,
                    )  # fmt: skip
                case RotationRequested():
                    requests = _asked(requests, change, at)
                case _:
                    key = records.get(change.kid)
                    if key is None:
                        raise BrokenChain(f"a change to key {change.kid}, which was never published")
                    records[change.kid] = _step(key, change, at)
        changed = [records[change.kid] for change in changes if not isinstance(change, RotationRequested | Published)]
        open_still = [one for one in requests if not any(_settles(key, one) for key in changed)]
        return KeySet(_without_long_gone(records), open_still)


def _asked(requests: list[RotationRequest], change: RotationRequested, at: float) -> list[RotationRequest]:
    """Return the open requests after one more: there is one for each algorithm and use.

    It stands for the earliest moment that anybody asked for, and for the last key that was named.
    """
    new = RotationRequest(alg=change.alg, use=change.use, at=at, not_before=change.not_before, kid=change.kid)
    held = next((one for one in requests if (one.alg, one.use) == (new.alg, new.use)), None)
    if held is not None:
        earlier = held if (held.not_before or 0) <= (new.not_before or 0) else new
        new = msgspec.structs.replace(earlier, kid=new.kid or held.kid)
    return requests if new == held else [*(one for one in requests if one is not held), new]


def _settles(key: KeyRecord, request: RotationRequest) -> bool:
    """Say whether a key, as an event left it, ends a request: it signs now, or it was named and never will."""
    if (key.alg, key.use) != (request.alg, request.use):
        return False
    return key.kid == request.kid or (key.phase is Phase.ACTIVE and request.kid is None)


def _without_long_gone(records: Mapping[str, KeyRecord]) -> list[KeyRecord]:
    """Return the records but for all removed keys beyond the newest: a set that only grew would slow every reader."""
    removed = sorted((key.removed_at or 0.0, key.kid) for key in records.values() if key.phase is Phase.REMOVED)
    gone = {kid for _, kid in removed[:-REMOVED_KEPT]}
    return [key for key in records.values() if key.kid not in gone]


def _step(key: KeyRecord, change: Activated | Retired | Removed | Revoked, at: float) -> KeyRecord:
    match change, key.phase:
        case Activated(), Phase.PUBLISHED:
            limits = {"sign_until": change.sign_until, "verify_until": change.verify_until}
            return msgspec.structs.replace(key, active_at=at, **limits)
        case Retired(), Phase.ACTIVE:
            return msgspec.structs.replace(key, retiring_at=at)
        case Removed(), Phase.RETIRING | Phase.PUBLISHED:
            return msgspec.structs.replace(key, removed_at=at)
        case Revoked(), Phase.REVOKED:
            return key
        case Revoked(), _:
            return msgspec.structs.replace(key, revoked_at=at)
    raise BrokenChain(f"key {key.kid} is {key.phase} and cannot be {type(change).__name__.lower()}")
