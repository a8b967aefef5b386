"""Forgetting: a replica that may still answer never lacks a revocation whose token it would still accept."""

import asyncio
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyturn.contract.errors import TrustError
from keyturn.contract.inequalities import REQUEST_SECONDS, leeway_lasts
from keyturn.contract.positions import Lane
from keyturn.contract.revocations import BUCKET_SECONDS
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from keyturn.verifier.freshness import Freshness, State
from revocation.keeping import Keeping
from tests.clocks import ManualClock
from tests.reaching import reach
from tests.verifier.bench import Bench
from tests.world import World

TOKEN_SECONDS, SKEW_SECONDS, LEASE_SECONDS = 900.0, 2.0, 5.0
LEEWAY_SECONDS = REQUEST_SECONDS + SKEW_SECONDS
"""The least with which the service starts."""
FRESHNESS = Freshness(stale_after_seconds=5, expired_after_seconds=60, skew_seconds=SKEW_SECONDS)


def keeping_for(leeway_seconds: float) -> Keeping:
    """Return the figures as the service puts them together."""
    return Keeping(
        longest_token_seconds=TOKEN_SECONDS, grant_seconds=TOKEN_SECONDS, skew_seconds=SKEW_SECONDS,
        leeway_seconds=LEASE_SECONDS + leeway_seconds,
    )  # fmt: skip


KEEPING = keeping_for(LEEWAY_SECONDS)
HOUR = 3600.0


@dataclass(frozen=True)
class Step:
    """Time passes; then the verifier's clock is off by so much, and it forgets what it may."""

    seconds: float
    off_seconds: float


LATE = st.floats(0, LEASE_SECONDS + REQUEST_SECONDS)
"""How long after its revocation a token of that grant may still be minted."""
HONEST = st.floats(-SKEW_SECONDS / 2, SKEW_SECONDS / 2)
"""How far a clock is off that is in order: any two such are within S of each other."""
STEPS = st.lists(
    st.builds(
        Step, seconds=st.sampled_from([1.0, 55.0, 290.0, 900.0]), off_seconds=st.sampled_from([0.0, HOUR, -HOUR])
    ),
    min_size=4,
    max_size=10,
)


@settings(max_examples=100, deadline=None)
@given(
    publisher=HONEST, issuer=HONEST, verifier=HONEST, late_seconds=LATE, cutoff=st.booleans(),
    steps=STEPS,
)  # fmt: skip
def check(  # noqa: PLR0917 - hypothesis gives them by name
    publisher: float, issuer: float, verifier: float, late_seconds: float, cutoff: bool, steps: list[Step]
) -> None:
    """Revoke what is minted a moment later still, let time pass on crooked clocks, and look after each step."""
    bench, claims = asyncio.run(begun(publisher, issuer, late_seconds, cutoff=cutoff))
    for step in steps:
        bench.clock.advance(step.seconds)
        truth, boottime = bench.clock.now(), bench.clock.boottime()
        now = truth + verifier + step.off_seconds
        for lane in Lane:
            try:
                bench.replica.admit(lane, bench.head(lane, at=truth + publisher), now=now, boottime=boottime)
            except TrustError:
                reached["head from the future"] += 1
        bench.replica.forget_expired(now)
        held = bench.replica.revokes(bench.replica.names(claims))
        reached["held" if held else "forgotten"] += 1
        for when, name in ((now, "as it is"), (truth + verifier, "put right")):
            if bench.replica.state(when, boottime) is State.EXPIRED:
                reached["says nothing"] += 1
            elif bench.replica.no_earlier(when) >= float(str(claims["exp"])) + SKEW_SECONDS:
                reached["refused by its time"] += 1
            else:
                reached[f"asked with its clock {name}"] += 1
                assert held


reached: Counter[str] = Counter()


async def begun(
    publisher: float,
    issuer: float,
    late_seconds: float,
    *,
    cutoff: bool,
    keeping: Keeping = KEEPING,
    clock: ManualClock | None = None,
) -> tuple[Bench, dict[str, object]]:
    """Begin a world in which a grant's token was revoked, and return it with a token that is minted after that."""
    clock = clock or ManualClock()
    world = await World(clock=clock, freshness=FRESHNESS).begin()
    bench = Bench(world, await world.caught_up(), clock)
    revoked_at = clock.now() + publisher
    kind, before = (SelectorKind.SUBJECT, revoked_at) if cutoff else (SelectorKind.SESSION, None)
    selector = Selector(iss=world.issuer, kind=kind, value="alice", before=before)
    entry = Entry(selector=selector, until=keeping.of_selector(kind, (), revoked_at))
    bench.admit(Lane.REVOCATIONS, bench.signed(Lane.REVOCATIONS, [entry], at=revoked_at).compact)
    minted = clock.now() + late_seconds + issuer
    return bench, world.claims(
        sub="alice",
        sid="alice",
        iat=minted,
        exp=minted + TOKEN_SECONDS,
        grant_id="00000000-0001-7000-8000-000000000000",
    )


def test_what_could_still_be_accepted_is_never_forgotten_however_the_clocks_run() -> None:
    """Checklist 9, RFC 7009, 2.2: a clock an hour too fast or too slow, and put right again, costs no revocation.

    Nor does one that is set back by an hour after it forgot: the publishers' word says that the token has run out. The
    property counts what it came by: a world in which nothing is ever forgotten would prove nothing.
    """
    reached.clear()
    corners = (
        "head from the future",
        "says nothing",
        "refused by its time",
        "asked with its clock as it is",
        "asked with its clock put right",
    )
    reach(check, reached, {**dict.fromkeys(corners, 21), "forgotten": 6})


@pytest.mark.parametrize("short_seconds", [0.0, 0.5, SKEW_SECONDS])
def test_the_least_leeway_is_just_long_enough(short_seconds: float) -> None:
    """RFC 7009, 2.2; checklist 9: with less, a clock that is set back would take a token that was revoked.

    The token is minted as late as can be by an issuer whose clock is S ahead of the publisher's.
    """
    leeway, publisher, issuer = LEEWAY_SECONDS - short_seconds, -SKEW_SECONDS / 2, SKEW_SECONDS / 2
    keeping = keeping_for(leeway)
    kept_seconds = keeping.after(publisher + TOKEN_SECONDS)
    whole = 1_800_000_000 // TOKEN_SECONDS * TOKEN_SECONDS
    assert whole % BUCKET_SECONDS == 0  # Neither a bucket nor the rounding of lives keeps it on.
    clock = ManualClock(now=whole - kept_seconds)
    late_seconds = LEASE_SECONDS + REQUEST_SECONDS
    bench, claims = asyncio.run(begun(publisher, issuer, late_seconds, cutoff=True, keeping=keeping, clock=clock))
    bench.clock.advance(kept_seconds - publisher + 0.001)
    truth, boottime = bench.clock.now(), bench.clock.boottime()
    for lane in Lane:
        bench.replica.admit(lane, bench.head(lane, at=truth + publisher), now=truth, boottime=boottime)
    assert bench.replica.revokes(bench.replica.names(claims))
    bench.replica.forget_expired(truth + HOUR)
    assert not bench.replica.revokes(bench.replica.names(claims)), "it forgets at this moment"
    no_earlier = bench.replica.no_earlier(truth - HOUR)
    is_accepted = no_earlier < float(str(claims["exp"])) + SKEW_SECONDS
    assert is_accepted == (short_seconds > 0)
    assert leeway_lasts(leeway_seconds=leeway, skew_seconds=SKEW_SECONDS).holds is not is_accepted
