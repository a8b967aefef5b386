"""What a receipt says an event would survive: asked of real servers, and never more than they said."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from keyturn.contract.errors import ConfigurationError, Unconfirmed
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.assurance import REPLICA_MS
from keyturn.process.following import StoreConnections
from keyturn.process.redis import server_facts
from keyturn.process.settings import RedisSettings
from keyturn.process.soundness import require_sound
from serving.problems import Style, answer_error
from serving.receipts import Vouching
from serving.storewatch import LOOK_SECONDS, StoreWatch
from stack.ports import free_port
from stack.server import EmbeddedServer
from tests.building import Standing, standing
from tests.stores.living import CLOCK
from tests.stores.pairs import Pair
from tests.waiting import eventually

NO_WAIT = ["+@all", "-wait", "-waitaof"]


class Publishing:
    """A publisher of revocations on a store, with what its service looks at the store by."""

    def __init__(self, standing: Standing, watch: StoreWatch) -> None:
        """Hold the parts."""
        self.standing, self.watch, self.vouching = standing, watch, Vouching(standing.parts)
        self.publisher = standing.world.publisher(Lane.REVOCATIONS, standing.member)

    async def append(self) -> tuple[int, int]:
        """Append a revocation and return its place."""
        signed = await self.publisher.append([self.standing.world.entry(SelectorKind.JTI, "a")])
        return signed.position.place

    async def word(self) -> str:
        """Append, and return what the receipt says."""
        return await self.vouching.word(Lane.REVOCATIONS, await self.append())


@asynccontextmanager
async def publishing(url: str, **settings: Any) -> AsyncIterator[Publishing]:
    """Publish on an emptied store, looked at as at start."""
    async with AsyncExitStack() as stack:
        store = RedisSettings(url=url, **settings)
        ways = StoreConnections(stack, RedisSettings(url=url), "tests")
        redis = ways.client()
        await redis.flushall()
        one = await stack.enter_async_context(standing(redis, pubsub=ways.client(subscribing=True)))
        watch = StoreWatch(store, one.parts)
        await watch.begin()
        yield Publishing(one, watch)


async def test_a_receipt_says_replicated_only_where_a_replica_held_the_event(pair: Pair) -> None:
    """Not because one is connected: it was asked about this very event, and answered."""
    async with publishing(pair.primary.url()) as ours:
        await eventually(lambda: holds(ours, "replicated"))  # One that has just begun may take its time to answer.
        pair.replica.freeze()
        try:
            began = CLOCK.boottime()
            assert await ours.word() == "local"  # Accepted all the same.
            assert CLOCK.boottime() - began >= REPLICA_MS / 1000
            began = CLOCK.boottime()
            assert await ours.word() == "local"
            assert CLOCK.boottime() - began < REPLICA_MS / 1000  # Who is known to be away is not waited for.
        finally:
            pair.replica.thaw()
        await eventually(lambda: holds(ours, "replicated"))


async def confirmed(ours: Publishing) -> bool:
    """Say whether what is there is as durable as required."""
    try:
        await ours.vouching.require(Lane.REVOCATIONS)
    except Unconfirmed:
        return False
    return True


async def holds(ours: Publishing, word: str) -> bool:
    """Say whether the next event is that durable."""
    return await ours.word() == word


async def test_what_is_required_and_not_confirmed_is_an_error_of_an_event_that_stands(pair: Pair) -> None:
    """The caller must not take a 503 for nothing: it says what was done, and asking again has it confirmed."""
    async with pair.redis() as admin:
        await admin.config_set("min-replicas-to-write", 1)
    async with publishing(pair.primary.url(), require="replicated") as ours:
        await eventually(lambda: confirmed(ours))
        before = ours.standing.parts.replica.place(Lane.REVOCATIONS)
        pair.replica.freeze()
        try:
            with pytest.raises(Unconfirmed, match=f"stands at 1:{before[1] + 1} of lane revocations") as raised:
                await ours.append()
            assert (raised.value.found, raised.value.wanted) == ("local", "replicated")
            answer = answer_error(raised.value, Style.PROBLEM)
            assert (answer.status, b"stands at 1:" in (answer.body or b"")) == (503, True)  # type: ignore[operator]
            place = (before[0], before[1] + 1)
            replica = ours.standing.parts.replica
            await eventually(lambda: replica.place(Lane.REVOCATIONS) == place)  # It was pushed to everybody.
            with pytest.raises(Unconfirmed):
                await ours.vouching.require(Lane.REVOCATIONS)
        finally:
            pair.replica.thaw()
        await eventually(lambda: confirmed(ours))
        assert await ours.vouching.word(Lane.REVOCATIONS, place) == "replicated"
        assert await ours.word() == "replicated"


async def test_requiring_a_replica_of_a_server_that_writes_without_one_is_refused(pair: Pair) -> None:
    """WAIT alone finds out too late: the event would stand, and be lost with its server."""
    with pytest.raises(ConfigurationError, match=r"redis\.require: make min-replicas-to-write 1"):
        async with publishing(pair.primary.url(), require="replicated"):
            pass


async def test_a_server_that_writes_once_a_second_is_memory_unless_the_disk_is_waited_for(
    own_valkey: EmbeddedServer,
) -> None:
    """`everysec` is what most servers run with."""
    async with publishing(own_valkey.url()) as ours:
        assert await ours.word() == "local"
        await ours.standing.redis.config_set("appendfsync", "everysec")
    async with publishing(own_valkey.url()) as ours:
        assert await ours.word() == "memory"
    async with publishing(own_valkey.url(), require="local") as ours:
        assert await ours.word() == "local"
        await ours.standing.redis.config_set("appendonly", "no")
        with pytest.raises(ConfigurationError, match="appendonly"):
            await ours.watch.look()
        with pytest.raises(Unconfirmed):
            await ours.append()


async def test_users_from_before_we_asked_are_told_so_where_it_matters(pair: Pair) -> None:
    """An old users.acl has no +wait: receipts say less then, and whoever requires more is refused at start."""
    async with pair.redis() as admin:
        await admin.acl_setuser("old", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=NO_WAIT)
        await admin.config_set("min-replicas-to-write", 1)
    url = pair.primary.url("old")
    async with publishing(url) as ours:
        assert await ours.word() == "local"
    with pytest.raises(ConfigurationError, match=r"\+wait"):
        async with publishing(url, require="replicated"):
            pass


async def test_a_server_that_becomes_unsound_is_alarmed_and_named(own_valkey: EmbeddedServer) -> None:
    """After a failover another server stands there, with settings of its own."""
    async with publishing(own_valkey.url()) as ours:
        watching = asyncio.ensure_future(ours.watch.run())
        try:
            assert ours.watch.unready() is None
            await ours.standing.redis.config_set("maxmemory-policy", "allkeys-lru")
            await eventually(lambda: "noeviction" in (ours.watch.unready() or ""), within_seconds=LOOK_SECONDS + 3)
        finally:
            watching.cancel()


async def test_a_cluster_is_refused_for_the_feed(tmp_path: Path) -> None:
    """Lane, stream and sealed keys lie on different nodes there, and no script may touch them together."""
    settings = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    async with EmbeddedServer(tmp_path / "node", settings=settings) as node, AsyncExitStack() as stack:
        redis = StoreConnections(stack, RedisSettings(url=node.url()), "tests").client()
        with pytest.raises(ConfigurationError, match=r"Cluster.*redis\.url: name a server outside it"):
            require_sound(await server_facts(redis), durable=False)
