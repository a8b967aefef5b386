"""What every process that follows the feed does alike: connect as its user, log what is noted, say if it is ready."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

from redis.asyncio import Redis
from structlog.typing import FilteringBoundLogger

from keyturn.clock import Clock
from keyturn.contract.positions import Lane
from keyturn.process.redis import connect
from keyturn.process.settings import RedisSettings
from keyturn.verifier.freshness import State
from keyturn.verifier.replica import Replica

REPLICA_STATE: Final = "replica_state"
LOOK_SECONDS = 0.5


def connect_as(stack: AsyncExitStack, store: RedisSettings, user: str, *, subscribing: bool = False) -> Redis:
    """Return a client that logs in as that user and is closed with the stack; nothing is sent yet.

    Raises ConfigurationError if the user's password cannot be read.
    """
    username, password = store.login(user)
    redis = connect(
        store.url, client_name=f"keyturn-{user}", username=username, password=password, ca_file=store.ca_file,
        subscribing=subscribing,
    )  # fmt: skip
    stack.push_async_callback(redis.aclose)
    stack.push_async_callback(redis.connection_pool.disconnect)
    return redis


def noting(log: FilteringBoundLogger) -> Callable[..., None]:
    """Log what a follower notes: adopting trust is news, everything else is trouble."""

    def note(event: str, **facts: object) -> None:
        level = log.info if event == "trust_adopted" else log.warning
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
    if replica.state(clock.now(), clock.boottime()) is State.EXPIRED:
        return "the feed has been silent for too long, or says what this version cannot read"
    return None
