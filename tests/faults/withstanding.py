"""What becomes of an attack on the store: what was accepted, who noticed, and whether all is well again by itself."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import msgspec

from keyturn.verifier.freshness import State
from tests.faults.drills import WELL_SECONDS
from tests.faults.intruder import Intruder
from tests.faults.newcomer import Newcomer, newcomer
from tests.faults.people import People
from tests.faults.recorder import CLOCK, Held
from tests.waiting import eventually

NOTICED_SECONDS = 10.0
NEWCOMER = "newcomer"
_ROUTINE = frozenset({"request", "ready", "key_set_changed", "trust_adopted", "started", "stopping"})


@dataclass
class Scene:
    """Who was there before the attack: a live token, one that was revoked, and the same two as opaque ones."""

    people: People
    intruder: Intruder
    live: Held
    revoked: Held
    opaque: str
    dead: str
    forged: list[Held] = field(default_factory=list)  # Tokens that an attack makes.


Attack = Callable[[Scene], AbstractAsyncContextManager[None]]
"""What he does; he leaves at the end of the block."""


@dataclass(frozen=True)
class Withstood:
    """What became of an attack."""

    accepted: list[str]  # What was believed and should not have been.
    noticed: dict[str, set[str]]  # Log events, by who logged them.
    state: str  # The worst that a sidecar said of itself meanwhile.
    newcomer: str  # What somebody who began meanwhile said of itself.
    order: int | None  # The answer to a revocation meanwhile, None where that was refused.
    well_seconds: float  # After he had left.

    @property
    def events(self) -> set[str]:
        """Return what was logged by anybody."""
        return {event for events in self.noticed.values() for event in events}


class Listener:
    """Reads what processes log from now on; single lines of daily work are left out."""

    def __init__(self, people: People) -> None:
        """Begin at the end of each log."""
        self._fleet = people.fleet
        self._from = {name: len(self._fleet.log(name)) for name in self._fleet.processes}

    def heard(self) -> dict[str, set[str]]:
        """Return the events by process; those that were routine are left out."""
        found: dict[str, set[str]] = defaultdict(set)
        for name, start in self._from.items():
            for line in self._fleet.log(name)[start:].splitlines():
                if (event := _event(line)) is not None:
                    found[name].add(event)
        return dict(found)


async def scene_of(people: People, intruder: Intruder) -> Scene:
    """Set the scene, once whatever was before is over."""
    await eventually(lambda: goes_on(people), within_seconds=WELL_SECONDS, saying=people.fleet.last_words)
    return Scene(
        people, intruder, live=await people.token(), revoked=await _revoked(people),
        opaque=await people.opaque(), dead=await _dead(people),
    )  # fmt: skip


async def withstand(people: People, attack: Attack, notices: Iterable[str]) -> Withstood:
    """Let an attack be made, wait until these events were logged, ask everybody, and wait until all is well again.

    Fails where what was acknowledged before does not hold in the end.
    """
    async with people.fleet.redis() as redis:
        scene = await scene_of(people, Intruder(redis))
        spare, listener = await people.token(), Listener(people)
        async with attack(scene), newcomer(people.fleet) as new:

            def events() -> dict[str, set[str]]:
                return listener.heard() | {NEWCOMER: set(new.noted)}

            def are_noticed() -> bool:
                return set(notices) <= {event for told in events().values() for event in told}

            await eventually(are_noticed, within_seconds=NOTICED_SECONDS, saying=lambda: f"{notices} in {events()}")
            accepted = await believed(scene, new)
            order = await people.revoke(spare, wait=False)
            accepted += await believed(scene, new)
            noticed, state = events(), str(new.state)
        left_at = CLOCK.boottime()
        await eventually(lambda: goes_on(people), within_seconds=WELL_SECONDS, saying=people.fleet.last_words)
        well_seconds = CLOCK.boottime() - left_at
    worst = {seen.state for seen in people.recorder.states if seen.ended_at < left_at}
    await holds_again(scene, spare)
    return Withstood(
        accepted=accepted, noticed={name: told for name, told in noticed.items() if told},
        state=next(state for state in ("expired", "stale", "fresh") if state in worst),
        newcomer=state, order=order, well_seconds=well_seconds,
    )  # fmt: skip


async def believed(scene: Scene, new: Newcomer) -> list[str]:
    """Ask everybody, and return what was believed that an intruder has made or unmade."""
    people, wrong = scene.people, []
    for sidecar in people.sidecars():
        await people.state(sidecar)
        wrong += [
            f"{sidecar} passes a forged token" for one in scene.forged if await _status(scene, one, sidecar) == 200
        ]
        if await _status(scene, scene.revoked, sidecar) == 200:
            wrong.append(f"{sidecar} passes a revoked token")
        if await _status(scene, scene.live, sidecar) in (401, 403):
            wrong.append(f"{sidecar} believes in a forged revocation")
    for text in (scene.revoked.text, scene.dead, *(one.text for one in scene.forged)):
        if await people.introspect_text(text):
            wrong.append("introspection calls a token active that is not")
    if await people.introspect(scene.live) is False:
        wrong.append("introspection believes in a forged revocation")
    if any(new.passes(one) for one in scene.forged):
        wrong.append("a newcomer passes a forged token")
    if new.state is State.FRESH and new.passes(scene.revoked):
        wrong.append("a newcomer that says fresh passes a revoked token")
    return wrong


async def goes_on(people: People) -> bool:
    """Say whether everything works: tokens, checks, introspection, and revocations that everybody adopts."""
    if not await people.well():
        return False
    held = await people.sign_in()
    if held is None:
        return False
    return await people.introspect(held) is True and await people.revoke(held) == 200


async def holds_again(scene: Scene, spare: Held) -> None:
    """Ask everybody again once all is well: what was acknowledged holds, and nothing else does."""
    people = scene.people
    everywhere = len(people.sidecars())
    if spare.order is not None and spare.order.acknowledged_at is not None:
        assert await people.statuses(spare) == [401] * everywhere
    assert await people.statuses(scene.revoked) == [401] * everywhere
    assert await people.statuses(scene.live) == [200] * everywhere
    for one in scene.forged:
        assert await people.statuses(one) == [401] * everywhere
    assert await people.introspect_text(scene.dead) is False
    assert await people.introspect_text(scene.opaque) is True


async def _status(scene: Scene, held: Held, sidecar: str) -> int:
    return (await scene.people.check(held, sidecar)).status


async def _revoked(people: People) -> Held:
    held = await people.token()
    assert await people.revoke(held) == 200
    return held


async def _dead(people: People) -> str:
    token = await people.opaque()
    assert await people.ask("revocation", "/revoke?wait=all", form={"token": token}, who="client")
    return token


def _event(line: str) -> str | None:
    try:
        told = msgspec.json.decode(line, type=dict[str, object])
    except msgspec.DecodeError:
        return None  # No event of ours: the interpreter's own words, or a line that is being written.
    event = str(told.get("event"))
    is_routine = event in _ROUTINE or (event == "replica_state" and told.get("state") == "fresh")
    return None if is_routine else event
