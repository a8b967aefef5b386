"""What every process that follows the feed does alike: connect as its user, log what is noted, say if it is ready."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from keyturn.clock import Clock, SystemClock
from keyturn.contract.events import FORMATS
from keyturn.contract.positions import Lane
from keyturn.feed.assurance import Assurance
from keyturn.feed.redis import RedisFeed
from keyturn.process.addresses import check_sentinels, name_in
from keyturn.process.redis import connect
from keyturn.process.sentinels import ASK_SECONDS, Guide
from keyturn.process.settings import RedisSettings
from keyturn.process.values import Listen
from keyturn.verifier.freshness import State
from keyturn.verifier.issuers import ISSUER_KEYS_CHANGED
from keyturn.verifier.keeping import STATE_RESTORED
from keyturn.verifier.replica import Replica

REPLICA_STATE: Final = "replica_state"
LOOK_SECONDS = 0.5
_NEWS = frozenset({"trust_adopted", STATE_RESTORED, ISSUER_KEYS_CHANGED})


class StoreConnections:
    """One process's ways to its store, as one user of it; all are closed with the stack.

    Those that lead to a primary, or to a replica, by the word of sentinels share the answer.
    """

    def __init__(self, stack: AsyncExitStack, store: RedisSettings, user: str, *, clock: Clock | None = None) -> None:
        """Read the user's password; nothing is sent yet. Raises ConfigurationError if it cannot be read."""
        self._stack, self._store, self._user = stack, store, user
        self._username, self._password = store.login(user)
        self._clock = clock or SystemClock()
        self._guides: dict[str, Guide] = {}

    def client(self, *, subscribing: bool = False, at_replica: bool = False) -> Redis:
        """Return a client of the primary, or of a replica where settings name one; nothing is sent yet.

        Raises ConfigurationError.
        """
        store, at_replica = self._store, at_replica and self._store.replica_url is not None
        url = store.replica_url if at_replica and store.replica_url is not None else store.url
        redis = connect(
            url, client_name=f"keyturn-{self._user}", username=self._username, password=self._password,
            ca_file=store.ca_file, guide=self._guide(url, replicas=at_replica), subscribing=subscribing,
        )  # fmt: skip
        self._stack.push_async_callback(redis.aclose)
        self._stack.push_async_callback(redis.connection_pool.disconnect)
        return redis

    def feed(self, redis: Redis, *, at_replica: bool = False, assurance: Assurance | None = None) -> RedisFeed:
        """Return the feed that `redis` writes; read and heard at a replica if asked and settings name one."""
        reading = self.client(at_replica=True) if at_replica and self._store.replica_url is not None else redis
        return RedisFeed(
            redis, pubsub=self.client(subscribing=True, at_replica=at_replica), reading=reading, assurance=assurance
        )

    def _guide(self, url: str, *, replicas: bool) -> Guide | None:
        if not self._store.sentinels:
            return None
        key = f"{name_in(url)} {replicas}"
        if key not in self._guides:
            sentinels = [self._sentinel(address) for address in check_sentinels(self._store.sentinels)]
            self._guides[key] = Guide(sentinels, name_in(url), self._clock, replicas=replicas)
            self._stack.push_async_callback(self._guides[key].close)
        return self._guides[key]

    def _sentinel(self, address: Listen) -> Redis:
        store, scheme = self._store, self._store.url.partition(":")[0]
        return connect(
            f"{scheme}://{address}", client_name=f"keyturn-{self._user}", username=store.sentinel_user,
            password=store.sentinel_password, ca_file=store.ca_file, most_connections=1, answer_seconds=ASK_SECONDS,
        )  # fmt: skip


def connect_as(stack: AsyncExitStack, store: RedisSettings, user: str, *, subscribing: bool = False) -> Redis:
    """Return a client of the primary that logs in as that user and is closed with the stack; nothing is sent yet.

    Raises ConfigurationError if the user's password cannot be read.
    """
    return StoreConnections(stack, store, user).client(subscribing=subscribing)


def noting(log: FilteringBoundLogger) -> Callable[..., None]:
    """Log what a follower notes: adopting trust and beginning with what was kept is news, all else is trouble."""

    def note(event: str, **facts: object) -> None:
        level = log.info if event in _NEWS else log.warning
        level(event, **facts)

    return note


async def watch_state(replica: Replica, clock: Clock, log: FilteringBoundLogger) -> None:
    """Log each change of a replica's state, until cancelled: stale and expired are an operator's alarms."""
    told: State | None = None
    while True:
        now, boottime = clock.now(), clock.boottime()
        state = replica.state(now, boottime)
        trusted = replica.trust.version > 0  # Before that it is not expired but young.
        if state is not told and trusted:
            facts = {"state": state.value, "age_seconds": round(min(replica.age(now, boottime), 1e9), 1)}
            if state is State.FRESH:
                log.info(REPLICA_STATE, **facts)
            else:
                log.warning(REPLICA_STATE, **facts)
            told = state
        await clock.sleep(LOOK_SECONDS)


def unready(replica: Replica, clock: Clock) -> str | None:
    """Return why a replica cannot be relied on now, None if it can."""
    if replica.trust.version == 0:
        return "no trust document has been read"
    missing = [lane.value for lane in Lane if replica.position(lane) is None]
    if missing:
        return f"no snapshot of lane {' or '.join(missing)} has been read"
    if clock.now() >= replica.trust.document.expires_at:
        return "the trust document has expired"
    if (reason := _unreadable(replica)) is not None:
        return reason
    if replica.state(clock.now(), clock.boottime()) is not State.EXPIRED:
        return None
    held_back = replica.is_held_back(clock.boottime())
    return "the feed is being read for the first time" if held_back else "the feed has been silent for too long"


def _unreadable(replica: Replica) -> str | None:
    """Return what stands in the feed, or will, that this version does not know; None if it knows all."""
    for lane, reason in replica.unreadable.items():
        return f"lane {lane} says what this version cannot read: {reason}"
    if (written := replica.trust.document.feed_format) not in FORMATS:
        return f"the root has publishers write feed format {written}, which this version does not know: upgrade it"
    return None
