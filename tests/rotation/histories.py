"""Histories that a seed decides: rules, clocks, and what happens in which order."""

from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from keyservice.rotator import Order
from keyturn.contract.inequalities import violations
from keyturn.contract.keys import Phase
from keyturn.contract.rotation import APPEND_SECONDS, AtDeadline, Barrier, RotationPolicy
from tests.rotation import invariants
from tests.rotation.dice import Dice
from tests.rotation.model import NAMES, OFFSETS, STEP_SECONDS, Model

STEPS = 60
RULES = RotationPolicy(
    active_seconds=200, token_seconds=15, skew_seconds=1, lease_seconds=5, expired_seconds=20,
    distribution_seconds=21, cache_seconds=4, deadline_seconds=20, standbys=1,
)  # fmt: skip
_LONGEST_TRAVEL_SECONDS = 4  # Of an append to the store.
_SERVICES = ("keyservice-1", "keyservice-2", "worker-1", "worker-2")


def rules(dice: Dice) -> RotationPolicy:
    """Throw for the rules of a history; all of them are such that `violations` finds nothing."""
    barrier = dice.one_of(list(Barrier))
    chosen = msgspec.structs.replace(
        RULES, barrier=barrier, cache_seconds=0 if barrier is Barrier.REPORTS else 4,
        at_deadline=dice.one_of(list(AtDeadline)), standbys=1 + dice.below(2),
    )  # fmt: skip
    assert not violations(chosen)
    return chosen


class History:
    """One seed's history; `journal` tells what was done, for whoever has to find out why it broke something."""

    def __init__(self, seed: int) -> None:
        """Throw for its circumstances."""
        self.dice, self.journal = Dice(seed), [f"seed {seed}"]
        chosen = rules(self.dice)
        skewed = self.dice.chance(2)
        self.model = Model(
            chosen, durable=self.dice.chance(3),
            offsets=lambda: self.dice.one_of(OFFSETS) if skewed else 0.0,
        )  # fmt: skip
        self.journal.append(f"{chosen.barrier}, {chosen.at_deadline}, {chosen.standbys} standbys")

    async def play(self) -> Counter[str]:
        """Play it to its end; returns what it has reached, raises Broken with the journal."""
        try:
            await self.model.begin()
            for name in NAMES[:2]:
                await self.model.join(name)
            for _ in range(STEPS):
                await self._step()
            await self._settle()
        except AssertionError as broken:
            broken.add_note("\n".join(self.journal))
            raise
        return self.model.reached

    async def _step(self) -> None:
        kinds: list[tuple[Callable[[], Awaitable[str]], int]] = [
            (self._time, 12), (self._tick, 5), (self._order, 6), (self._emergency, 2), (self._hurry, 3),
            (self._verifier, 12), (self._service, 5), (self._intruder, 0 if self.model.durable else 4),
            (self._store, 1),
        ]  # fmt: skip
        entry = f"{self.model.boottime:7.1f} {await self.dice.weighted(kinds)()}"
        self.journal.append(entry)
        self.model.note_reports()

    async def _time(self) -> str:
        model = self.model
        deadline = model.rules.publication_seconds + model.rules.deadline_seconds
        long = (model.rules.publication_seconds, model.rules.expired_seconds, deadline)
        seconds = self.dice.weighted([(STEP_SECONDS, 3), (3 * STEP_SECONDS, 3), (self.dice.one_of(long), 2)])
        await model.let_pass(seconds, ticking=self._ticking)
        return f"{seconds} s pass"

    def _ticking(self) -> str | None:
        return self.dice.one_of(_SERVICES) if self.dice.chance(3) else None

    async def _tick(self) -> str:
        name = self.dice.one_of(_SERVICES)
        await self.model.tick(name)
        return f"{name} ticks"

    async def _order(self) -> str:
        name, throw = self.dice.one_of(_SERVICES), self.dice.below(6)
        if throw == 0 and self.model.orders:
            await self.model.repeat(name)
            return f"the last order again, at {name}"
        not_before = self.model.now + 10.0 if throw == 1 else None
        order = Order(report=True, not_before=not_before, event_id=f"order:{len(self.model.orders)}")
        await self.model.order(name, order)
        return f"an order at {name}{' for later' if not_before else ''}"

    async def _hurry(self) -> str:
        """Order twice in a row, so that the second key is new to a verifier that cannot have heard of it."""
        model, first, second = self.model, self.dice.one_of(_SERVICES), self.dice.one_of(_SERVICES)
        kinds = ("plain", "newcomer", "takeover", "asleep", "intruder", "intruder")
        what = self.dice.one_of(kinds)
        name = self.dice.one_of(NAMES)
        if what in ("newcomer", "intruder"):
            for other in list(model.verifiers):
                await model.leave(other, goodbye=True)
            await model.let_pass(STEP_SECONDS)
        if what == "asleep":
            model.services[second].frozen = True
            await model.let_pass(model.rules.expired_seconds + 2 * STEP_SECONDS)
        if what == "intruder":
            await model.join(name)
            await model.leave(name, goodbye=True)  # For the intruder to use.
        if name not in model.verifiers:
            await model.join(name)
        verifier = model.verifiers[name]
        verifier.lagging, verifier.line.severed = True, self.dice.chance(2)
        await model.order(first, Order(report=True))
        if what != "newcomer":
            await model.let_pass(0 if what == "asleep" else STEP_SECONDS)
        if what == "takeover":
            model.restart_store()
            await model.start(second)
        if what == "intruder" and not model.durable:
            await model.forge(name)
            await model.replay(name, -1)
            model.services[second].lagging = False
        model.services[second].frozen = False
        for _ in range(2):
            await model.order(second, Order(report=True))
        return f"orders at {first} and {second} in a hurry while {name} lags ({what})"

    async def _emergency(self) -> str:
        name = self.dice.one_of(_SERVICES)
        phase = self.dice.one_of((Phase.ACTIVE, Phase.ACTIVE, Phase.PUBLISHED, Phase.RETIRING))
        await self.model.emergency(name, phase)
        return f"a key that was {phase} is revoked at {name}"

    async def _verifier(self) -> str:
        name, model = self.dice.one_of(NAMES), self.model
        verifier = model.verifiers.get(name)
        if verifier is None:
            await model.join(name)
            return f"{name} joins"
        what = self.dice.weighted([("lag", 5), ("freeze", 3), ("cut", 3), ("heal", 5), ("goodbye", 2), ("die", 2)])
        match what:
            case "lag":
                verifier.lagging = True
            case "freeze":
                verifier.frozen = True
            case "cut":
                verifier.line.severed = True
            case "heal":
                verifier.lagging = verifier.frozen = verifier.line.severed = False
            case _:
                if not verifier.frozen or what == "die":
                    await model.leave(name, goodbye=what == "goodbye")
        return f"{name}: {what}"

    async def _service(self) -> str:
        name, model = self.dice.one_of(_SERVICES), self.model
        service = model.services[name]
        what = self.dice.weighted(
            [
                *(("lag", 3), ("freeze", 2), ("cut", 3), ("heal", 14)),
                *(("restart", 2), ("slow", 4), ("deaf", 2), ("pause", 3)),
            ]
        )
        match what:
            case "lag":
                service.lagging = True
            case "freeze":
                service.frozen = True
            case "cut":
                service.line.severed = True
            case "heal":
                service.lagging = service.frozen = service.line.severed = False
            case "restart":
                await model.start(name)
            case "slow":
                service.line.meanwhile = self._travel
            case "deaf":
                service.line.loses_answer = True
            case _:
                if service.able and name.startswith("key"):
                    service.clock.pause_seconds = self.dice.one_of((1.0, 4.0, 6.0))
                    model.sign(service)
        return f"{name}: {what}"

    async def _travel(self) -> None:
        """Let an append take its time: the others go on meanwhile."""
        await self.model.let_pass(1.0 + self.dice.below(_LONGEST_TRAVEL_SECONDS))
        self.model.reached["slow appends"] += 1
        if self.dice.chance(2):  # One signer has just renewed its lease, and will not hear of what lands now.
            self.dice.one_of(self.model.signers).line.severed = True

    async def _intruder(self) -> str:
        name = self.dice.one_of(NAMES)
        if self.dice.chance(2):
            await self.model.forge(name)
        else:
            await self.model.replay(name, self.dice.below(60))
        ticked = self.dice.one_of(_SERVICES)
        await self.model.tick(ticked)
        return f"an intruder speaks for {name}; {ticked} ticks"

    async def _store(self) -> str:
        model = self.model
        if self.dice.chance(2):
            model.restart_store()
            return "the store restarts"
        model.store.reachable = False
        seconds = self.dice.one_of((4.0, 10.0, 24.0))
        await model.let_pass(seconds, ticking=self._ticking)
        model.store.reachable = True
        return f"the store was away for {seconds} s"

    async def _settle(self) -> None:
        """Heal everything and let enough time pass; the dead stay dead."""
        model = self.model
        model.store.reachable = True
        for process in model.processes.values():
            process.frozen = process.lagging = process.line.severed = process.line.loses_answer = False
            process.line.meanwhile = None
        patience = model.rules.publication_seconds + model.rules.deadline_seconds + model.rules.aftermath_seconds
        patience += APPEND_SECONDS
        await model.let_pass(patience, ticking=lambda: "worker-1")
        self.journal.append(f"{model.boottime:7.1f} all is well again")
        # One by schedule may have come in between, whose predecessor still retires.
        while model.truth.of("ES256", model.rules.use, Phase.RETIRING) and patience > 0:
            patience -= STEP_SECONDS
            await model.let_pass(STEP_SECONDS, ticking=lambda: "worker-1")
        await model.let_pass(STEP_SECONDS)
        invariants.of_the_end(model)
