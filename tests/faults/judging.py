"""Which of the things that were said were wrong: pure, from the recorder's notes alone."""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass

from tests.faults.recorder import Answer, Held, Recorder, Seen

FRESH = "fresh"


@dataclass(frozen=True)
class Verdict:
    """What a history has against it; all of it empty is what is promised."""

    accepted_after_adoption: list[Answer]  # Passed by a request that began after the receipt of all verifiers.
    accepted_though_fresh: list[Answer]  # Passed as `fresh`, though acknowledged longer ago than fresh may look back.
    rejected: list[Answer]  # Live tokens that were refused, in whatever state.
    rejected_though_fresh: list[Answer]  # Those of them where the replica was fresh, or may have been.
    signed_by_old: list[Held]  # Asked for after a receipt by which another key signs, or theirs is revoked.

    @property
    def false_accepts(self) -> list[Answer]:
        """Return every pass that breaks a promise, each once."""
        return list(dict.fromkeys([*self.accepted_after_adoption, *self.accepted_though_fresh]))


def judge(recorder: Recorder, *, bound_seconds: float) -> Verdict:
    """Judge a history; a fresh replica may lack what was acknowledged within the last `bound_seconds`, no more."""
    states = _by_sidecar(recorder.states)
    rejected = [answer for answer in recorder.answers if answer.status != 200 and _is_live(recorder, answer)]
    passed = [answer for answer in recorder.answers if answer.status == 200]
    return Verdict(
        accepted_after_adoption=[answer for answer in passed if _was_adopted(recorder, answer)],
        accepted_though_fresh=[
            answer
            for answer in passed
            if answer.state == FRESH and _was_acknowledged(recorder, answer, answer.began_at - bound_seconds)
        ],
        rejected=rejected,
        rejected_though_fresh=[
            answer for answer in rejected if _may_have_been_fresh(states.get(answer.sidecar, []), answer)
        ],
        signed_by_old=[held for held in recorder.tokens if _is_signed_by_old(recorder, held)],
    )


def back_to_fresh(recorder: Recorder, returned_at: float) -> dict[str, float]:
    """Return how long each sidecar took, from when the store was back, until it said fresh for good.

    That is 0 for one that never said anything else, and infinite for one that did so to the end.
    """
    return {
        sidecar: _fresh_after([one for one in seen if one.ended_at >= returned_at], returned_at)
        for sidecar, seen in _by_sidecar(recorder.states).items()
    }


def _fresh_after(seen: list[Seen], returned_at: float) -> float:
    last_not = max((index for index, one in enumerate(seen) if one.state != FRESH), default=-1)
    if last_not + 1 >= len(seen):
        return float("inf")
    return 0.0 if last_not < 0 else seen[last_not + 1].ended_at - returned_at


def _by_sidecar(states: list[Seen]) -> dict[str, list[Seen]]:
    found: dict[str, list[Seen]] = defaultdict(list)
    for seen in sorted(states, key=lambda one: one.ended_at):
        found[seen.sidecar].append(seen)
    return found


def _is_live(recorder: Recorder, answer: Answer) -> bool:
    """Say whether nobody had asked to revoke the token before the answer came."""
    return all(order.sent_at > answer.ended_at for order in recorder.orders(answer.held))


def _was_adopted(recorder: Recorder, answer: Answer) -> bool:
    orders = recorder.orders(answer.held)
    return any(order.adopted_at is not None and answer.began_at > order.adopted_at for order in orders)


def _was_acknowledged(recorder: Recorder, answer: Answer, by: float) -> bool:
    orders = recorder.orders(answer.held)
    return any(order.acknowledged_at is not None and by > order.acknowledged_at for order in orders)


def _may_have_been_fresh(seen: list[Seen], answer: Answer) -> bool:
    """Look at what the sidecar said of itself last before the question, until first after the answer.

    A refusal does not tell the state. It is excused only where a word around it was another than fresh.
    """
    first = bisect_right([one.ended_at for one in seen], answer.began_at) - 1
    last = bisect_left([one.began_at for one in seen], answer.ended_at)
    return all(one.state == FRESH for one in seen[max(first, 0) : last + 1])


def _is_signed_by_old(recorder: Recorder, held: Held) -> bool:
    revoked = recorder.keys.get(held.kid)
    if revoked is not None and revoked.acknowledged_at is not None and held.asked_at > revoked.acknowledged_at:
        return True
    done = [one.kid for one in recorder.rotations if one.acknowledged_at < held.asked_at]
    return held.kid in done[:-1]  # A key that nobody told us of may be a rotation whose receipt was lost.
