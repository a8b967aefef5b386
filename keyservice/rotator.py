"""The shell around the rotation rules: read, decide, append; a lost race decides again."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from keyservice.keyring import Keyring
from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.errors import PositionTaken
from keyturn.contract.events import SignedEvent
from keyturn.contract.jwk import public_jwk, thumbprint
from keyturn.contract.keys import Activated, KeyChange, KeySet, Published, RotationRequested, Use
from keyturn.contract.rotation import Barrier, RotationPolicy, Transition, activation_of_new, due, emergency
from keyturn.feed.log import Beside
from keyturn.feed.presence import PresenceWatch
from keyturn.feed.publisher import Publisher
from keyturn.verifier.follower import Follower, unnoted

KEY_SET_CHANGED = "key_set_changed"
LOST_RACE = "lost_race"
_MOST_RACES = 16  # Lost in a row; somebody else then makes all the progress there is.
_SLOW_TO_MAKE = frozenset({"RS256", "PS256"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an order to rotate or revoke came to: the event (None: nothing was left to do) and who signs next."""

    event: SignedEvent | None
    kid: str
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an operator asks: why, from when on (Unix seconds), and whether a receipt waits.

    `event_id` comes from the caller's idempotency key: an order that is repeated with it is not carried out twice.
    """

    reason: str = ""
    report: bool = False
    not_before: float | None = None
    event_id: str | None = None


class Rotator:
    """Carries out what the rules say of each use; one order at a time here, a compare-and-set against all others."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        follower: Follower,
        watch: PresenceWatch,
        keyring: Keyring,
        policies: Mapping[Use, RotationPolicy],
        clock: Clock,
        note: Callable[..., None] = unnoted,
    ) -> None:
        self._policies = policies
        self._publisher, self._follower, self._watch, self._keyring = publisher, follower, watch, keyring
        self._clock, self._note = clock, note
        self._order = asyncio.Lock()

    async def tick(self) -> int:
        """Do all that is due, for one use after the other; return how many events that took."""
        async with self._order:
            return sum([await self._settle(policy) for policy in self._policies.values()])

    async def _settle(self, policy: RotationPolicy) -> int:
        count = 0
        for _ in range(_MOST_RACES):
            _, transition = await self._decide(policy)
            if transition is None:
                break
            try:
                await self._carry_out(transition, policy, Order())
                count += 1
            except PositionTaken:
                await self._lost()
        return count

    async def rotate(self, alg: str, order: Order, *, use: Use = Use.ACCESS) -> Outcome:
        """Let the next key of an algorithm and use sign: once the barrier holds and the order's moment has come.

        Raises FeedUnavailable if the outcome is unknown: the same order again, with its id, finds out.
        """
        event = None
        async with self._order:
            if self._done_before(order):
                return Outcome(None, *self._next(alg, use))
            before = self._follower.replica.keys.active(alg, use)
            for _ in range(_MOST_RACES):
                keys = self._follower.replica.keys
                active = keys.active(alg, use)
                if active != before:
                    break  # Somebody rotated meanwhile: nothing is left to do.
                try:
                    event = await self._request(alg, self._policies[use], order)
                    break
                except PositionTaken:
                    await self._lost()
            return Outcome(event, *self._next(alg, use))

    async def _request(self, alg: str, policy: RotationPolicy, order: Order) -> SignedEvent | None:
        """Ask for a rotation in the feed, or carry it out in one event where the rules allow it now."""
        asked = RotationRequested(alg=alg, use=policy.use, not_before=order.not_before)
        wanted, transition = await self._decide(policy, asked)
        keys = self._follower.replica.keys
        if transition is not None and transition.activates(keys, alg):
            return await self._carry_out(transition, policy, order)
        if wanted.requests == keys.requests:
            return None  # It was asked for already, for this moment or an earlier one.
        # Verifiers report at once, since the barrier waits for their word.
        return await self._publisher.append([asked], report=True, event_id=order.event_id)

    async def _decide(self, policy: RotationPolicy, *asked: RotationRequested) -> tuple[KeySet, Transition | None]:
        """Return the keys with what is asked for, and what is due for those of a policy's use.

        What lets a key sign because verifiers hold it is decided on reports that were read just now: one that began
        since the last look has reported before it read the lane, so it is seen, or has read all that we have.
        """
        looked = policy.barrier is Barrier.TIME
        while True:
            replica, now = self._follower.replica, self._clock.now()
            keys = replica.keys.after(asked, at=now, place=replica.place(self._publisher.lane))
            transition = due(keys, policy, self._watch.adoption(), now)
            waited = transition is not None and any(isinstance(one, Activated) for one in transition.changes)
            if looked or not waited:
                return keys, transition
            await self._watch.look()
            looked = True

    async def revoke(self, kid: str, order: Order) -> Outcome:
        """Reject a key by name and let a standby of its use sign, as one event that waits for nobody; idempotent.

        Raises KeyError for a kid that never was.
        """
        key, event = self._follower.replica.keys.get(kid), None
        if key is None:
            raise KeyError(kid)
        policy = self._policies[key.use]
        async with self._order:
            for _ in range(_MOST_RACES):
                transition = emergency(self._follower.replica.keys, kid, policy, self._clock.now(), order.reason)
                if transition is None:
                    break
                try:
                    event = await self._carry_out(transition, policy, order)
                    break
                except PositionTaken:
                    await self._lost()
            return Outcome(event, *self._next(key.alg, key.use))

    def _done_before(self, order: Order) -> bool:
        return order.event_id is not None and self._follower.replica.knows(self._publisher.lane, order.event_id)

    def _next(self, alg: str, use: Use) -> tuple[str, bool]:
        """Return the key that signs next: the standby if one was asked for and waits, else the active one."""
        keys = self._follower.replica.keys
        active = keys.active(alg, use)
        waiting = keys.standby(alg, use) if keys.requested(alg, use) is not None else None
        if waiting is not None:
            return waiting.kid, False
        return (active.kid, True) if active is not None else ("", False)

    async def _carry_out(self, transition: Transition, policy: RotationPolicy, order: Order) -> SignedEvent:
        """Make the new keys, sealed beside the event that publishes them, and append all of it as one."""
        replica, lane, now = self._follower.replica, self._publisher.lane, self._clock.now()
        decided_at = replica.position(lane)
        changes: list[KeyChange] = list(transition.changes)
        sealed: dict[str, bytes] = {}
        activated: set[str] = set()
        for alg in transition.publish:
            private = await asyncio.to_thread(entropy.new_key, alg) if alg in _SLOW_TO_MAKE else entropy.new_key(alg)
            jwk = public_jwk(private.public_key())
            kid, use = thumbprint(jwk), policy.use
            sealed[kid] = await self._keyring.seal(kid, use, private)
            changes.append(Published(kid=kid, alg=alg, jwk=jwk, use=use, token_seconds=policy.token_seconds))
            if transition.activate_new and alg not in activated:
                activated.add(alg)
                changes.append(activation_of_new(kid, alg, policy, now))
        if replica.position(lane) != decided_at:  # Somebody else was at it while we made keys: decide again.
            raise PositionTaken(f"lane {lane} has moved since this was decided")
        beside = Beside(sealed=sealed, erased=transition.ends())
        event = await self._publisher.append(changes, report=order.report, beside=beside, event_id=order.event_id)
        self._note(
            KEY_SET_CHANGED, sequence=event.event.sequence,
            changes=[f"{type(change).__name__.lower()}:{getattr(change, 'kid', '')}" for change in changes],
        )  # fmt: skip
        return event

    async def _lost(self) -> None:
        self._note(LOST_RACE, lane=self._publisher.lane)
        await self._follower.catch_up()
