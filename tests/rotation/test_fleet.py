"""Twenty verifiers on a real Valkey, one of them stuck: who is waited for, for how long, and who is not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from keyservice.keyring import Keyring
from keyservice.rotator import Order, Rotator
from keyservice.sealing import KeySealer
from keyservice.wrapping import FileWrapper
from keyturn.clock import SystemClock
from keyturn.contract.inequalities import violations
from keyturn.contract.keys import KeyRecord, Phase, Use
from keyturn.contract.positions import Lane
from keyturn.contract.rotation import AtDeadline, Barrier, RotationPolicy
from keyturn.feed.presence import PresenceWatch
from keyturn.feed.redis import RedisFeed
from keyturn.process.redis import connect
from keyturn.verifier.freshness import Freshness
from keyturn.verifier.reporter import Reporter
from tests.keyservice.building import kek_file
from tests.waiting import eventually
from tests.world import Member, World, new_statement_key

COUNT = 20
STUCK = "api-07"
RULES = RotationPolicy(
    barrier=Barrier.REPORTS, cache_seconds=0, skew_seconds=0.5, expired_seconds=2, distribution_seconds=2.5,
    deadline_seconds=1, lease_seconds=2, token_seconds=30, active_seconds=600, standbys=1,
)  # fmt: skip
AT_DEADLINE_SECONDS = RULES.publication_seconds + RULES.deadline_seconds
CLOCK = SystemClock()


@dataclass(eq=False)
class Verifier:
    """A follower and its reporter, each a task."""

    member: Member
    reporter: Reporter
    following: "asyncio.Task[None]" = field(init=False)
    reporting: "asyncio.Task[None]" = field(init=False)

    async def start(self) -> None:
        """Follow and report."""
        self.go_on()
        self.reporting = asyncio.create_task(self.reporter.run())
        self.member.follower.on_change.append(self.reporter.notice)
        await self.member.follower.ready()

    def go_on(self) -> None:
        """Follow, for the first time or again."""
        self.following = asyncio.create_task(self.member.follower.run())

    async def stick(self) -> None:
        """Hear nothing more; reports go on, and say what it still holds."""
        await _over(self.following)

    async def leave(self) -> None:
        """End in order, with a goodbye."""
        await _over(self.following, self.reporting)

    async def die(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """End without a word."""
        monkeypatch.setattr(self.reporter, "_report", _nothing)
        await self.leave()


async def _nothing(*, goodbye: bool) -> None:
    """Report nothing."""


async def _over(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Fleet:
    """One key service's rotator, and the verifiers by name."""

    rotator: Rotator
    watch: PresenceWatch
    member: Member
    verifiers: dict[str, Verifier]

    def key(self, phase: Phase) -> KeyRecord:
        """Return the first key of a phase."""
        return self.member.replica.keys.of("ES256", Use.ACCESS, phase)[0]

    def live(self) -> int:
        """Count who is waited for."""
        return len(self.watch.adoption().live)

    def laggards(self) -> list[str]:
        """Return who has not adopted the lane as it stands."""
        return list(self.watch.adopters(Lane.KEYS, self.member.replica.place(Lane.KEYS)).laggards)

    async def order(self) -> bool:
        """Ask for a rotation; say whether the next key signs at once."""
        return (await self.rotator.rotate("ES256", Order(report=True))).active

    async def new_standby_that_one_lacks(self) -> None:
        """Let one verifier stick, then rotate to the key that all hold: the one after it is news to everybody."""
        await self.verifiers[STUCK].stick()
        assert await self.order()
        await eventually(lambda: self.laggards() == [STUCK], saying=self.laggards)

    async def signs(self, kid: str, *, within_seconds: float) -> float:
        """Tick until a key signs; return how long that took."""
        began = CLOCK.boottime()

        async def ticked() -> bool:
            await self.rotator.tick()
            return self.key(Phase.ACTIVE).kid == kid

        await eventually(ticked, within_seconds=within_seconds, saying=self.laggards)
        return CLOCK.boottime() - began


@asynccontextmanager
async def running(url: str, rules: RotationPolicy = RULES) -> AsyncIterator[Fleet]:
    """Run a fleet on an empty store."""
    assert not violations(rules)
    redis, pubsub = connect(url, client_name="tests"), connect(url, client_name="tests", subscribing=True)
    feed = RedisFeed(redis, pubsub=pubsub)
    names = [f"api-{number:02d}" for number in range(1, COUNT + 1)]
    fresh = Freshness(
        stale_after_seconds=1.5, expired_after_seconds=rules.expired_seconds, skew_seconds=rules.skew_seconds
    )
    world = World(feed=feed, clock=CLOCK, freshness=fresh, verifiers={name: new_statement_key() for name in names})
    await world.begin()
    async with world.following() as member:
        publishers = [world.publisher(lane, member) for lane in Lane]
        beating = [asyncio.create_task(one.run(member.follower.catch_up)) for one in publishers]
        watch = PresenceWatch(
            feed, lambda: member.replica.trust, CLOCK, durable=True,
            live_seconds=rules.expired_seconds + rules.skew_seconds,
        )  # fmt: skip
        beating.append(asyncio.create_task(watch.run()))
        keyring = Keyring(KeySealer(FileWrapper(kek_file())), feed, member.replica)
        rotator = Rotator(
            publisher=world.publisher(Lane.KEYS, member), follower=member.follower, watch=watch, keyring=keyring,
            policies={rules.use: rules}, clock=CLOCK,
        )  # fmt: skip
        verifiers = {}
        for name in names:
            process = world.member()
            reporter = Reporter(feed, world.verifiers[name], process.replica, CLOCK, verifier=name)
            verifiers[name] = Verifier(process, reporter)
            await verifiers[name].start()
        fleet = Fleet(rotator, watch, member, verifiers)
        await rotator.tick()
        await eventually(lambda: fleet.live() == COUNT and not fleet.laggards(), saying=fleet.laggards)
        yield fleet
        await asyncio.gather(*(one.leave() for one in verifiers.values()))
        await _over(*beating)
    await redis.aclose()
    await pubsub.aclose()


async def test_a_routine_rotation_holds_for_one_that_is_stuck_names_it_and_proceeds_at_the_deadline(
    valkey_url: str,
) -> None:
    """Nineteen have the key and one has not: it is waited for, by name, until the policy says go."""
    async with running(valkey_url) as fleet:
        await fleet.new_standby_that_one_lacks()
        standby = fleet.key(Phase.PUBLISHED)
        assert not await fleet.order()
        adopters = await fleet.watch.adopted(Lane.KEYS, standby.published_place, within_seconds=0.5)
        assert (adopters.laggards, len(adopters.adopted)) == ((STUCK,), COUNT - 1)
        await fleet.rotator.tick()
        assert fleet.key(Phase.ACTIVE).kid != standby.kid, "not held"
        await fleet.signs(standby.kid, within_seconds=AT_DEADLINE_SECONDS + 2)
        assert CLOCK.now() - standby.published_at >= AT_DEADLINE_SECONDS
        assert CLOCK.now() - standby.published_at < AT_DEADLINE_SECONDS + 1
        stuck = fleet.verifiers[STUCK].member.replica
        assert stuck.state(CLOCK.now(), CLOCK.boottime()) == "expired", "it could serve, without the key that signs"


async def test_with_hold_it_holds_past_the_deadline_until_the_last_verifier_has_the_key(valkey_url: str) -> None:
    """Whoever chose `hold` would rather wait than leave one behind."""
    rules = msgspec.structs.replace(RULES, at_deadline=AtDeadline.HOLD)
    async with running(valkey_url, rules) as fleet:
        await fleet.new_standby_that_one_lacks()
        standby = fleet.key(Phase.PUBLISHED)
        assert not await fleet.order()
        await eventually(
            lambda: CLOCK.now() > standby.published_at + AT_DEADLINE_SECONDS + 1, within_seconds=AT_DEADLINE_SECONDS + 2
        )
        await fleet.rotator.tick()
        assert fleet.key(Phase.ACTIVE).kid != standby.kid, "not held"
        fleet.verifiers[STUCK].go_on()
        assert await fleet.signs(standby.kid, within_seconds=3) < 3


async def test_an_emergency_does_not_wait(valkey_url: str) -> None:
    """Who is stuck is named; the thief's key is gone for everybody else at once."""
    async with running(valkey_url) as fleet:
        await fleet.new_standby_that_one_lacks()
        stolen, standby = fleet.key(Phase.ACTIVE).kid, fleet.key(Phase.PUBLISHED).kid
        began = CLOCK.boottime()
        outcome = await fleet.rotator.revoke(stolen, Order(report=True))
        assert (outcome.active, outcome.kid, fleet.key(Phase.ACTIVE).kid) == (True, standby, standby)
        assert CLOCK.boottime() - began < 1
        place = fleet.member.replica.place(Lane.KEYS)
        adopters = await fleet.watch.adopted(Lane.KEYS, place, within_seconds=1)
        assert (adopters.laggards, len(adopters.adopted)) == ((STUCK,), COUNT - 1)


async def test_a_dead_verifier_counts_until_it_could_serve_no_more_and_one_that_said_goodbye_no_longer(
    valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dead or cut off, nobody can tell; a goodbye says so."""
    async with running(valkey_url) as fleet:
        await fleet.verifiers["api-01"].leave()
        await eventually(lambda: fleet.live() == COUNT - 1, within_seconds=0.5)
        await fleet.verifiers["api-02"].die(monkeypatch)
        dead = CLOCK.boottime()
        assert await fleet.order()  # All of them, the dead one too, had the first standby.
        standby = fleet.key(Phase.PUBLISHED).kid
        assert not await fleet.order()
        await fleet.signs(standby, within_seconds=RULES.expired_seconds + RULES.skew_seconds + 1)
        assert CLOCK.boottime() - dead > RULES.expired_seconds - 0.5, "it may have served until then"
        assert fleet.live() == COUNT - 2
