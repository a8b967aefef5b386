"""What every service stands on: the store, the feed, and a replica of its own with the follower that keeps it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TypeAlias

from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract.errors import FeedUnavailable, MalformedInput, ReplicaExpired
from keyturn.contract.positions import Lane, parse_position
from keyturn.feed.assurance import Assurance
from keyturn.feed.redis import RedisFeed
from keyturn.process.belonging import Pinned, until_ours
from keyturn.process.following import StoreConnections, noting, unready
from keyturn.process.freshness import FreshnessSettings
from keyturn.process.logging import logger
from keyturn.process.metrics import Metrics
from keyturn.process.pinned import read_root
from keyturn.process.settings import IssuerSettings, RedisSettings, Settings, TrustSettings
from keyturn.process.statekeeping import keep_state
from keyturn.verifier.follower import Follower
from keyturn.verifier.freshness import State
from keyturn.verifier.keeping import Keeper
from keyturn.verifier.replica import Replica

LOOK_FOR_TRUST_SECONDS = 2.0
Places: TypeAlias = tuple[tuple[Lane, tuple[int, int]], ...]
_MOST_CATCH_UPS = 3


@dataclass(frozen=True, eq=False)
class Parts:
    """One service's own view of the feed, and its connection to the store as its own user."""

    clock: Clock
    redis: Redis
    feed: RedisFeed
    replica: Replica
    follower: Follower
    log: FilteringBoundLogger
    metrics: Metrics
    skew_seconds: float
    pinned: Pinned
    keeper: Keeper | None = None
    assurance: Assurance = field(default_factory=Assurance)
    _waiting: dict[asyncio.Future[None], Mapping[Lane, tuple[int, int]]] = field(default_factory=dict, repr=False)
    _flights: dict[Places, asyncio.Future[None]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Hear each step of the replica, for those who wait for a position."""
        self.follower.on_change.append(self._wake)

    async def follow(self) -> None:
        """Follow the feed, and keep what is believed of it, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.follower.run())
            if self.keeper is not None:
                group.create_task(self.keeper.run())

    async def keep(self, lane: Lane) -> None:
        """Return once all that the replica holds of a lane is on the disk, where there is a state directory."""
        if self.keeper is not None:
            await self.keeper.keep(lane)

    async def check_trust(self) -> None:
        """Follow the store's trust document until cancelled; raises ConfigurationError if it is not for this process.

        Verifiers look where a head names a newer one. A publisher is who signs the heads: it has to look by itself.
        """
        await until_ours(self.feed, self.pinned, self.clock)
        while True:
            await self.clock.sleep(entropy.jitter(LOOK_FOR_TRUST_SECONDS / 2, LOOK_FOR_TRUST_SECONDS))
            with suppress(FeedUnavailable):  # The follower notes the loss.
                await self.follower.look_for_trust()

    @property
    def issuer(self) -> str:
        """Return the issuer, byte for byte as tokens carry it."""
        return self.replica.issuer

    def now(self) -> float:
        """Return the time by which an order is dated (Unix seconds), not set back behind the publishers' word."""
        return self.replica.no_earlier(self.clock.now())

    def state(self) -> State:
        """Return what the replica may be used for now."""
        return self.replica.state(self.clock.now(), self.clock.boottime())

    def require_replica(self) -> None:
        """Raise ReplicaExpired where nothing can be said any more, or not yet."""
        if self.state() is State.EXPIRED:
            age = self.replica.age(self.clock.now(), self.clock.boottime())
            raise ReplicaExpired(silence_seconds=age)

    def unready(self) -> str | None:
        """Return why the replica cannot be relied on, None if it can."""
        return unready(self.replica, self.clock)

    async def reach(self, positions: Mapping[Lane, bytes | None]) -> None:
        """Wait until the replica holds those places, as the store just told them.

        What was revoked before the store was read is then known here. Raises FeedUnavailable if that cannot be; a
        store that names no position, or none that can be read, cannot say either.
        """
        wanted = {lane: _place(lane, position) for lane, position in positions.items()}
        if self._holds(wanted):
            return
        # Whoever asks for the same places waits together: a push under load finds many at once.
        key = tuple(sorted(wanted.items()))
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.ensure_future(self._wait_for(wanted))
            flight.add_done_callback(partial(self._landed, key))
        await asyncio.shield(flight)

    def _landed(self, key: Places, flight: asyncio.Future[None]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # Looked at, even if all who waited went away.

    def _holds(self, places: Mapping[Lane, tuple[int, int]]) -> bool:
        return all(self.replica.place(lane) >= place for lane, place in places.items())

    async def _wait_for(self, places: Mapping[Lane, tuple[int, int]]) -> None:
        """Wait for the doorbell, which mostly rings within a millisecond, and read the stream at the same time."""
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[arrived] = places
        catching_up = asyncio.ensure_future(self._catch_up(places))
        try:
            await asyncio.wait({arrived, catching_up}, return_when=asyncio.FIRST_COMPLETED)
            if not arrived.done():
                catching_up.result()
        finally:
            del self._waiting[arrived]
            catching_up.cancel()
            await asyncio.gather(catching_up, return_exceptions=True)
        if not self._holds(places):
            raise FeedUnavailable("the replica is behind the store and could not catch up")

    async def _catch_up(self, places: Mapping[Lane, tuple[int, int]]) -> None:
        # A flight that was under way when we asked may have read the stream before our place was there.
        for _ in range(_MOST_CATCH_UPS):
            if self._holds(places):
                return
            await self.follower.catch_up()

    def _wake(self) -> None:
        for waiter, places in self._waiting.items():
            if not waiter.done() and self._holds(places):
                waiter.set_result(None)


@lru_cache(maxsize=16)  # The same few bytes are told to everybody who asks.
def _place(lane: Lane, position: bytes | None) -> tuple[int, int]:
    if position is None:
        raise FeedUnavailable(f"the store names no position of lane {lane}")
    try:
        return parse_position(position.decode("ascii", "replace").partition("\n")[0]).place
    except MalformedInput as error:
        raise FeedUnavailable(f"the store names a position of lane {lane} that is none") from error


@asynccontextmanager
async def open_parts(
    settings: Settings,
    *,
    user: str,
    clock: Clock,
    log: FilteringBoundLogger | None = None,
    metrics: Metrics | None = None,
) -> AsyncIterator[Parts]:
    """Open what a service stands on, as the store's user of that name; nothing is sent to the store yet.

    Raises ConfigurationError. The follower is not running: `serve` runs it.
    """
    issuer, store = settings.section(IssuerSettings), settings.section(RedisSettings)
    trust, fresh = settings.section(TrustSettings), settings.section(FreshnessSettings)
    log = log or logger(user)
    async with AsyncExitStack() as stack:
        connections = StoreConnections(stack, store, user, clock=clock)
        redis, assurance = connections.client(), Assurance()
        feed = connections.feed(redis, assurance=assurance)
        replica = Replica(issuer=issuer.url, freshness=fresh.freshness())
        pinned = Pinned(issuer=issuer.url, root=read_root(trust.root), allow_dev=trust.allow_dev)
        follower = Follower(feed, replica, clock, root=pinned.root, allow_dev=pinned.allow_dev, note=noting(log))
        keeper = keep_state(stack, settings, user, follower, feed, pinned=pinned, clock=clock, note=noting(log))
        yield Parts(
            clock=clock, redis=redis, feed=feed, replica=replica, follower=follower, log=log,
            metrics=Metrics(process=user) if metrics is None else metrics, skew_seconds=fresh.skew,
            pinned=pinned, keeper=keeper, assurance=assurance,
        )  # fmt: skip
