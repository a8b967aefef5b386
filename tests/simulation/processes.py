"""The processes of the simulated world: production parts on a channel and a clock of their own, and how they die."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from dataclasses import replace
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import jwt

from keyservice.restoring import Restoring
from keyservice.rotator import Order
from keyservice.signer import Request
from keyservice.tending import Tending
from keyservice.wrapping import FileWrapper
from keyturn.contract.errors import FeedUnavailable, PositionTaken, SignerUnavailable
from keyturn.contract.events import SignedEvent
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind, grant_moment
from keyturn.feed.log import Feed, PresenceBoard
from keyturn.feed.presence import PresenceWatch
from keyturn.feed.publisher import Publisher
from keyturn.feed.recovery import ALONE, Remembered
from keyturn.verifier.reporter import Reporter
from keyturn.verifier.verdict import Verdict
from revocation.keeping import Keeping
from revocation.orders import OrderBook
from revocation.writer import RevocationWriter
from serving.receipts import Quorum, receipt_of
from tests.keyservice.building import allowed, kek_file, wire
from tests.simulation.facts import Minted, Revocation
from tests.simulation.loop import OWNER
from tests.simulation.plan import FRESHNESS, What
from tests.world import World, policy

if TYPE_CHECKING:
    from tests.simulation.clock import SimulatedClock
    from tests.simulation.network import Channel
    from tests.simulation.world import Simulation

PROBE_SECONDS = 0.37  # Between two looks of a verifier's clients; no multiple of anything else.
PROBED_TOKENS = 10
SELDOM = 2  # Every so many looks, tokens are shown that somebody wants rejected: that is no cheap answer.
RECEIPT_SECONDS = 3.0
WORKER_SECONDS = 2.3
PRUNE_SECONDS = 3.0
_ANYTHING, _POLICY = allowed(), policy()


@lru_cache(maxsize=1)
def _wrapper() -> FileWrapper:
    return FileWrapper(kek_file())


class Process:
    """A follower of the feed, and whatever else runs beside it; one incarnation."""

    def __init__(
        self, world: "Simulation", name: str, channel: "Channel", clock: "SimulatedClock", incarnation: int
    ) -> None:
        """Make the parts; `start` lets them run."""
        self.world, self.name, self.channel, self.clock, self.incarnation = world, name, channel, clock, incarnation
        self.frozen = False
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._context = copy_context()
        self._context.run(OWNER.set, self)
        self.own: World = replace(world.issuer, feed=cast("Feed", channel), clock=clock)
        self.member = self._context.run(self.own.member)
        self.member.follower.on_change.append(lambda: world.moved(self))
        self._context.run(self._wire)

    @property
    def board(self) -> PresenceBoard:
        """Return the presence board as this process reaches it."""
        return cast("PresenceBoard", self.channel)

    def adopt(self, task: "asyncio.Task[Any]") -> None:
        """Take note of a task that runs in this process."""
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None), context=copy_context())

    def start(self) -> None:
        """Begin."""
        for part in self._parts():
            self.spawn(part, vital=True)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, vital: bool = False) -> None:
        """Run something in this process; what is vital must not end while the process lives."""
        task = self.world.loop.create_task(coroutine, context=self._context)
        task.add_done_callback(self._must_live if vital else self._must_not_fail)

    def kill(self) -> None:
        """End at once, wherever each task is: nothing that they still try has any effect."""
        self.channel.dead = True
        self.end()

    def end(self) -> None:
        """Cancel every task, as an orderly end does."""
        self.frozen = False
        for task in list(self._tasks):
            task.cancel()

    def freeze(self) -> None:
        """Stop everything that runs here, while the clocks go on."""
        self.frozen = True
        self.world.loop.freeze()

    def _must_live(self, task: "asyncio.Task[Any]") -> None:
        if task.cancelled():
            return
        self._must_not_fail(task)
        raise AssertionError(f"part of {self.name} ended by itself")

    def _must_not_fail(self, task: "asyncio.Task[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    def _wire(self) -> None:
        """Make what stands on the replica."""

    def _parts(self) -> list[Coroutine[Any, Any, Any]]:
        return [self.member.follower.run()]

    def _beating(
        self, publisher: Publisher, beside: Callable[[SignedEvent], Remembered] = lambda _: ALONE
    ) -> Coroutine[Any, Any, None]:
        """Beat, and mend what the store has lost, as every publisher does."""
        self.member.follower.publishes.add(publisher.lane)
        recovery = self.own.recovery(publisher, self.member, beside=beside)
        return publisher.run(self.member.follower.catch_up, recovery.mend)

    def _watch(self) -> PresenceWatch:
        live_seconds = FRESHNESS.expired_after_seconds + FRESHNESS.skew_seconds
        return PresenceWatch(
            self.board, lambda: self.member.replica.trust, self.clock, live_seconds=live_seconds,
            durable=self.world.plan.durable,
        )  # fmt: skip


class VerifierProcess(Process):
    """A verifier that reports, and whose clients ask again and again."""

    def _wire(self) -> None:
        key = self.own.verifiers[self.name]
        self._reporter = Reporter(self.board, key, self.member.replica, self.clock, verifier=self.name)
        self.member.follower.on_change.append(self._reporter.notice)

    def _parts(self) -> list[Coroutine[Any, Any, Any]]:
        return [*super()._parts(), self._reporter.run(), self._probe()]

    def judge(self, token: Minted) -> Verdict:
        """Answer from memory."""
        return self.member.verifier.judge(token.compact, _POLICY)

    async def _probe(self) -> None:
        for turn in count():
            await self.clock.sleep(PROBE_SECONDS)
            for token in self.world.truth.tokens[-PROBED_TOKENS:]:
                if turn % SELDOM and self.world.truth.in_doubt(token):
                    continue
                verdict = self.judge(token)
                if verdict.reason == "unknown_kid":
                    self.spawn(self._look_for_kid(token))
                else:
                    self.world.judged(self, token, verdict)

    async def _look_for_kid(self, token: Minted) -> None:
        """Answer as the sidecar does: an unknown kid is looked for in the feed before it is refused."""
        try:
            await self.member.follower.catch_up()
        except FeedUnavailable:
            return  # It says 503.
        self.world.reached["looked for an unknown kid"] += 1
        self.world.judged(self, token, self.judge(token))


class WorkerProcess(Process):
    """Asks what is due, and does it."""

    def _wire(self) -> None:
        self.inside = wire(
            self.own, self.member, self.world.plan.rules, durable=self.world.plan.durable, wrapper=_wrapper(),
            note=self._note,
        )  # fmt: skip

    def _parts(self) -> list[Coroutine[Any, Any, Any]]:
        beating = self._beating(self.inside.publisher, self.inside.keyring.beside)
        return [*super()._parts(), self.inside.watch.run(), beating, self._tick()]

    def error(self, event: str, **_: object) -> None:
        """Take what is logged as an error, or as a warning."""
        self.world.history.note(self.name, event)

    warning = error

    def _note(self, event: str, **facts: object) -> None:
        self.world.history.note(self.name, f"{event} {facts.get('changes', '')}")

    async def _tick(self) -> None:
        await self.member.follower.ready(Lane.KEYS)
        while True:
            try:
                await self.inside.rotator.tick()
            except FeedUnavailable:
                self.world.reached["outcome unknown"] += 1
            await self.clock.sleep(WORKER_SECONDS)


class KeyServiceProcess(WorkerProcess):
    """Beats, opens keys, signs, and takes orders."""

    def _wire(self) -> None:
        super()._wire()
        self._tending = Tending(self.inside.keyring, self.inside.rotator, self.member.follower, cast("Any", self))
        self._restoring = Restoring(self.inside.keyring, self.member.replica, self.clock, cast("Any", self))

    def _parts(self) -> list[Coroutine[Any, Any, Any]]:
        beating = self._beating(self.inside.publisher, self.inside.keyring.beside)
        return [self.member.follower.run(), self.inside.watch.run(), beating, self._tend(), self._restoring.run()]

    async def _tend(self) -> None:
        await self.member.follower.ready(Lane.KEYS)
        await self._tending.run()

    async def serve(self, what: What, amount: int) -> None:
        """Carry out what a client or operator asks."""
        match what:
            case What.TOKEN:
                self._sign(amount)
            case What.ROTATE:
                await self._order(amount)
            case What.EMERGENCY:
                await self._revoke()

    def _sign(self, amount: int) -> None:
        claims = self.own.claims(iss=None, iat=None, sub=f"user-{amount % 3}")
        try:
            compact = self.inside.signer.sign(Request("at+jwt", claims), identity=_ANYTHING)
        except SignerUnavailable as refusal:
            self.world.reached["lease refusals"] += "lease" in str(refusal)
            return
        kid = jwt.get_unverified_header(compact)["kid"]
        signed: Mapping[str, Any] = jwt.decode(compact, options={"verify_signature": False})
        granted_at = grant_moment(signed["grant_id"])
        assert granted_at is not None
        token = Minted(
            compact.encode(), kid, float(signed["exp"]), self.clock.boottime(), self.name,
            jti=signed["jti"], grant_id=signed["grant_id"], granted_at=granted_at, sub=signed["sub"],
        )  # fmt: skip
        self.world.signed(self, token)

    async def _order(self, amount: int) -> None:
        order = Order(report=True, event_id=f"order:{amount}")
        for _ in range(3):
            try:
                outcome = await self.inside.rotator.rotate(self.world.plan.rules.algorithms[0], order)
            except FeedUnavailable:
                self.world.reached["orders repeated"] += 1
                await self.clock.sleep(0.5)
                continue
            except PositionTaken:
                return
            self.world.history.note(self.name, f"order carried out: {outcome.kid[:6]} signs next")
            return

    async def _revoke(self) -> None:
        active = self.member.replica.keys.active(self.world.plan.rules.algorithms[0], self.world.plan.rules.use)
        if active is None:
            return
        self.world.truth.keys_in_doubt.add(active.kid)
        try:
            await self.inside.rotator.revoke(active.kid, Order(reason="leaked", report=True))
        except (FeedUnavailable, PositionTaken):
            self.world.reached["emergency in doubt"] += 1


class RevokerProcess(Process):
    """The revocation service: writes, beats, watches, prunes; as `revocation/app.py` does."""

    def _wire(self) -> None:
        self.publisher = self.own.publisher(Lane.REVOCATIONS, self.member)
        self.writer = RevocationWriter(
            self.publisher,
            self.member.follower.catch_up,
            self.clock,
            book=OrderBook(self.own.feed, self.member.replica),
        )
        self.watch = self._watch()
        rules = self.world.plan.rules
        self._keeping = Keeping(
            longest_token_seconds=rules.token_seconds, grant_seconds=rules.token_seconds,
            skew_seconds=rules.skew_seconds, leeway_seconds=rules.lease_seconds,
        )  # fmt: skip

    def _parts(self) -> list[Coroutine[Any, Any, Any]]:
        return [*super()._parts(), self._beating(self.publisher), self.watch.run(), self._prune()]

    async def _prune(self) -> None:
        while True:
            await self.clock.sleep(PRUNE_SECONDS)
            self.member.replica.forget_expired(self.clock.now())

    async def serve(self, amount: int) -> None:
        """Revoke one of the last tokens, by a name that the throw decides, and wait for the receipt."""
        truth, moment = self.world.truth, self.world.loop.time()
        living = [one for one in truth.tokens[-PROBED_TOKENS:] if not truth.in_doubt(one)]
        if not living or self.member.replica.position(Lane.REVOCATIONS) is None:
            return
        selector = self._selector(living[amount % len(living)], amount)
        until = self._keeping.of_selector(selector.kind, self.member.replica.keys, self.clock.now())
        named = [token for token in truth.tokens if token.named_by(selector)]
        revocation = Revocation(selector, named, until, moment)
        truth.revocations.append(revocation)
        asked = self.clock.boottime()
        try:
            written = await self.writer.write(Entry(selector=selector, until=until), report=True)
        except (FeedUnavailable, PositionTaken):
            self.world.reached["revocation in doubt"] += 1
            return
        self.world.acknowledged(self, revocation)
        _, complete = await receipt_of(
            self.watch, Lane.REVOCATIONS, written.place, wait=Quorum.ALL, timeout_seconds=RECEIPT_SECONDS,
            appended_boottime=asked, durability="local",
        )  # fmt: skip
        if complete:
            adopters = self.watch.adopters(Lane.REVOCATIONS, written.place)
            revocation.receipt, revocation.adopters = self.world.loop.time(), frozenset(adopters.adopted)
            self.world.reached["receipts"] += bool(adopters.adopted)
            self.world.history.note(self.name, f"receipt: adopted by {', '.join(adopters.adopted)}")

    def _selector(self, token: Minted, amount: int) -> Selector:
        issuer, kinds = self.own.issuer, (SelectorKind.JTI, SelectorKind.GRANT, SelectorKind.SUBJECT)
        match kinds[amount // 7 % 3]:
            case SelectorKind.JTI:
                return Selector(iss=issuer, kind=SelectorKind.JTI, value=token.jti)
            case SelectorKind.GRANT:
                return Selector(iss=issuer, kind=SelectorKind.GRANT, value=token.grant_id)
            case _:
                now = self.clock.now()
                return Selector(iss=issuer, kind=SelectorKind.SUBJECT, value=token.sub, before=now)
