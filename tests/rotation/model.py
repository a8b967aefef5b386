"""A whole fleet of the production code in one process: two key services, two workers, verifiers and pullers.

Time stands still but for `let_pass`; each operation of this class is a step of a history.
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from keyservice.rotator import Order, Outcome
from keyturn.contract.errors import FeedUnavailable, PositionTaken, SignerUnavailable
from keyturn.contract.events import KeysEvent, SignedEvent
from keyturn.contract.keys import KeyRecord, KeySet, Phase, Use
from keyturn.contract.positions import Lane
from keyturn.contract.reports import Report, sign_report
from keyturn.contract.rotation import Adoption, RotationPolicy
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.publisher import Publisher
from keyturn.verifier.freshness import Freshness
from tests.clocks import HastyClock
from tests.rotation import invariants
from tests.rotation.facts import Landed, Token
from tests.rotation.lines import Line, OwnClock
from tests.rotation.processes import Service, Verifier
from tests.world import World, new_statement_key

STEP_SECONDS = 2.0  # Between two heartbeats, reports and looks; a lease is longer.
NAMES = ("api-1", "api-2", "api-3")
OFFSETS = (-0.5, 0.0, 0.5)  # Of wall clocks: any two differ by at most S.
_SIGNERS, _WORKERS = ("keyservice-1", "keyservice-2"), ("worker-1", "worker-2")


@dataclass
class Puller:
    """Somebody else's verifier: it keeps the JWKS for as long as it may, and has no identity."""

    kids: frozenset[str] = frozenset()  # Empty: it could not get any, and cannot say anything.
    until_boottime: float = float("-inf")


class Model:
    """The fleet, what has happened to it (`chain`, `tokens`), and which interesting states it has reached."""

    def __init__(self, rules: RotationPolicy, *, durable: bool, offsets: Callable[[], float]) -> None:
        """Describe it; `begin` starts it."""
        self.rules, self.durable, self.clock, self.store = rules, durable, HastyClock(), MemoryFeed()
        freshness = Freshness(
            stale_after_seconds=5, expired_after_seconds=rules.expired_seconds, skew_seconds=rules.skew_seconds
        )
        identities = {name: new_statement_key() for name in NAMES}
        self.world = World(feed=self.store, clock=self.clock, freshness=freshness, verifiers=identities)
        self.offsets, self.reached = offsets, Counter[str]()
        self._off: dict[str, float] = {}
        self.chain: list[Landed] = []
        self.truth = KeySet()
        self.hasty: set[str] = set()  # Keys that began to sign without waiting for anybody.
        self.tokens: list[Token] = []
        self.services: dict[str, Service] = {}
        self.verifiers: dict[str, Verifier] = {}
        self.pullers = [Puller(), Puller()]
        self.orders: list[tuple[Order, Outcome | None]] = []
        self.asking: list[Order] = []  # Orders under way.
        self._reports: list[tuple[str, bytes]] = []
        self._acting: Service | None = None

    @property
    def now(self) -> float:
        """Return the true time (Unix seconds)."""
        return self.clock.now()

    @property
    def boottime(self) -> float:
        """Return the true boot time."""
        return self.clock.boottime()

    async def begin(self) -> None:
        """Start the services; the first worker makes the first keys."""
        await self.world.begin()
        revocations = await self.world.caught_up()
        self._revocations = Publisher(
            Lane.REVOCATIONS, self.world.roles[Lane.REVOCATIONS], self.store, revocations.replica, self.clock
        )
        for name in (*_SIGNERS, *_WORKERS):
            await self.start(name)
        for name in _SIGNERS:
            self.services[name].watch.lane_began()
        await self.let_pass(STEP_SECONDS)
        await self.tick("worker-1")
        await self.let_pass(STEP_SECONDS)

    async def start(self, name: str) -> None:
        """Start a service, or start it anew: it knows what the store knows, and nothing else."""
        line, clock = self._line(name)
        try:
            service = await Service.start(name, self.world, line, clock, self.rules, durable=self.durable)
        except FeedUnavailable:
            return
        self.services[name] = service

    def _line(self, name: str) -> tuple[Line, OwnClock]:
        off_seconds = self._off.setdefault(name, self.offsets())  # A machine keeps its clock.
        clock = OwnClock(self.clock, off_seconds=off_seconds)
        return Line(self.store, clock, self._landed), clock

    @property
    def processes(self) -> dict[str, Service | Verifier]:
        """Return everybody who follows the feed."""
        return {**self.services, **self.verifiers}

    @property
    def signers(self) -> list[Service]:
        """Return the key services."""
        return [self.services[name] for name in _SIGNERS]

    def active(self) -> KeyRecord | None:
        """Return the key that signs in truth."""
        return self.truth.active("ES256", Use.ACCESS)

    def live_tokens(self) -> list[Token]:
        """Return the tokens that must be accepted: not expired, and their key not revoked."""
        return [one for one in self.tokens if self.now < one.exp and self.key(one).phase is not Phase.REVOKED]

    def key(self, token: Token) -> KeyRecord:
        """Return the record of the key that signed a token."""
        record = self.truth.get(token.kid)
        assert record is not None
        return record

    def _landed(self, signed: SignedEvent) -> None:
        event = signed.event
        if not isinstance(event, KeysEvent):
            return
        before = self.truth
        self.truth = before.after(event.changes, at=event.at, place=(event.epoch, event.sequence))
        landed = Landed(event, self.boottime, before, self.truth)
        self.chain.append(landed)
        self.reached["events"] += 1
        if landed.waits_for_nobody():
            self.hasty |= {key.kid for key in landed.activated()}
        acting = self._acting
        adoption = acting.watch.adoption() if acting is not None else Adoption({}, complete=False)
        invariants.of_an_event(self, landed, adoption)

    # Time

    async def let_pass(self, seconds: float, *, ticking: Callable[[], str | None] = lambda: None) -> None:
        """Let time pass in steps, in each of which everybody who can does what they do each second."""
        until = self.boottime + seconds
        while self.boottime < until:
            self.clock.advance(min(STEP_SECONDS, until - self.boottime))
            await self._second()
            if (name := ticking()) is not None:
                await self.tick(name)

    async def _second(self) -> None:
        try:
            await self._revocations.beat()
        except FeedUnavailable:
            self.reached["store away"] += 1
        for name, service in self.services.items():
            if service.able:
                await service.second(beats=name in _SIGNERS)
                if name in _SIGNERS:
                    self.sign(service)
        for verifier in self.verifiers.values():
            if not verifier.frozen:
                await verifier.second()
        for puller, signers in zip(self.pullers, (self.signers, self.signers[::-1]), strict=True):
            self.pull(puller, signers)
        self.tokens = [one for one in self.tokens if self.now < one.exp + 60]
        await invariants.of_a_second(self)

    # What services do

    async def tick(self, name: str) -> None:
        """Let a service do what is due."""
        service = self.services[name]
        if service.able:
            await self._act(service, service.rotator.tick())
            invariants.of_a_tick(self, service)

    async def order(self, name: str, order: Order) -> None:
        """Ask a service for a rotation."""
        service = self.services[name]
        if service.able and self.active() is not None:
            outcome = await self._rotate(service, order)
            self.orders.append((order, outcome))
            self.reached["orders"] += 1

    async def repeat(self, name: str) -> None:
        """Ask once more for the last order, by its id, wherever."""
        service = self.services[name]
        if service.able and self.orders and self.orders[-1][0].event_id is not None:
            order, (_, first) = self.orders[-1][0], self.orders[-1]
            again = await self._rotate(service, order)
            invariants.of_a_repeated_order(self, order, first, again)

    async def _rotate(self, service: Service, order: Order) -> Outcome | None:
        self.asking.append(order)
        try:
            outcome: Outcome | None = await self._act(service, service.rotator.rotate("ES256", order))
        finally:
            self.asking.remove(order)
        return outcome

    async def emergency(self, name: str, phase: Phase) -> None:
        """Revoke the oldest key of a phase."""
        service = self.services[name]
        keys = service.member.replica.keys.of("ES256", Use.ACCESS, phase)
        if service.able and keys:
            await self._act(service, service.rotator.revoke(keys[0].kid, Order(reason="leaked")))

    async def _act(self, service: Service, action: Awaitable[Any]) -> Any:
        service.busy, outer, self._acting = True, self._acting, service
        try:
            return await action
        except FeedUnavailable:
            self.reached["outcome unknown"] += 1
        except PositionTaken:
            self.reached["lost to the end"] += 1
        finally:
            service.busy, self._acting = False, outer
        return None

    def sign(self, service: Service) -> None:
        """Let a key service sign a token as its lease allows."""
        claims = self.world.claims(iss=None, iat=None)
        try:
            compact = service.sign(claims)
        except SignerUnavailable as refusal:
            self.reached["lease refusals"] += "lease" in str(refusal)
            return
        kid = jwt.get_unverified_header(compact)["kid"]
        exp = jwt.decode(compact, options={"verify_signature": False})["exp"]
        token = Token(compact.encode(), kid, float(exp), self.boottime, service.name)
        self.tokens.append(token)
        self.reached["tokens"] += 1
        invariants.of_a_signature(self, token, service)

    # What verifiers do

    async def join(self, name: str) -> None:
        """Start a verifier, or start it again as another incarnation."""
        self.clock.advance(0.01)
        line, clock = self._line(name)
        verifier = self.verifiers[name] = Verifier(name, self.world, line, clock)
        await verifier.report()  # It is known before it has read anything.
        await verifier.second()
        self.reached["joined"] += 1

    async def leave(self, name: str, *, goodbye: bool) -> None:
        """End a verifier, in order or not."""
        verifier = self.verifiers.pop(name)
        self.reached["goodbye" if goodbye else "died"] += 1
        if goodbye:
            await verifier.report(goodbye=True)
            self.note_reports()

    def pull(self, puller: Puller, signers: Sequence[Service]) -> None:
        """Let a puller ask the first key service that answers for the JWKS, if its copy is too old."""
        if self.boottime < puller.until_boottime:
            return
        puller.kids = frozenset()
        answers = (one.jwks() for one in signers if not one.frozen)
        told = next((answer for answer in answers if answer is not None), None)
        if told is not None:
            puller.kids = frozenset(jwk["kid"] for jwk in json.loads(told[0])["keys"])
            puller.until_boottime = self.boottime + told[1]

    def restart_store(self) -> None:
        """Let another server take over: it has every event, and nobody's report."""
        self.store.run += "+"
        if not self.durable:
            self.store._reports.clear()
        self.reached["store restarted"] += 1

    # What an intruder does who can write to the store

    async def replay(self, name: str, number: int) -> None:
        """Put an old report back, and let everybody look at once."""
        seen = [compact for verifier, compact in self._reports if verifier == name]
        if seen:
            await self._put(name, seen[number % len(seen)])
            self.reached["replays"] += 1

    async def forge(self, name: str) -> None:
        """Say in a verifier's name that it holds everything, by a key of one's own."""
        report = Report(
            verifier=name, incarnation="f" * 36, count=1, at=self.now, keys=(9, 10**6), revocations=(9, 10**6),
            state="fresh",
        )  # fmt: skip
        await self._put(name, sign_report(new_statement_key(), report))
        self.reached["forgeries"] += 1

    async def _put(self, name: str, compact: bytes) -> None:
        """Leave it on the board, where the verifier's own next word replaces it, and ring."""
        self.store._reports[name] = compact
        for service in self.services.values():
            if service.able and not service.lagging and service.reaches:
                await service.watch.look()

    def note_reports(self) -> None:
        """Keep the reports that stand on the board now, for an intruder to use later."""
        self._reports = [*self._reports, *self.store._reports.items()][-60:]
