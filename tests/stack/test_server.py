"""The embedded server is real, private, alone in its directory, and keeps what it acknowledged."""

import asyncio
import stat
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from keyturn.contract.errors import ConfigurationError, FeedUnavailable
from keyturn.process.redis import connect, server_facts, store_errors
from keyturn.process.soundness import require_sound
from keyturn.process.values import Secret
from stack.ports import free_port
from stack.server import EmbeddedServer, ServerFailed
from tests.process.alive import is_there
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]


async def ask(server: EmbeddedServer, *command: str | bytes, user: str | None = None) -> object:
    """Send one command to a server, on a connection of its own."""
    redis: Redis = connect(server.url(user), client_name="test", answer_seconds=0.3)
    try:
        return await redis.execute_command(*command)  # type: ignore[no-untyped-call]
    finally:
        await redis.aclose()


def addresses_listening_on(port: int) -> set[str]:
    """Return the local addresses, as /proc writes them, that somebody listens on at this port."""
    rows = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1].partition(":")[0] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}


def shown_to_everybody(pid: int) -> str:
    """Return the command line and the environment of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/environ").read_text()


async def test_it_answers_and_is_set_up_to_forget_nothing(own_valkey: EmbeddedServer) -> None:
    """A feed on a server that evicts, or that syncs later, loses revocations that were accepted."""
    redis = connect(own_valkey.url(), client_name="test")
    facts = await server_facts(redis)
    await redis.aclose()
    require_sound(facts, durable=True)
    assert facts.append_only
    assert facts.append_fsync == "always"
    assert facts.maxmemory_policy == "noeviction"
    assert facts.role == "master"
    assert facts.replicas == 0
    assert facts.run_id
    assert facts.version


async def test_it_listens_on_loopback_only(own_valkey: EmbeddedServer) -> None:
    """A laptop's other networks have no business with it."""
    assert own_valkey.url() == f"redis://127.0.0.1:{own_valkey.port}/0"
    listening = addresses_listening_on(own_valkey.port)
    assert listening == {"0100007F"}


async def test_what_it_acknowledged_survives_a_kill(own_valkey: EmbeddedServer) -> None:
    """`kill -9` under `appendfsync always` loses nothing, and a restart keeps the port."""
    port = own_valkey.port
    for number in range(20):
        await ask(own_valkey, "SET", f"key{number}", "kept")
    await own_valkey.kill()
    assert not own_valkey.running
    await own_valkey.restart()
    assert own_valkey.port == port
    assert await ask(own_valkey, "DBSIZE") == 20


async def test_a_frozen_server_answers_nothing_until_it_is_thawed(own_valkey: EmbeddedServer) -> None:
    """SIGSTOP is how tests make a server that is there and silent."""
    own_valkey.freeze()
    with pytest.raises(FeedUnavailable), store_errors(FeedUnavailable):
        await ask(own_valkey, "PING")
    own_valkey.thaw()
    assert await ask(own_valkey, "PING") in (True, b"PONG")


async def test_a_frozen_server_can_be_stopped(own_valkey: EmbeddedServer) -> None:
    """A stack that ends while a test has frozen its server must not hang."""
    pid = own_valkey.pid
    own_valkey.freeze()
    await own_valkey.stop()
    assert not is_there(pid)
    await own_valkey.stop()


async def test_a_second_server_in_one_directory_is_refused(own_valkey: EmbeddedServer) -> None:
    """Two servers on one append-only directory lost 600 acknowledged writes."""
    with pytest.raises(ConfigurationError) as refused:
        await EmbeddedServer(own_valkey.directory).start()
    assert str(own_valkey.directory) in str(refused.value)
    assert str(own_valkey.pid) in str(refused.value)
    assert await ask(own_valkey, "PING") in (True, b"PONG")


async def test_the_directory_is_free_after_a_stop(own_valkey: EmbeddedServer) -> None:
    """A stack that ended leaves nothing that keeps the next one from starting."""
    await ask(own_valkey, "SET", "key", "kept")
    await own_valkey.stop()
    async with EmbeddedServer(own_valkey.directory) as next_one:
        assert await ask(next_one, "GET", "key") == b"kept"


async def test_the_directory_stays_ours_between_kill_and_restart(own_valkey: EmbeddedServer) -> None:
    """Nobody may slip in while a fault test has the server down."""
    await own_valkey.kill()
    with pytest.raises(ConfigurationError):
        await EmbeddedServer(own_valkey.directory).start()


async def test_a_taken_port_is_refused(own_valkey: EmbeddedServer, tmp_path: Path) -> None:
    """Also when a server answers there: it is a stranger's."""
    second = EmbeddedServer(tmp_path / "second", port=own_valkey.port)
    with pytest.raises(ConfigurationError, match=f"port {own_valkey.port} is taken"):
        await second.start()
    assert not second.running


async def test_a_given_port_is_used(tmp_path: Path) -> None:
    """The stack gives its own."""
    port = free_port()
    async with EmbeddedServer(tmp_path, port=port) as server:
        assert server.port == port


async def test_an_access_list_is_obeyed_and_no_password_shows(tmp_path: Path) -> None:
    """One user per role; a password in argv is everybody's."""
    aclfile = tmp_path / "users.acl"
    aclfile.write_text("user default off\nuser watcher on >sesame-19 +ping +info +hello +client +get ~public:*\n")
    server = EmbeddedServer(tmp_path / "with space", aclfile=aclfile, user="watcher", password=Secret(b"sesame-19"))
    async with server:
        assert "watcher@" in server.url("watcher")
        redis = connect(server.url("watcher"), client_name="test", password="sesame-19")
        with pytest.raises(FeedUnavailable), store_errors(FeedUnavailable):
            await redis.set("public:key", "value")
        facts = await server_facts(redis)
        await redis.aclose()
        assert facts.append_fsync is None
        assert facts.run_id
        with pytest.raises(FeedUnavailable), store_errors(FeedUnavailable):
            await ask(server, "PING")
        assert "sesame" not in shown_to_everybody(server.pid)
        assert stat.S_IMODE((server.directory / "server.conf").stat().st_mode) == 0o600


async def test_wrong_credentials_are_refused_at_start(tmp_path: Path) -> None:
    """A mistake in the access list must not look like a server that is slow to start."""
    aclfile = tmp_path / "users.acl"
    aclfile.write_text("user default off\nuser watcher on >right +@all ~*\n")
    server = EmbeddedServer(tmp_path / "server", aclfile=aclfile, user="watcher", password=Secret(b"wrong"))
    with pytest.raises(ConfigurationError, match="watcher"):
        await server.start()
    assert not server.running


async def test_a_server_that_cannot_start_says_its_last_words(tmp_path: Path) -> None:
    """A broken access list is named by the server; we pass it on."""
    aclfile = tmp_path / "users.acl"
    aclfile.write_text("user broken on nonsense\n")
    with pytest.raises(ServerFailed, match="ended"):
        await EmbeddedServer(tmp_path / "server", aclfile=aclfile).start()
    async with EmbeddedServer(tmp_path / "server") as server:  # The failure let go of the directory.
        assert server.running


async def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    """A stack that is killed must not leave a server behind that holds the directory."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from stack.server import EmbeddedServer\n"
        "async def main():\n"
        "    server = EmbeddedServer(Path(sys.argv[1]))\n"
        "    await server.start()\n"
        "    print(server.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, str(tmp_path / "server")), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert is_there(pid)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not is_there(pid))
    async with EmbeddedServer(tmp_path / "server") as server:
        assert server.running
