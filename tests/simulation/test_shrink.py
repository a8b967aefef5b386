"""A failing seed is made small before anybody has to read it."""

from collections import Counter

import pytest

from tests.rotation.facts import Broken
from tests.simulation.checkers.receipts import NO_FALSE_ACCEPT
from tests.simulation.plan import Plan, What, plan_of
from tests.simulation.plants import FIRST_SEED, counts_laggards_as_adopters
from tests.simulation.shrink import kind_of, shrunk
from tests.simulation.world import Run, run

_MOST_TRIES = 60


def failing() -> tuple[Plan, Run]:
    """Return a plan that breaks what the planted bug breaks."""
    for seed in range(FIRST_SEED, FIRST_SEED + _MOST_TRIES):
        plan = plan_of(seed)
        went = run(plan)
        if went.failure is not None:
            return plan, went
    raise AssertionError(f"no failure within {_MOST_TRIES} seeds")


def test_a_failure_shrinks_to_what_it_needs_and_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A false accept needs a token, its revocation and something that keeps a verifier behind: little else stays."""
    counts_laggards_as_adopters(monkeypatch)
    plan, went = failing()
    assert went.failure is not None
    small, again = shrunk(plan, went.failure)
    assert again.failure is not None
    assert kind_of(again.failure) == NO_FALSE_ACCEPT
    assert len(small.happenings) <= min(6, len(plan.happenings))
    assert len(again.told.splitlines()) < 40
    for words in ("has a token signed", "revokes a token", "receipt: adopted by"):
        assert words in again.told


def test_only_what_the_failure_needs_is_left() -> None:
    """Two happenings among many, the second of which may be far shorter."""
    plan = next(plan for seed in range(1000) if needed(plan := plan_of(seed)) and len(plan.happenings) > 15)

    def play(candidate: Plan) -> Run:
        failure = Broken("what the test says") if needed(candidate) else None
        return Run(Counter(), "", failure, "")

    small, _ = shrunk(plan, Broken("what the test says"), play=play)
    assert [one.what for one in sorted(small.happenings, key=lambda one: one.what)] == [What.TOKEN, What.FREEZE]
    assert [one.seconds for one in small.happenings if one.what is What.FREEZE] == [0.05]
    assert len(small.processes) <= 4
    assert len(shrunk(plan, Broken("something else"), play=play)[0].happenings) == len(plan.happenings)


def needed(plan: Plan) -> bool:
    """Say whether a plan has both, on processes that are always there."""
    return any(one.what is What.TOKEN for one in plan.happenings) and any(
        one.what is What.FREEZE and one.whom == "api-1" for one in plan.happenings
    )
