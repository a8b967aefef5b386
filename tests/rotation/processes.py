"""The processes of the model, each of the production code on its own line and clock."""

from dataclasses import replace
from typing import Any

from keyservice.keyring import Keyring
from keyservice.rotator import Rotator
from keyservice.sealing import KeySealer
from keyservice.signer import Request, Signer
from keyservice.wrapping import FileWrapper
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.jwks import render_jwks
from keyturn.contract.positions import Lane
from keyturn.contract.rotation import RotationPolicy, jwks_max_age
from keyturn.feed.presence import PresenceWatch
from keyturn.feed.publisher import Publisher
from keyturn.verifier.freshness import State
from keyturn.verifier.reporter import Reporter
from keyturn.verifier.verdict import Kind, Verdict
from tests.keyservice.building import allowed, kek_file
from tests.rotation.facts import Token
from tests.rotation.lines import Line, OwnClock
from tests.world import Member, World, policy

_WRAPPER = FileWrapper(kek_file())
_ANYTHING, _POLICY = allowed(), policy()


class Service:
    """A key service, or a worker, which is the same without a signer."""

    def __init__(self, name: str, line: Line, clock: OwnClock, member: Member) -> None:
        """Take the place of a process that has just started."""
        self.name, self.line, self.clock, self.member = name, line, clock, member
        self.frozen = self.lagging = self.busy = False

    @classmethod
    async def start(
        cls, name: str, world: World, line: Line, clock: OwnClock, rules: RotationPolicy, *, durable: bool
    ) -> "Service":
        """Start one that has read the store."""
        own = replace(world, feed=line, clock=clock)
        service = cls(name, line, clock, await own.caught_up())
        service._wire(own, rules, durable)
        return service

    def _wire(self, own: World, rules: RotationPolicy, durable: bool) -> None:
        replica, clock = self.member.replica, self.clock
        self.rules = rules
        self.publisher = Publisher(Lane.KEYS, own.roles[Lane.KEYS], self.line, replica, clock)
        self.watch = PresenceWatch(
            self.line, lambda: replica.trust, clock, live_seconds=rules.expired_seconds + rules.skew_seconds,
            durable=durable,
        )  # fmt: skip
        self.keyring = Keyring(KeySealer(_WRAPPER), self.line, replica)
        self.rotator = Rotator(
            publisher=self.publisher, follower=self.member.follower, watch=self.watch, keyring=self.keyring,
            policies={rules.use: rules}, clock=clock,
        )  # fmt: skip
        self.signer = Signer(self.keyring, replica, self.publisher, {rules.use: rules}, clock)

    @property
    def able(self) -> bool:
        """Say whether it does anything now."""
        return not self.frozen and not self.busy

    @property
    def reaches(self) -> bool:
        """Say whether the store can be reached from here."""
        return not self.line.severed and self.line._store.reachable

    async def second(self, *, beats: bool) -> None:
        """Do what it does each second: read, look at the reports, open keys, beat."""
        try:
            if not self.lagging:
                await self.member.follower._read_all()
                await self.watch.look()
                if beats:
                    await self.keyring.refresh()
            if beats:
                await self.publisher.beat()
        except FeedUnavailable:
            pass  # As in production: the next second tries again.

    def sign(self, claims: dict[str, Any]) -> str:
        """Sign for a service that may have everything signed; raises SignerUnavailable."""
        return self.signer.sign(Request("at+jwt", claims), identity=_ANYTHING)

    def jwks(self) -> tuple[bytes, float] | None:
        """Return what `/.well-known/jwks.json` answers and for how long it may be kept; None for a 503."""
        replica = self.member.replica
        if replica.silence(Lane.KEYS, self.clock.boottime()) >= replica.freshness.expired_after_seconds:
            return None
        jwks = render_jwks(replica.keys)
        return (jwks.body, jwks_max_age(self.rules)) if jwks.count else None


class Verifier:
    """A verifier with an identity, which reports."""

    def __init__(self, name: str, world: World, line: Line, clock: OwnClock) -> None:
        """Take the place of a process that has read nothing yet."""
        self.name, self.line, self.clock = name, line, clock
        self.member = replace(world, feed=line, clock=clock).member()
        self.reporter = Reporter(line, world.verifiers[name], self.member.replica, clock, verifier=name)
        self.frozen = self.lagging = False

    async def second(self) -> None:
        """Read what is new and report."""
        try:
            if not self.lagging:
                await self.member.follower._read_all()
        except FeedUnavailable:
            pass
        await self.report()

    async def report(self, *, goodbye: bool = False) -> None:
        """Tell what it holds."""
        await self.reporter._report(goodbye=goodbye)

    @property
    def state(self) -> State:
        """Return what its replica may be used for now."""
        return self.member.replica.state(self.clock.now(), self.clock.boottime())

    def judge(self, token: Token) -> Verdict:
        """Answer from memory alone."""
        return self.member.verifier.judge(token.compact, _POLICY)

    async def judge_by_rule_8(self, token: Token) -> Verdict:
        """Answer as the sidecar does: an unknown kid is looked for in the feed before it is refused."""
        verdict = self.judge(token)
        if verdict.reason != "unknown_kid":
            return verdict
        try:
            await self.member.follower.catch_up()
        except FeedUnavailable:
            return Verdict(Kind.UNKNOWN, "catch_up_failed", self.state)
        return self.judge(token)
