"""What was sent is never sent again, a silent server is noticed, and its failures have one name."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from keyturn.clock import SystemClock
from keyturn.contract.errors import FeedUnavailable, KeyturnError, StoreUnavailable
from keyturn.process.redis import ServerFacts, connect, is_server_failure, server_facts, store_errors
from keyturn.process.values import Secret
from stack.ports import free_port
from stack.server import EmbeddedServer
from tests.process.impostor import impostor
from tests.waiting import eventually


@asynccontextmanager
async def client(url: str, **options: float) -> AsyncIterator[Redis]:
    """Connect, and close again."""
    redis = connect(url, client_name="test", **options)  # type: ignore[arg-type]
    try:
        yield redis
    finally:
        await redis.aclose()


async def test_it_answers_in_bytes_and_is_known_by_name(valkey: Redis) -> None:
    """Keys and values are bytes; `CLIENT LIST` tells an operator which process is which."""
    await valkey.set("key", "value")
    assert await valkey.get("key") == b"value"
    assert [entry["name"] for entry in await valkey.client_list()] == ["tests"]


@pytest.mark.parametrize("subscribing", [True, False])
async def test_a_login_that_nobody_answers_ends(monkeypatch: pytest.MonkeyPatch, subscribing: bool) -> None:
    """A way that was cut in one direction swallowed the answer: who subscribes waited for it for ever, and was deaf."""
    monkeypatch.setattr("keyturn.process.connections.LOGIN_SECONDS", 0.05)

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(hold, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}/0"
    redis = connect(url, client_name="test", subscribing=subscribing)
    try:
        async with asyncio.timeout(1.5):  # Below the 2 s by which a client that does not subscribe ends it anyway.
            with pytest.raises(FeedUnavailable), store_errors(FeedUnavailable):
                await redis.pubsub().subscribe("bell")
    finally:
        await redis.aclose()
        await redis.connection_pool.disconnect()
        silent.close()


async def test_a_command_that_was_sent_is_not_sent_again() -> None:
    """The connection ends before the answer: whether it took effect is unknown, and a retry could do it twice."""
    received = []

    async def hang_up(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        received.append(command)
        writer.close()

    async with impostor(hang_up) as url, client(url) as redis:
        with pytest.raises(FeedUnavailable), store_errors(FeedUnavailable):
            await redis.incr("counter")
    assert received == [[b"INCRBY", b"counter", b"1"]]


async def test_a_server_that_does_not_answer_is_given_up_and_not_asked_again() -> None:
    """A frozen server must become a 503 within the request's time, and its late answer must go to nobody."""
    received = []

    async def be_silent(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        received.append(command)

    clock = SystemClock()
    async with impostor(be_silent) as url, client(url, answer_seconds=0.1) as redis:
        began = clock.boottime()
        with pytest.raises(StoreUnavailable, match="Timeout"), store_errors(StoreUnavailable):
            await redis.incr("counter")
        assert clock.boottime() - began < 1
    assert len(received) == 1


async def test_a_late_answer_reaches_nobody_else() -> None:
    """After a timeout the connection is dropped: else the next command would read the answer of the last."""
    late = asyncio.Event()

    async def answer_late(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        if command[1] == b"slow":
            await late.wait()
        writer.write(b"$%d\r\n%s\r\n" % (len(command[1]), command[1]))

    async with impostor(answer_late) as url, client(url, answer_seconds=0.1) as redis:
        with pytest.raises(StoreUnavailable), store_errors(StoreUnavailable):
            await redis.get("slow")
        late.set()
        assert await redis.get("quick") == b"quick"


async def test_a_connection_that_went_stale_is_replaced(own_valkey: EmbeddedServer) -> None:
    """After a restart of the server the first command of each process works."""
    async with client(own_valkey.url()) as redis:
        await redis.set("key", "kept")
        await own_valkey.restart()
        assert await redis.get("key") == b"kept"


async def test_the_pool_is_bounded_and_waits() -> None:
    """More commands at once than connections: they queue, and a server that hangs does not collect connections."""
    open_now, most = 0, 0

    async def count(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await SystemClock().sleep(0.005)
        open_now -= 1
        writer.write(b":1\r\n")

    async with impostor(count) as url, client(url, most_connections=3) as redis:
        assert await asyncio.gather(*(redis.incr("counter") for _ in range(20))) == [1] * 20
    assert most == 3


async def test_a_subscriber_waits_longer_than_a_command(valkey_url: str) -> None:
    """Silence on a channel is no failure of the connection; the heartbeat is what must not be silent."""
    redis = connect(valkey_url, client_name="subscriber", subscribing=True, answer_seconds=0.05)
    async with client(valkey_url) as publisher, redis.pubsub() as channel:
        await channel.subscribe("doorbell")
        assert (await channel.get_message(timeout=1) or {})["type"] == "subscribe"
        listening = asyncio.ensure_future(channel.get_message(timeout=5))
        await SystemClock().sleep(0.15)
        await publisher.publish("doorbell", "ring")
        assert (await listening or {})["data"] == b"ring"
    await redis.aclose()


async def test_nobody_there_is_unavailable() -> None:
    """A refused connection names itself, and no secret."""
    redis = connect(f"redis://user@127.0.0.1:{free_port()}/0", client_name="test", password=Secret(b"sesame"))
    with pytest.raises(StoreUnavailable) as failed, store_errors(StoreUnavailable):
        await redis.ping()
    await redis.aclose()
    assert "sesame" not in str(failed.value)
    assert "sesame" not in repr(redis)


async def test_a_unix_socket_will_do(tmp_path: Path) -> None:
    """Beside the server there is no need for TCP."""
    path = tmp_path / "valkey.sock"
    async with (
        EmbeddedServer(tmp_path / "server", settings={"unixsocket": str(path)}),
        client(f"unix://{path}") as redis,
    ):
        assert await redis.ping()


@pytest.mark.parametrize(
    ("reply", "unavailable"),
    [
        ("LOADING Valkey is loading the dataset in memory", True),
        ("READONLY You can't write against a read only replica.", True),
        ("NOREPLICAS Not enough good replicas to write.", True),
        ("MISCONF Errors writing to the AOF file: No space left on device", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", True),
        ("MASTERDOWN Link with MASTER is down", True),
        ("BUSY Valkey is busy running a script.", True),
        ("NOPERM User watcher has no permissions to run the 'set' command", True),
        ("NOAUTH Authentication required.", True),
        ("WRONGPASS invalid username-password pair or user is disabled.", True),
        ("ERR max number of clients reached", True),
        ("ERR unknown command 'NONSENSE'", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("NOSCRIPT No matching script.", False),
        ("ERR The ID specified in XADD is equal or smaller than the target stream top item", False),
    ],
)
async def test_a_reply_is_the_servers_fault_or_the_commands(reply: str, unavailable: bool) -> None:
    """A store that cannot do it now is 503; a command that is wrong is a fault of ours, and is not hidden."""

    async def refuse(command: list[bytes], writer: asyncio.StreamWriter) -> None:
        writer.write(f"-{reply}\r\n".encode())

    async with impostor(refuse) as url, client(url) as redis:
        with pytest.raises(StoreUnavailable if unavailable else ResponseError), store_errors(StoreUnavailable):
            await redis.set("key", "value")


async def test_a_server_without_enough_replicas_is_unavailable(own_valkey: EmbeddedServer) -> None:
    """Inside a script too: the real thing, as a feed would meet it."""
    async with client(own_valkey.url()) as redis:
        await redis.config_set("min-replicas-to-write", 1)
        with pytest.raises(FeedUnavailable, match="NOREPLICAS"), store_errors(FeedUnavailable):
            await redis.eval("return redis.call('SET', KEYS[1], '1')", 1, "key")  # type: ignore[misc]


async def test_a_command_in_flight_when_the_server_is_killed_is_unavailable(own_valkey: EmbeddedServer) -> None:
    """Its outcome is unknown, and it says so at once."""
    async with client(own_valkey.url()) as redis:
        waiting = asyncio.ensure_future(redis.blpop(["nothing"], timeout=5))  # type: ignore[arg-type]
        await eventually(lambda: _blocked(own_valkey))
        await own_valkey.kill()
        with pytest.raises(FeedUnavailable), store_errors(FeedUnavailable):
            await waiting


async def _blocked(server: EmbeddedServer) -> bool:
    async with client(server.url()) as redis:
        return bool((await redis.info("clients"))["blocked_clients"] == 1)


def test_our_own_errors_and_those_of_the_code_pass_through() -> None:
    """The translation hides no mistake."""
    for error in (KeyturnError("ours"), ValueError("a mistake"), asyncio.CancelledError()):
        with pytest.raises(type(error)), store_errors(FeedUnavailable):
            raise error
    assert not is_server_failure(RedisError("who knows"))


async def test_a_server_that_denies_config_tells_what_it_may(valkey: Redis, valkey_url: str) -> None:
    """A sidecar's user reads the feed and nothing else."""
    await valkey.acl_setuser("watcher", enabled=True, passwords=["+sesame"], commands=["+ping", "+client"])
    redis = connect(valkey_url.replace("//", "//watcher@"), client_name="watcher", password="sesame")
    assert await server_facts(redis) == ServerFacts()
    await redis.aclose()
    await valkey.acl_deluser("watcher")
    assert (await server_facts(valkey)).append_fsync == "always"
