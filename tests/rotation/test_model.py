"""No history that a seed makes up breaks an invariant, and together they have been everywhere that matters."""

import asyncio
from collections import Counter

from tests.rotation.histories import History

HISTORIES = 40
FEWEST = {  # What the histories must have reached, or they prove little.
    "activations": 60, "activated by reports": 5, "activated past the deadline": 1,
    "activated by time, with laggards": 1, "activated while the set was not known": 3, "at a moment to come": 5,
    "held by the barrier": 20,
    "held past the deadline": 1, "waits by time alone": 10, "removals": 60, "emergencies": 40,
    "exposed to a revoked key": 50, "refused a revoked key": 500, "looked for an unknown kid": 5,
    "lease refusals": 300, "signed by a key that had just ended": 5, "orders repeated": 20, "outcome unknown": 30,
    "slow appends": 10, "forgeries": 30, "replays": 30, "joined": 100, "died": 20, "goodbye": 20, "store away": 50,
    "asked while fresh": 3000, "asked while stale": 200, "asked while expired": 300, "tokens": 3000,
}  # fmt: skip


def test_no_history_breaks_an_invariant_and_the_histories_reach_every_corner() -> None:
    """Two workers, two signers, verifiers that come, go, lag and freeze, pullers, an intruder, and a store that fails.

    The journal of the first history that breaks something is in the failure's notes; its seed plays it again.
    """
    reached: Counter[str] = Counter()
    for seed in range(HISTORIES):
        reached += asyncio.run(History(seed).play())
    assert {what: reached[what] for what, count in FEWEST.items() if reached[what] < count} == {}
