"""Forgetting: no history of revocations, refreshes and crooked clocks lets a grant that was revoked mint a token."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from authorization.turning import Step, step_of, turned
from keyturn import entropy
from keyturn.contract.errors import TrustError
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from keyturn.verifier.freshness import State
from revocation.keeping import Keeping
from serving.families import Family, mark_of, successor_of
from serving.promises import Promise, renewed
from tests.clocks import ManualClock
from tests.families import new_refresh_token
from tests.reaching import reach
from tests.revocation.test_forgetting import (
    FRESHNESS,
    HONEST,
    HOUR,
    LEASE_SECONDS,
    LEEWAY_SECONDS,
    SKEW_SECONDS,
    TOKEN_SECONDS,
)
from tests.revocation.test_forgetting import (
    Step as Passing,
)
from tests.verifier.bench import Bench
from tests.world import World

LIFE_SECONDS, IDLE_SECONDS = 3 * HOUR, 2 * HOUR
KEEPING = Keeping(
    longest_token_seconds=TOKEN_SECONDS, grant_seconds=LIFE_SECONDS, skew_seconds=SKEW_SECONDS,
    leeway_seconds=LEASE_SECONDS + LEEWAY_SECONDS,
)  # fmt: skip
KINDS = [SelectorKind.GRANT, SelectorKind.SESSION, SelectorKind.SUBJECT, SelectorKind.CLIENT, SelectorKind.ALL]
LIVES = st.sampled_from([HOUR, LIFE_SECONDS])
"""What `grants.life` says from a step on, at authorization and at revocation: each as its operator pleases."""
PASSING = st.builds(
    Passing, seconds=st.sampled_from([1.0, 290.0, 1700.0, 5000.0]), off_seconds=st.sampled_from([0.0, HOUR, -HOUR])
)
STEPS = st.lists(st.tuples(PASSING, LIVES, LIVES), min_size=4, max_size=10)
_Step: TypeAlias = tuple[Passing, float, float]
reached: Counter[str] = Counter()


class Desk:
    """A replica of the authorization service, and a family of refresh tokens, at a clock that may be wrong."""

    def __init__(self, bench: Bench, issued_at: float, promise: Promise) -> None:
        """Begin a family that its client uses whenever it can, by revocation's word of that time."""
        self.bench, self.token, self.promise = bench, new_refresh_token(), promise
        self.life_seconds = min(LIFE_SECONDS, promise.seconds)
        self.family = Family(
            claims={"iss": bench.world.issuer, "sub": "alice", "client_id": "app", "aud": "https://api.example",
                    "sid": "alice", "grant_id": entropy.uuid7(issued_at)},
            ends_at=issued_at + self.life_seconds, current=mark_of(self.token), made_at=issued_at,
            expires_at=issued_at + IDLE_SECONDS,
        )  # fmt: skip

    def hear(self, own_seconds: float, revocations_seconds: float, *, publisher: float) -> None:
        """Have revocation give its word by its setting, and go by the shorter of that and our own."""
        own = Promise(iss=self.promise.iss, seconds=revocations_seconds, at=publisher)
        self.promise = renewed(own, self.promise)
        self.life_seconds = min(own_seconds, self.promise.seconds)
        reached["settings differ"] += own_seconds != revocations_seconds
        reached["a longer word is kept to"] += self.promise is not own

    def refresh(self, now: float) -> str:
        """Do as the service does: judge by the replica, then decide; return what came of it."""
        replica = self.bench.replica
        if replica.state(now, self.bench.clock.boottime()) is State.EXPIRED:
            return "says nothing"
        if replica.revokes(replica.names(self.family.claims)):
            return "revoked"
        judged = replica.no_earlier(now)
        step = step_of(
            self.family,
            self.token,
            now=judged,
            store_now=now,
            grace_seconds=10.0,
            life_seconds=self.life_seconds,
            margin_seconds=0.0,
        )
        if step is not Step.TURN:
            return "refused by its time"
        self.family = turned(
            self.family, self.token, salt=bytes(32), now=judged, store_now=now, idle_seconds=IDLE_SECONDS
        )
        self.token = successor_of(self.token, self.family.salt)
        return "minted"


@settings(max_examples=60, deadline=None)
@given(
    publisher=HONEST, issuer=HONEST, kind=st.sampled_from(KINDS), before=STEPS, after=STEPS,
)  # fmt: skip
def check(publisher: float, issuer: float, kind: SelectorKind, before: list[_Step], after: list[_Step]) -> None:
    """Refresh for a while, revoke, and go on trying on crooked clocks, with all that may be forgotten forgotten."""
    bench, desk = asyncio.run(begun(issuer, publisher, life_seconds=before[-1][2]))
    for step, own, revocations in before[:2]:
        told = passed(bench, desk, step, publisher, issuer)
        desk.hear(own, revocations, publisher=bench.clock.now() + publisher)
        reached[f"before: {told}"] += 1
    revoked_at = bench.clock.now() + publisher
    value = {SelectorKind.ALL: "", SelectorKind.CLIENT: "app", SelectorKind.GRANT: desk.family.claims["grant_id"]}
    cutoff = kind not in {SelectorKind.GRANT, SelectorKind.SESSION}
    selector = Selector(
        iss=bench.world.issuer, kind=kind, value=value.get(kind, "alice"), before=revoked_at if cutoff else None
    )
    keeping = replace(KEEPING, grant_seconds=desk.promise.seconds)
    entry = Entry(selector=selector, until=keeping.of_selector(kind, (), revoked_at))
    bench.admit(Lane.REVOCATIONS, bench.signed(Lane.REVOCATIONS, [entry], at=revoked_at).compact)
    for step, own, revocations in after:
        told = passed(bench, desk, step, publisher, issuer)
        desk.hear(own, revocations, publisher=bench.clock.now() + publisher)
        reached[told] += 1
        held = bench.replica.revokes(bench.replica.names(desk.family.claims))
        reached["held" if held else "forgotten"] += 1
        assert told != "minted"


def passed(bench: Bench, desk: Desk, step: Passing, publisher: float, issuer: float) -> str:
    """Let time pass, hear the publishers, forget what may be forgotten, and refresh."""
    bench.clock.advance(step.seconds)
    truth, boottime = bench.clock.now(), bench.clock.boottime()
    now = truth + issuer + step.off_seconds
    for lane in Lane:
        try:
            bench.replica.admit(lane, bench.head(lane, at=truth + publisher), now=now, boottime=boottime)
        except TrustError:
            reached["head from the future"] += 1
    bench.replica.forget_expired(now)
    told = {desk.refresh(when) for when in (now, truth + issuer)}  # As it is, and once it was put right.
    return "minted" if "minted" in told else sorted(told)[0]


async def begun(issuer: float, publisher: float, *, life_seconds: float) -> tuple[Bench, Desk]:
    """Begin a world, and a grant in it."""
    clock = ManualClock()
    world = await World(clock=clock, freshness=FRESHNESS).begin()
    bench = Bench(world, await world.caught_up(), clock)
    promise = Promise(iss=world.issuer, seconds=life_seconds, at=clock.now() + publisher)
    desk = Desk(bench, clock.now() + issuer, promise)
    clock.advance(SKEW_SECONDS)  # A grant that is stamped later than its cutoff was not made before it.
    return bench, desk


def test_no_history_lets_a_revoked_grant_mint() -> None:
    """Checklist, revocation (10) and refresh (4), RFC 9700, 4.14.2: grants live for days, replicas forget.

    Whatever `grants.life` says meanwhile at either service. The property counts what it came by: it has to have seen
    revocations forgotten, and refused by time alone.
    """
    reached.clear()
    corners = ("before: minted", "revoked", "says nothing", "refused by its time", "head from the future")
    differing = dict.fromkeys(("settings differ", "a longer word is kept to"), 21)
    reach(check, reached, {**dict.fromkeys(corners, 21), **differing, "forgotten": 11})
