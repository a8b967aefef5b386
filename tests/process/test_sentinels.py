"""Whom connections follow: the latest failover, a replica that is well, and no server of the past."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from keyturn.process.connections import Address
from keyturn.process.following import StoreConnections
from keyturn.process.redis import connect
from keyturn.process.sentinels import LOOK_AGAIN_SECONDS, Told, believed, chosen_replica, read_answer
from keyturn.process.settings import RedisSettings
from stack.server import EmbeddedServer
from tests.clocks import ManualClock
from tests.process.impostor import impostor
from tests.waiting import eventually

PRIMARY, NEW = ("10.0.0.1", 6379), ("10.0.0.2", 6379)
ADDRESSES = st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]), st.just(6379))


def test_the_latest_failover_is_believed() -> None:
    """A sentinel that was cut off names the primary of the past, and answers as quickly as any other."""
    assert believed([Told(PRIMARY, 3), Told(NEW, 4), Told(PRIMARY, 3)]) == Told(NEW, 4)
    assert believed([]) is None


def row(address: Address, flags: str = "slave", link: str = "ok") -> dict[str, str]:
    """Return what a sentinel says of a replica."""
    return {"ip": address[0], "port": str(address[1]), "flags": flags, "master-link-status": link}


@pytest.mark.parametrize(
    ("flags", "link"),
    [("slave,s_down", "ok"), ("slave,o_down", "ok"), ("slave,disconnected", "ok"), ("slave", "err")],
)
def test_a_replica_that_is_down_or_cut_off_is_not_read_from(flags: str, link: str) -> None:
    """Its followers would become stale beside another that is well."""
    told = read_answer(PRIMARY, {"config-epoch": "7"}, [row(NEW, flags, link), row(("10.0.0.3", 6379))])
    assert told == Told(PRIMARY, 7, (("10.0.0.3", 6379),))


def test_a_primary_that_is_listed_among_replicas_is_none() -> None:
    """In the midst of a failover the promoted one still is."""
    assert read_answer(NEW, {"config-epoch": "7"}, [row(NEW)]).replicas == ()


@pytest.mark.parametrize("facts", [{}, {"config-epoch": "many"}])
def test_an_answer_that_is_none_is_refused(facts: dict[str, str]) -> None:
    """It counts as a sentinel that does not answer."""
    with pytest.raises((KeyError, ValueError)):
        read_answer(PRIMARY, facts, [])


@given(
    replicas=st.lists(ADDRESSES, unique=True, max_size=3), held=st.none() | ADDRESSES, avoided=st.none() | ADDRESSES,
    share=st.floats(0, 1),
)  # fmt: skip
def test_a_replica_is_kept_while_it_is_well_and_the_primary_is_the_last_resort(
    replicas: list[Address], held: Address | None, avoided: Address | None, share: float
) -> None:
    """Followers stay put, spread over what is there, and leave what has just failed them."""
    chosen = chosen_replica(Told(PRIMARY, 1, tuple(replicas)), held, avoided, share)
    good = set(replicas) - {avoided}
    if held in good:
        assert chosen == held
    elif good:
        assert chosen in good
    else:
        assert chosen == PRIMARY


def test_followers_spread_over_all_replicas() -> None:
    """Push costs a server about 10 microseconds a follower: one replica must not carry all."""
    replicas = tuple((f"10.0.0.{n}", 6379) for n in range(4))
    found = [chosen_replica(Told(PRIMARY, 1, replicas), None, None, share / 100) for share in range(101)]
    assert {found.count(one) for one in replicas} <= {25, 26}


@dataclass
class Sentinel:
    """What a sentinel of the test's says."""

    address: Address
    epoch: int = 1
    asked: int = 0
    url: str = ""
    words: list[list[bytes]] = field(default_factory=list)

    async def answer(self, command: list[bytes], writer: asyncio.StreamWriter) -> None:
        """Answer SENTINEL GET-MASTER-ADDR-BY-NAME, MASTER and REPLICAS."""
        self.asked += 1
        self.words.append(command)
        host, port = self.address[0].encode(), str(self.address[1]).encode()
        lists = {
            b"GET-MASTER-ADDR-BY-NAME": [host, port],
            b"MASTER": [b"ip", host, b"port", port, b"config-epoch", str(self.epoch).encode()],
            b"REPLICAS": [],
        }
        told = lists[command[1]]
        writer.write(b"*%d\r\n" % len(told) + b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in told))


@asynccontextmanager
async def sentinel_of(server: EmbeddedServer) -> AsyncIterator[tuple[Sentinel, RedisSettings]]:
    """Run a sentinel that names a server, and say how to reach it."""
    sentinel = Sentinel(("127.0.0.1", server.port))
    async with impostor(sentinel.answer) as url:
        address = url.removeprefix("redis://").removesuffix("/0")
        yield sentinel, RedisSettings(url="redis://feed/0", sentinels=(address,))


async def test_a_subscriber_is_taken_away_from_a_server_of_the_past(
    shared_valkey: EmbeddedServer, own_valkey: EmbeddedServer
) -> None:
    """Cut off from its sentinels an old primary goes on ringing, and no connection breaks by itself."""
    clock = ManualClock()
    async with sentinel_of(own_valkey) as (sentinel, settings), AsyncExitStack() as stack:
        ways = StoreConnections(stack, settings, "tests", clock=clock)
        redis, pubsub = ways.client(), ways.client(subscribing=True).pubsub()
        await pubsub.subscribe("bell")
        assert (await pubsub.get_message(timeout=2) or {})["type"] == "subscribe"
        sentinel.address, sentinel.epoch = ("127.0.0.1", shared_valkey.port), 2
        clock.advance(LOOK_AGAIN_SECONDS)
        await redis.ping()  # Any command makes somebody ask.
        with pytest.raises(RedisConnectionError):
            await pubsub.get_message(timeout=5)
        await pubsub.aclose()  # type: ignore[no-untyped-call]
        assert (await redis.info("server"))["tcp_port"] == shared_valkey.port


async def test_sentinels_are_asked_seldom(own_valkey: EmbeddedServer) -> None:
    """A thousand followers that command all day must not become the sentinels' load."""
    clock = ManualClock()
    async with sentinel_of(own_valkey) as (sentinel, settings), AsyncExitStack() as stack:
        redis = StoreConnections(stack, settings, "tests", clock=clock).client()
        await asyncio.gather(*(redis.ping() for _ in range(20)))
        for _ in range(10):
            await redis.ping()
        assert sentinel.asked == 3  # One question, in three words.
        clock.advance(LOOK_AGAIN_SECONDS)
        await redis.ping()
        await eventually(lambda: sentinel.asked == 6)


async def test_a_demoted_server_is_asked_for_no_second_write(own_valkey: EmbeddedServer) -> None:
    """READONLY is not an answer to wait out: the connection goes, and the next one asks the sentinels."""
    async with sentinel_of(own_valkey) as (sentinel, settings), AsyncExitStack() as stack:
        redis = StoreConnections(stack, settings, "tests").client()
        await redis.set("key", "value")
        other = connect(own_valkey.url(), client_name="admin")
        await other.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
        asked = sentinel.asked
        for _ in range(2):
            with pytest.raises(Exception, match="read only replica"):
                await redis.set("key", "value")
        assert sentinel.asked > asked
        await other.aclose()
