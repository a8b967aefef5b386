"""Keys that another issuer made, brought under this one: to verify what they signed, or to sign from now on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keyservice.keyring import Keyring
from keyservice.rotator import KEY_SET_CHANGED, LOST_RACE, Outcome
from keyturn.clock import Clock
from keyturn.contract.errors import MalformedInput, PositionTaken
from keyturn.contract.events import SignedEvent
from keyturn.contract.foreign import ForeignKey, read_keys
from keyturn.contract.jwk import thumbprint
from keyturn.contract.keys import Activated, KeyChange, KeyRecord, KeySet, Phase, Published, Retired, RotationRequested
from keyturn.contract.rotation import RotationPolicy, activation_of_new
from keyturn.feed.log import Beside
from keyturn.feed.publisher import Publisher
from keyturn.verifier.follower import Follower

LONGEST_TOKEN_SECONDS = 31 * 86_400.0
_MOST_RACES = 16
_MEMBERS = frozenset({"keys", "as", "alg", "kid", "token"})


@dataclass(frozen=True, slots=True)
class Import:
    """What an operator brings: keys that only verify (`signs` False), or the one that is to sign next."""

    keys: Sequence[ForeignKey]
    left_out: Sequence[str]  # Kids of keys for encryption.
    signs: bool
    token_seconds: float  # T of the issuer that the keys come from.


def read_import(body: dict[str, Any], policy: RotationPolicy) -> Import:
    """Return what `{"keys", "as", "alg"?, "kid"?, "token"?}` brings; raises MalformedInput, which repeats no key."""
    if unknown := body.keys() - _MEMBERS:
        raise MalformedInput(f"unknown member {min(unknown)!r}; the body has {', '.join(sorted(_MEMBERS))}")
    written, how = body.get("keys"), body.get("as")
    if not isinstance(written, list) or not all(isinstance(one, dict | str) for one in written):
        raise MalformedInput("keys is a list of JWKs and PEM texts")
    if how not in ("retiring", "active"):
        raise MalformedInput("as is retiring (they verify what they signed) or active (the key signs from now on)")
    for name in ("alg", "kid"):
        if not isinstance(body.get(name), str | None):
            raise MalformedInput(f"{name} is a string")
    keys, left_out = read_keys(written, alg=body.get("alg"), kid=body.get("kid"))
    if how == "active":
        return _signing(keys, left_out, body, policy)
    token = body.get("token", policy.token_seconds)
    if isinstance(token, bool) or not isinstance(token, int | float) or not 0 < token <= LONGEST_TOKEN_SECONDS:
        raise MalformedInput(f"token is how long their tokens live: more than 0, up to {LONGEST_TOKEN_SECONDS:g} s")
    return Import(keys, left_out, signs=False, token_seconds=float(token))


def _signing(keys: list[ForeignKey], left_out: list[str], body: dict[str, Any], policy: RotationPolicy) -> Import:
    if "token" in body:
        raise MalformedInput("token goes with retiring: an active key signs tokens of rotation.token")
    if len(keys) != 1:
        raise MalformedInput("one key at a time signs: name it by kid, and bring the others as retiring")
    (key,) = keys
    if key.private is None:
        raise MalformedInput("an active key signs: bring its private half, or bring it as retiring")
    if key.alg not in policy.algorithms:
        raise MalformedInput(f"{key.alg} is not among rotation.algorithms: add it there, or bring the key as retiring")
    return Import(keys, left_out, signs=True, token_seconds=policy.token_seconds)


def changes_for(wanted: Import, keys: KeySet, policy: RotationPolicy, now: float) -> list[KeyChange]:
    """Return what brings the keys into the set, nothing where they are there already.

    A key that only verifies passes through its whole life up to `retiring` in one event. One that is to sign is
    published and named as the next; the barrier lets it sign like any other. Raises MalformedInput for a key that
    cannot come in.
    """
    first = not any(key.use is policy.use for key in keys)
    if first and not wanted.signs:
        raise MalformedInput("the issuer has no key of its own yet; it makes its first in a moment: ask again then")
    changes: list[KeyChange] = []
    for key in wanted.keys:
        held = _held(key, keys)
        if held is None:
            changes.append(
                Published(kid=key.kid, alg=key.alg, jwk=key.jwk, use=policy.use, token_seconds=wanted.token_seconds)
            )
        if wanted.signs:
            changes += _to_sign(key, held, keys, policy, now, first=first)
        elif held is None:
            until = now + policy.lease_seconds + wanted.token_seconds + 2 * policy.skew_seconds
            changes += [Activated(kid=key.kid, sign_until=now, verify_until=until), Retired(kid=key.kid)]
    return changes


def _to_sign(
    key: ForeignKey, held: KeyRecord | None, keys: KeySet, policy: RotationPolicy, now: float, *, first: bool
) -> list[KeyChange]:
    if first:  # Nobody can hold a set that lacks it.
        return [activation_of_new(key.kid, key.alg, policy, now)]
    if held is not None and held.phase is Phase.RETIRING:
        raise MalformedInput(f"key {key.kid} has stopped signing here, and none begins again: make a new one")
    if held is not None and held.phase is Phase.ACTIVE:
        return []
    request = keys.requested(key.alg, policy.use)
    if request is not None and request.kid == key.kid:
        return []
    return [RotationRequested(alg=key.alg, use=policy.use, kid=key.kid)]


def _held(key: ForeignKey, keys: KeySet) -> KeyRecord | None:
    """Return the record of a key that is in the set already; raises MalformedInput where it must not come in."""
    print_ = thumbprint(key.jwk)
    same = [one for one in keys if thumbprint(one.jwk) == print_]
    if any(one.phase is Phase.REVOKED for one in same):
        raise MalformedInput(f"key {key.kid} was revoked here, and no revoked key comes back")
    held = keys.get(key.kid)
    if held is None:
        present = next((one for one in same if one.phase is not Phase.REMOVED), None)
        if present is not None:
            raise MalformedInput(f"key {key.kid} is in the key set already, by the name {present.kid}")
        return None
    if held not in same:
        raise MalformedInput(f"another key is called {key.kid} here: tokens could not say which one signed them")
    if held.alg != key.alg:
        raise MalformedInput(f"key {key.kid} is here for {held.alg}, and a key is for one algorithm")
    if held.phase is Phase.REMOVED:
        raise MalformedInput(f"key {key.kid} was here and has gone: nothing that it signed can still be valid")
    return held


class Importer:
    """Brings keys in by one event; a lost race decides again."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        follower: Follower,
        keyring: Keyring,
        policy: RotationPolicy,
        clock: Clock,
        note: Callable[..., None],
    ) -> None:
        self._publisher, self._follower, self._keyring = publisher, follower, keyring
        self._policy, self._clock, self._note = policy, clock, note

    async def bring(self, wanted: Import) -> Outcome:
        """Bring the keys; asking again is fine. The outcome's kid is that of the first.

        Raises MalformedInput for keys that cannot come in, WrapperUnavailable, and FeedUnavailable if the outcome
        is unknown.
        """
        event: SignedEvent | None = None
        kid = wanted.keys[0].kid
        for attempt in range(1, _MOST_RACES + 1):
            try:
                event = await self._append(wanted)
                break
            except PositionTaken:
                self._note(LOST_RACE, lane=self._publisher.lane)
                if attempt == _MOST_RACES:
                    raise
                await self._follower.catch_up()
        key = self._follower.replica.keys.get(kid)
        return Outcome(event, kid, active=not wanted.signs or (key is not None and key.phase is Phase.ACTIVE))

    async def _append(self, wanted: Import) -> SignedEvent | None:
        keys = self._follower.replica.keys
        changes = changes_for(wanted, keys, self._policy, self._clock.now())
        if not changes:
            return None
        sealed = {
            key.kid: await self._keyring.seal(key.kid, self._policy.use, key.private)
            for key in wanted.keys
            if wanted.signs and key.private is not None and keys.get(key.kid) is None
        }
        if self._follower.replica.keys is not keys:  # Somebody was at it while we sealed: decide again.
            raise PositionTaken(f"lane {self._publisher.lane} has moved since this was decided")
        event = await self._publisher.append(changes, report=True, beside=Beside(sealed=sealed))
        told = [f"{type(change).__name__.lower()}:{getattr(change, 'kid', '')}" for change in changes]
        self._note(KEY_SET_CHANGED, sequence=event.event.sequence, changes=told)
        return event
