"""What two branches of the keys lane know together, so that no recovery forgets a key, a step of it or a tombstone."""

from msgspec.structs import replace

from keyturn.contract.keys import KeyRecord, KeySet, Phase, RotationRequest

_ORDER = {phase: index for index, phase in enumerate(Phase)}  # As a key's life goes; `revoked` absorbs every other.


def lacks(holder: KeySet, held: KeySet, *, at: float) -> bool:
    """Say whether `holder` misses a key, a step of a key's life or an order that `held` knows.

    What can vouch for nothing any more at `at` (Unix seconds) is not missed.
    """
    if any(_is_missed(holder.get(key.kid), key, at) for key in held):
        return True
    return any(_is_open_still(holder, held, request) for request in held.requests)


def united(mine: KeySet, theirs: KeySet, *, at: float, place: tuple[int, int]) -> KeySet:
    """Return the union of two branches, as the snapshot at `place`, signed at `at`, states it.

    Each key takes the farther step of the two, and of two keys that both sign the earlier one retires. A key that waits
    to sign has to be adopted anew, at `place`; where one branch has not heard of it, its time begins anew as well.
    """
    known = {key.kid: key for key in mine}
    for key in theirs:
        other = known.get(key.kid)
        known[key.kid] = key if other is None else _farther(other, key)
    branched = lacks(mine, theirs, at=at)
    records = []
    for kid, key in known.items():
        anew = branched and (mine.get(kid) is None or theirs.get(kid) is None)
        published_at = at if anew else key.published_at
        waits = key.phase is Phase.PUBLISHED
        records.append(replace(key, published_at=published_at, published_place=place) if waits else key)
    records.sort(key=lambda key: key.published_at)
    newest = {(key.alg, key.use): key.kid for key in sorted(records, key=_activation) if key.phase is Phase.ACTIVE}
    settled = [_retired(key, at) if newest.get((key.alg, key.use)) != key.kid else key for key in records]
    keys = KeySet(settled)
    still_open = [one for one in (*mine.requests, *theirs.requests) if not _is_answered(keys, one)]
    return KeySet(settled, {(one.alg, one.use): one for one in still_open}.values())


def _is_missed(known: KeyRecord | None, key: KeyRecord, at: float) -> bool:
    if known is not None:
        return _ORDER[key.phase] > _ORDER[known.phase]
    ended = key.phase is Phase.REMOVED or (key.verify_until is not None and key.verify_until <= at)
    return key.phase is Phase.REVOKED or not ended


def _is_open_still(holder: KeySet, held: KeySet, request: RotationRequest) -> bool:
    """Say whether an order that `held` knows is neither known to `holder` nor carried out there."""
    alg, use = request.alg, request.use
    return holder.requested(alg, use) is None and holder.active(alg, use) == held.active(alg, use)


def _is_answered(keys: KeySet, request: RotationRequest) -> bool:
    named = None if request.kid is None else keys.get(request.kid)
    if named is not None:
        return named.phase is not Phase.PUBLISHED
    active = keys.active(request.alg, request.use)
    return active is not None and active.active_at is not None and active.active_at >= request.at


def _farther(one: KeyRecord, other: KeyRecord) -> KeyRecord:
    """Return the record of a key that got farther; its limits are the later ones, by which it may have signed."""
    ahead, behind = (one, other) if _ORDER[one.phase] >= _ORDER[other.phase] else (other, one)
    moments = {
        name: getattr(ahead, name) if getattr(ahead, name) is not None else getattr(behind, name)
        for name in ("active_at", "retiring_at")
    }
    return replace(
        ahead, sign_until=_later(ahead.sign_until, behind.sign_until),
        verify_until=_later(ahead.verify_until, behind.verify_until), **moments,
    )  # fmt: skip


def _later(one: float | None, other: float | None) -> float | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)


def _activation(key: KeyRecord) -> tuple[float, str]:
    return key.active_at or 0.0, key.kid


def _retired(key: KeyRecord, at: float) -> KeyRecord:
    return replace(key, retiring_at=at) if key.phase is Phase.ACTIVE else key
