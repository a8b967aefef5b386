"""One run: a plan carried out on a seeded loop, with everything that happens told to the checkers."""

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from keyturn.contract.events import SignedEvent, SignedSnapshot
from keyturn.contract.positions import Lane, Position, parse_position
from keyturn.contract.snapshots import Chunks
from keyturn.feed import publisher
from keyturn.verifier import follower
from keyturn.verifier.verdict import Verdict
from tests.rotation.dice import Dice
from tests.simulation.checkers import CHECKERS
from tests.simulation.clock import SimulatedClock
from tests.simulation.facts import Minted, Revocation, Truth
from tests.simulation.history import History
from tests.simulation.loop import SimulatedLoop, outside
from tests.simulation.network import Channel, Weather
from tests.simulation.plan import END_SECONDS, FRESHNESS, KEY_SERVICES, SERVER, Happening, Plan, What
from tests.simulation.processes import (
    KeyServiceProcess,
    Process,
    RevokerProcess,
    VerifierProcess,
    WorkerProcess,
)
from tests.simulation.randomness import seeded
from tests.simulation.server import Server
from tests.world import World, new_statement_key

# Production's limits that would never be reached in so short a time, made small enough to matter.
_SMALL: tuple[tuple[Any, str, float], ...] = (
    (publisher, "SNAPSHOT_EVERY_EVENTS", 4),
    (publisher, "TRIM_AFTER_SECONDS", 3.0),
    (publisher, "LOOK_AT_SNAPSHOT_SECONDS", 5.0),
    (follower, "TIDY_EVERY_SECONDS", 3.0),
)
_WEATHERS: dict[What, tuple[str, ...]] = {
    What.CUT: ("requests_lost", "answers_lost"), What.MUTE: ("requests_lost",), What.UNANSWERED: ("answers_lost",),
    What.DEAF: ("deaf",), What.REPLAY: ("replaying",), What.SLOW: ("slow",), What.LOSSY: ("lossy",),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """How a run went: what it reached, the hash of its history, and what broke, if anything."""

    reached: Counter[str]
    digest: str
    failure: BaseException | None
    told: str


class Simulation:
    """The whole system on one loop; `run` carries the plan out and returns how it went."""

    def __init__(self, plan: Plan, loop: SimulatedLoop) -> None:
        """Make everything; nothing runs yet."""
        self.plan, self.loop, self.history = plan, loop, History(loop)
        self.truth, self.reached = Truth(), Counter[str]()
        self.server = Server(self.history, self._landed, keeps_images=plan.loses)
        self._dice = Dice(f"{plan.seed}/world")
        self._ahead = {name: self._dice.between(-0.24, 0.24) for name in plan.processes}
        self.issuer = World(
            feed=self.server.store, clock=SimulatedClock(loop), freshness=FRESHNESS,
            verifiers={name: new_statement_key() for name in plan.verifiers},
        )  # fmt: skip
        self.processes: dict[str, Process] = {}
        self._channels = 0
        self.checkers = [checker(self) for checker in CHECKERS]

    @property
    def verifiers(self) -> list[VerifierProcess]:
        """Return the verifiers that run."""
        return [one for one in self.processes.values() if isinstance(one, VerifierProcess)]

    @property
    def key_services(self) -> list[KeyServiceProcess]:
        """Return the key services that run."""
        return [one for one in self.processes.values() if isinstance(one, KeyServiceProcess)]

    def server_position(self, lane: Lane) -> Position:
        """Return where the server stands."""
        return parse_position(self.server.store._chains[lane].position)

    async def play(self) -> None:
        """Carry out the plan, and let everybody settle; raises Broken."""
        await self.issuer.begin()
        self.truth.begin(self.server_position(Lane.KEYS))
        for name in self.plan.processes:
            self._start(name)
        for service in self.key_services:
            service.inside.watch.lane_began()
        for happening in self.plan.happenings:
            outside(self.loop, happening.at, self._happen, happening)
        await SimulatedClock(self.loop).sleep(END_SECONDS)
        for checker in self.checkers:
            checker.ended()

    async def stop(self) -> None:
        """Kill everybody, whatever state they are in."""
        for process in self.processes.values():
            process.kill()
        self.loop.thaw()

    # What the checkers hear of

    def _landed(self, signed: SignedEvent | SignedSnapshot, chunks: Chunks) -> None:
        position, moment = signed.position, self.loop.time()
        if isinstance(signed, SignedEvent):
            lane, did = signed.event.lane, "takes"
            self.truth.landed(signed, moment)
        else:
            lane, did = signed.snapshot.lane, "begins"
            self.reached["epochs opened"] += 1
            self.truth.began(signed, chunks, moment)
        self.history.note(SERVER, f"{did} {lane} {position.epoch}:{position.sequence} {position.hash[:8]}")
        self._tell(lambda checker: checker.landed(lane))

    def signed(self, process: KeyServiceProcess, token: Minted) -> None:
        """Take note of a token that was handed out."""
        self.truth.tokens.append(token)
        self.history.note(process.name, f"signs token {len(self.truth.tokens)} of {token.sub} by {token.kid[:6]}")
        self._tell(lambda checker: checker.signed(process, token))

    def acknowledged(self, process: RevokerProcess, revocation: Revocation) -> None:
        """Take note of a client that was told that its revocation is durable."""
        revocation.acknowledged = self.loop.time()
        self.history.note(process.name, f"acknowledges {revocation.selector.kind} for {len(revocation.tokens)} tokens")
        self._tell(lambda checker: checker.acknowledged(revocation))

    def moved(self, process: Process) -> None:
        """Take note of a replica that has taken something in."""
        self._tell(lambda checker: checker.moved(process))

    def judged(self, process: VerifierProcess, token: Minted, verdict: Verdict) -> None:
        """Take note of a verdict."""
        number = self.truth.tokens.index(token) + 1
        self.history.note(process.name, f"says {verdict.kind} ({verdict.state}) of token {number}", routine=True)
        self._tell(lambda checker: checker.judged(process, token, verdict))

    def _tell(self, tell: Callable[[Any], None]) -> None:
        for checker in self.checkers:
            tell(checker)

    # What happens

    def _start(self, name: str, incarnation: int = 1) -> None:
        self._channels += 1
        dice = Dice(f"{self.plan.seed}/{name}/{incarnation}")
        channel = Channel(self.server, dice, self.loop, name=name)
        clock = SimulatedClock(self.loop, ahead_seconds=self._ahead[name])
        kind: type[Process] = (
            KeyServiceProcess if name in KEY_SERVICES
            else WorkerProcess if name in self.plan.workers
            else RevokerProcess if name in self.plan.revokers
            else VerifierProcess
        )  # fmt: skip
        process = self.processes[name] = kind(self, name, channel, clock, incarnation)
        process.start()

    def _happen(self, happening: Happening) -> None:
        self.history.note(happening.whom, f"* {str(happening).split(maxsplit=2)[2]}")
        self.reached[str(happening.what)] += 1
        if happening.whom == SERVER:
            self._happen_to_server(happening)
            return
        process = self.processes[happening.whom]
        match happening.what:
            case What.TOKEN | What.ROTATE | What.EMERGENCY:
                assert isinstance(process, KeyServiceProcess)
                process.spawn(process.serve(happening.what, happening.amount))
            case What.REVOKE:
                assert isinstance(process, RevokerProcess)
                process.spawn(process.serve(happening.amount))
            case _:
                self._fault(process, happening)

    def _fault(self, process: Process, happening: Happening) -> None:
        seconds, name = happening.seconds, process.name
        match happening.what:
            case What.CRASH | What.STOP:
                self._end(process, seconds, gently=happening.what is What.STOP)
            case What.CRASH_IN_CALL:
                process.channel.crash = lambda: self._end(process, seconds, gently=False)
            case What.FREEZE:
                process.freeze()
                outside(self.loop, seconds, self._thaw, process)
            case What.STEP:
                self._ahead[name] = process.clock.ahead_seconds = (happening.amount % 49 - 24) / 100
            case What.HANG_UP:
                process.channel.hang_up()
            case _:
                self._change_weather(process, _WEATHERS[happening.what], seconds)

    def _change_weather(self, process: Process, what: tuple[str, ...], seconds: float) -> None:
        for condition in what:
            setattr(process.channel.weather, condition, True)
        outside(self.loop, seconds, self._clear, process, what)

    def _clear(self, process: Process, what: tuple[str, ...]) -> None:
        process.channel.weather = Weather(
            **{name: value for name, value in vars(process.channel.weather).items() if name not in what}
        )

    def _thaw(self, process: Process) -> None:
        process.frozen = False
        self._thaw_all()

    def _thaw_all(self) -> None:
        self.loop.thaw()
        if any(process.frozen for process in self.processes.values()):
            self.loop.freeze()

    def _end(self, process: Process, seconds: float, *, gently: bool) -> None:
        if self.processes[process.name] is not process or process.channel.dead:
            return
        self.history.note(process.name, "ends" if gently else "is dead")
        if gently:
            process.end()
        else:
            process.kill()
        self._thaw_all()
        outside(self.loop, max(seconds, 0.05), self._start_again, process)

    def _start_again(self, process: Process) -> None:
        if self.processes[process.name] is process:
            process.kill()
            self.history.note(process.name, "starts again")
            self._start(process.name, process.incarnation + 1)

    def _happen_to_server(self, happening: Happening) -> None:
        server = self.server
        if happening.what is What.FREEZE:
            server.frozen = True
            outside(self.loop, happening.seconds, server.thaw)
        else:
            server.stop()
            if happening.what is What.FAILOVER:
                self._lose(happening.amount)
            outside(self.loop, happening.seconds, server.start)

    def _lose(self, count: int) -> None:
        lost = self.server.lose(count)
        keys, revocations = (self.server_position(lane) for lane in (Lane.KEYS, Lane.REVOCATIONS))
        self.truth.lost(keys, revocations, self.loop.time())
        self.reached["writes lost"] += lost
        places = f"{keys.epoch}:{keys.sequence}, {revocations.epoch}:{revocations.sequence}"
        self.history.note(SERVER, f"has lost {lost} writes and stands at {places}")


def run(plan: Plan) -> Run:
    """Carry out a plan from beginning to end."""
    with seeded(plan.seed), pytest.MonkeyPatch.context() as patch:
        for module, name, value in _SMALL:
            patch.setattr(module, name, value)
        gc.disable()  # A run is short, and nothing in it is garbage before its end.
        loop = SimulatedLoop(plan.seed)
        simulation = Simulation(plan, loop)
        failure: BaseException | None = None
        try:
            loop.run_until_complete(simulation.play())
        except Exception as error:
            failure = error
        history = simulation.history
        told, digest = history.told(), history.digest()
        loop.finish(simulation.stop())
        gc.enable()
    return Run(simulation.reached, digest, failure, told)
