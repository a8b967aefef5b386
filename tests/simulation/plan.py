"""What is going to happen in a run: written down before it begins, so that it can be made smaller afterwards."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from keyturn.contract.inequalities import violations
from keyturn.contract.rotation import AtDeadline, Barrier, RotationPolicy
from keyturn.verifier.freshness import Freshness
from tests.rotation.dice import Dice

FRESHNESS = Freshness(stale_after_seconds=2.5, expired_after_seconds=5.0, skew_seconds=0.5)
WARM_SECONDS = 1.2  # Before the first fault.
TROUBLE_SECONDS = 8.0  # From then on until the last fault is over.
SETTLING_SECONDS = 5.0  # After the last fault everybody is well again within that.
END_SECONDS = WARM_SECONDS + TROUBLE_SECONDS + SETTLING_SECONDS


class What(StrEnum):
    """A deed of a client or operator, or a fault; its target is a process, or the server."""

    TOKEN = "has a token signed"
    REVOKE = "revokes a token"
    ROTATE = "orders a rotation"
    EMERGENCY = "revokes the active key"
    CRASH = "is killed"
    CRASH_IN_CALL = "is killed in the middle of its next call"
    STOP = "stops in order and starts again"
    FREEZE = "is frozen"
    CUT = "is cut off"
    MUTE = "can only hear"
    UNANSWERED = "gets no answers"
    DEAF = "hears no doorbell"
    REPLAY = "hears old words only"
    SLOW = "is slow to reach"
    LOSSY = "loses and repeats words"
    STEP = "gets its clock put elsewhere"
    HANG_UP = "loses its subscriptions"
    RESTART = "restarts"
    FAILOVER = "fails over to a copy that lacks the newest writes"


class Happening(NamedTuple):
    """One entry of the plan; `amount` is a throw that the deed or fault makes something of."""

    at: float
    what: What
    whom: str
    seconds: float
    amount: int

    def __str__(self) -> str:
        """Return it as a reader sees it."""
        lasting = f" for {self.seconds:.2f} s" if self.seconds else ""
        return f"{self.at:8.3f}  {self.whom:<13} {self.what}{lasting}"


class Plan(msgspec.Struct, frozen=True):
    """The seed of everything that is not written down here, the fleet, the rules, and what happens."""

    seed: int
    workers: tuple[str, ...]
    revokers: tuple[str, ...]
    verifiers: tuple[str, ...]
    rules: RotationPolicy
    durable: bool
    loses: bool  # The server may lose its newest writes; then those who know them must live.
    happenings: tuple[Happening, ...]

    @property
    def processes(self) -> tuple[str, ...]:
        """Return everybody's names."""
        return (*KEY_SERVICES, *self.workers, *self.revokers, *self.verifiers)


KEY_SERVICES, SERVER = ("keys-1", "keys-2"), "server"
_RULES = RotationPolicy(
    algorithms=("EdDSA",), active_seconds=6.5, token_seconds=8, skew_seconds=FRESHNESS.skew_seconds, lease_seconds=2.5,
    expired_seconds=FRESHNESS.expired_after_seconds, distribution_seconds=5.5, cache_seconds=0, deadline_seconds=2,
    standbys=1,
)  # fmt: skip
_DEEDS = ((What.TOKEN, 12), (What.REVOKE, 7), (What.ROTATE, 2), (What.EMERGENCY, 1))
_FAULTS = (
    (What.CRASH, 4), (What.CRASH_IN_CALL, 6), (What.STOP, 2), (What.FREEZE, 4), (What.CUT, 4), (What.MUTE, 2),
    (What.UNANSWERED, 3), (What.DEAF, 3), (What.REPLAY, 3), (What.SLOW, 3), (What.LOSSY, 6), (What.STEP, 2),
    (What.HANG_UP, 2),
)  # fmt: skip
_SERVER_FAULTS = ((What.RESTART, 2), (What.FREEZE, 2))
_DEADLY = frozenset({What.CRASH, What.CRASH_IN_CALL, What.STOP})
_MOST_LOST = 4
_MENDING_SECONDS = 3.0  # After a failover: then those who knew what was lost may die.
_BEFORE_SECONDS = 0.1
_MOST_FAULTS, _FEWEST_DEEDS, _MOST_DEEDS = 6, 8, 20
_INSTANT = frozenset({What.STEP, What.HANG_UP})
LONGEST_SERVER_FREEZE_SECONDS = 5.0  # A client's append must land within APPEND_SECONDS of its date, or not at all.


def plan_of(seed: int) -> Plan:
    """Throw for everything."""
    dice = Dice(f"{seed}/plan")
    barrier = dice.one_of((Barrier.REPORTS, Barrier.BOTH))
    rules = msgspec.structs.replace(_RULES, barrier=barrier, at_deadline=dice.one_of(list(AtDeadline)))
    assert not violations(rules), violations(rules)
    workers = ("worker-1",) if dice.chance(3) else ()
    revokers = ("revocation-1", "revocation-2")[: 1 + dice.chance(3)]
    verifiers = ("api-1", "api-2", "api-3")[: 2 + dice.chance(4)]
    loses = dice.chance(4)
    empty = Plan(seed, workers, revokers, verifiers, rules, dice.chance(2) and not loses, loses, ())
    deeds = [_deed(dice, empty) for _ in range(_FEWEST_DEEDS + dice.below(_MOST_DEEDS - _FEWEST_DEEDS))]
    faults = [_fault(dice, empty, deeds) for _ in range(dice.below(_MOST_FAULTS + 1))]
    if loses:
        at = dice.between(WARM_SECONDS, WARM_SECONDS + TROUBLE_SECONDS * 0.8)
        failover = Happening(at, What.FAILOVER, SERVER, dice.between(0.05, 1.0), 1 + dice.below(_MOST_LOST))
        mended = at + failover.seconds + _MENDING_SECONDS
        harmless = [one for one in faults if one.what not in _DEADLY or one.whom in verifiers or one.at > mended]
        faults = [*harmless, failover]
    return msgspec.structs.replace(empty, happenings=tuple(sorted([*deeds, *faults])))


def _deed(dice: Dice, plan: Plan) -> Happening:
    what = dice.weighted(_DEEDS)
    whom = dice.one_of(plan.revokers if what is What.REVOKE else KEY_SERVICES)
    at = dice.between(WARM_SECONDS / 3, WARM_SECONDS + TROUBLE_SECONDS + SETTLING_SECONDS / 3)
    return Happening(at, what, whom, 0.0, dice.below(1 << 16))


def _fault(dice: Dice, plan: Plan, deeds: Sequence[Happening]) -> Happening:
    """Throw for a fault: at any time, or right before a deed, where it does the most harm."""
    at = dice.between(WARM_SECONDS, WARM_SECONDS + TROUBLE_SECONDS * 0.8)
    deed = dice.one_of(deeds)
    if deed.what is not What.TOKEN and WARM_SECONDS < deed.at < WARM_SECONDS + TROUBLE_SECONDS * 0.8:
        at = deed.at - dice.between(0.0, _BEFORE_SECONDS)
    left = WARM_SECONDS + TROUBLE_SECONDS - at
    whom = dice.one_of((SERVER, *plan.processes, *plan.verifiers))
    what = dice.weighted(_SERVER_FAULTS if whom == SERVER else _FAULTS)
    longest = min(left, LONGEST_SERVER_FREEZE_SECONDS) if whom == SERVER else left
    seconds = 0.0 if what in _INSTANT else min(longest, dice.between(0.05, dice.one_of((0.5, 2.0, 10.0))))
    return Happening(at, what, whom, seconds, dice.below(1 << 16))
