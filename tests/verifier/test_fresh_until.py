"""The limits that the hot path compares say "fresh" exactly when the replica's state does."""

import asyncio
from contextlib import suppress
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from keyturn.contract.errors import KeyturnError
from keyturn.contract.positions import Lane
from keyturn.verifier.freshness import Freshness, State
from keyturn.verifier.replica import Replica
from tests.clocks import ManualClock
from tests.verifier.bench import KEYS, REVOCATIONS, Bench
from tests.world import World

STEPS = st.one_of(
    st.tuples(st.just("pass"), st.floats(0.0, 8.0)),
    st.tuples(st.just("wall"), st.floats(-8.0, 8.0)),
    st.tuples(st.just("head"), st.sampled_from(list(Lane))),
    st.tuples(st.just("event"), st.just(0)),
    st.tuples(st.just("future"), st.just(0)),
    st.tuples(st.just("trust"), st.floats(1.0, 20.0)),
    st.tuples(st.just("drop"), st.sampled_from(list(Lane))),
)


@settings(max_examples=200)
@given(steps=st.lists(STEPS, max_size=25), unreadable_after=st.integers(0, 60))
def test_the_limits_of_the_hot_path_agree_with_the_state(steps: list[tuple[str, Any]], unreadable_after: int) -> None:
    """A hit that outlived its freshness by a moment would be a false accept."""
    asyncio.run(_walk(steps, unreadable_after))


async def _walk(steps: list[tuple[str, Any]], unreadable_after: int) -> None:
    clock = ManualClock()
    world = await World(clock=clock, freshness=Freshness(expired_after_seconds=10)).begin()
    assert not _limits_say_fresh(world.member().replica, clock)
    bench = Bench(world, await world.caught_up(), clock)
    _agree(bench)
    for number, (step, argument) in enumerate(steps):
        with suppress(KeyturnError):
            if number == unreadable_after:
                bench.admit(REVOCATIONS, bench.raw_event(REVOCATIONS, lambda members: members.update(new="x")))
            _take(bench, step, argument)
        _agree(bench)


def _take(bench: Bench, step: str, argument: Any) -> None:
    version = bench.replica.trust.version
    match step:
        case "pass":
            bench.clock.advance(argument)
        case "wall":
            bench.clock.set_wall(bench.clock.now() + argument)
        case "head" if bench.replica.position(argument) is not None:
            bench.admit(argument, bench.head(argument))
        case "event" if bench.replica.position(REVOCATIONS) is not None:
            bench.admit(REVOCATIONS, bench.revocation(f"{bench.clock.now()}").compact)
        case "future" if bench.replica.position(KEYS) is not None:
            bench.admit(KEYS, bench.head(KEYS, trust=version + 1))
        case "trust":
            expires_at = bench.clock.now() + argument
            bench.replica.adopt_trust(bench.world.trust(version=version + 1, expires_at=expires_at))
        case "drop":
            lowest = {lane.value: 2 if lane is argument else 1 for lane in Lane}
            bench.replica.adopt_trust(bench.world.trust(version=version + 1, lowest_epoch=lowest))
            bench.admit(argument, bench.world.genesis(argument, epoch=2).compact)


def _agree(bench: Bench) -> None:
    state = bench.state()
    event(state.value)
    behind = bench.clock.now() < bench.replica.time_floor  # Then the long way judges by the publishers' time.
    assert _limits_say_fresh(bench.replica, bench.clock) == (state is State.FRESH and not behind)
    event(f"behind: {behind}")


def _limits_say_fresh(replica: Replica, clock: ManualClock) -> bool:
    return replica.time_floor <= clock.now() < replica.fresh_until and clock.boottime() < replica.fresh_until_boottime
