"""The store's users as `keyturn init` makes them: each process does its work, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from authorization.codes import PREFIX as CODES
from authorization.codes import USED_PREFIX
from authorization.logins import PREFIX as LOGINS
from keyturn import entropy
from keyturn.cli.newclients import DEFAULT_AUDIENCE
from keyturn.cli.provisioning import SERVER_USERS, SERVICES, Plan, provision
from keyturn.clock import SystemClock
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.positions import Lane
from keyturn.feed.redis import bell_channel, head_key, stream_key
from keyturn.feed.snapshots import chunks_key, snapshot_key
from serving.endings import ENDINGS_KEY
from serving.families import Families, Family, mark_of
from serving.listings import LEASE_KEY, ROWS_KEY
from serving.promises import PROMISE_KEY
from serving.records import RecordKeys
from tests.families import new_refresh_token
from tests.faults.fleet import SIDECARS, Fleet
from tests.faults.people import People, people_of
from tests.waiting import eventually

USERS = (*SERVICES, *SIDECARS)
EVERYBODY, NOBODY = set(USERS), set[str]()
KEYS, REVOCATIONS = {"keyservice", "worker"}, {"revocation"}
CLIENT_FACING = {"authorization", "introspection", "revocation"}
WATCHERS, READERS = KEYS | REVOCATIONS, {"keyservice", "introspection", "revocation"}
ASSERTION = "keyturn:assertion:x"
FAMILY = "keyturn:family:x"
RECORD, SEALED, TRUST, JOBS = "keyturn:record:x", "keyturn:sealed-keys", "keyturn:trust", "arq:keyturn"

# Each command, and who may give it.
ALLOWED: list[tuple[str, set[str]]] = [
    # The feed: everybody reads it, and a lane's own publishers write it.
    *((f"hmget {head_key(lane)} position statement", EVERYBODY) for lane in Lane),
    *((f"hget {snapshot_key(lane)} snapshot", EVERYBODY) for lane in Lane),
    *((f"hmget {chunks_key(lane)} digest", EVERYBODY) for lane in Lane),
    *((f"xrange {stream_key(lane, 1)} - +", EVERYBODY) for lane in Lane),
    *((f"subscribe {bell_channel(lane)}", EVERYBODY) for lane in Lane),
    (f"hset {head_key(Lane.KEYS)} position x", KEYS),
    (f"hset {snapshot_key(Lane.KEYS)} snapshot x", KEYS),
    (f"xadd {stream_key(Lane.KEYS, 1)} * event x", KEYS),
    (f"publish {bell_channel(Lane.KEYS)} x", KEYS),
    (f"evalsha {'0' * 40} 3 {head_key(Lane.KEYS)} {stream_key(Lane.KEYS, 1)} {SEALED}", KEYS),
    (f"hset {head_key(Lane.REVOCATIONS)} position x", REVOCATIONS),
    (f"hset {snapshot_key(Lane.REVOCATIONS)} snapshot x", REVOCATIONS),
    (f"xadd {stream_key(Lane.REVOCATIONS, 1)} * event x", REVOCATIONS),
    (f"publish {bell_channel(Lane.REVOCATIONS)} x", REVOCATIONS),
    (f"evalsha {'0' * 40} 2 {head_key(Lane.REVOCATIONS)} {stream_key(Lane.REVOCATIONS, 1)}", REVOCATIONS),
    # A snapshot's chunks: only the revocation service stores them, and sweeps those that nobody needs.
    (f"hset {chunks_key(Lane.REVOCATIONS)} digest x", REVOCATIONS),
    (f"hkeys {chunks_key(Lane.REVOCATIONS)}", REVOCATIONS),
    (f"hexists {chunks_key(Lane.REVOCATIONS)} digest", REVOCATIONS),
    (f"hdel {chunks_key(Lane.REVOCATIONS)} digest", REVOCATIONS),
    (f"hdel {head_key(Lane.REVOCATIONS)} position", NOBODY),
    (f"hdel {snapshot_key(Lane.REVOCATIONS)} snapshot", NOBODY),
    (f"hgetall {chunks_key(Lane.REVOCATIONS)}", NOBODY),
    # A lane's publishers trim behind an old snapshot, and clear what stands in the way of a new epoch.
    (f"xtrim {stream_key(Lane.KEYS, 1)} minid 2-0", KEYS),
    (f"xtrim {stream_key(Lane.REVOCATIONS, 1)} minid 2-0", REVOCATIONS),
    *((f"del {name(lane)}", KEYS if lane is Lane.KEYS else REVOCATIONS)
      for name in (head_key, snapshot_key) for lane in Lane),
    *((f"{command} {head_key(lane)}", NOBODY) for command in ("unlink", "persist") for lane in Lane),
    *((f"{command} {snapshot_key(lane)}", NOBODY) for command in ("unlink", "persist") for lane in Lane),
    *((f"xdel {stream_key(lane, 1)} 1-0", NOBODY) for lane in Lane),
    *((f"set {head_key(lane)} x", NOBODY) for lane in Lane),
    *((f"expire {stream_key(lane, 1)} 1", NOBODY) for lane in Lane),
    # Publishers ask whether a replica, or the disk, holds what they have written.
    ("wait 1 500", WATCHERS),
    ("waitaof 1 0 500", WATCHERS),
    # Trust and sealed keys.
    (f"get {TRUST}", EVERYBODY),
    (f"set {TRUST} x", {"keyservice"}),
    (f"del {TRUST}", NOBODY),
    (f"hgetall {SEALED}", KEYS),
    (f"hget {SEALED} kid", KEYS),
    (f"hset {SEALED} kid box", KEYS),
    (f"hdel {SEALED} kid", KEYS),
    (f"del {SEALED}", NOBODY),
    # Records of opaque tokens.
    (f"set {RECORD} x", {"authorization"}),
    (f"get {RECORD}", READERS | {"authorization"}),
    (f"del {RECORD}", REVOCATIONS),
    # Sign-ins and codes: authorization alone, which asks where the revocations lane stands in the same step.
    *((f"{command} {prefix}x", {"authorization"}) for prefix in (LOGINS, CODES, USED_PREFIX)
      for command in ("get", "del", "exists")),
    *((f"set {prefix}x y px 1000", {"authorization"}) for prefix in (LOGINS, CODES, USED_PREFIX)),
    (f"pexpire {CODES}x 1000", {"authorization"}),
    (f"evalsha {'0' * 40} 2 {CODES}x {LOGINS}x", {"authorization"}),
    (f"evalsha {'0' * 40} 4 {CODES}x {USED_PREFIX}x {head_key(Lane.REVOCATIONS)} {ENDINGS_KEY}", {"authorization"}),
    (f"evalsha {'0' * 40} 2 {CODES}x {head_key(Lane.KEYS)}", NOBODY),
    *((f"persist {prefix}x", NOBODY) for prefix in (LOGINS, CODES, USED_PREFIX)),
    # Families of refresh tokens: who issues tokens turns them, and writes down which grants revocation has to end.
    (f"get {FAMILY}", CLIENT_FACING),
    ("time", CLIENT_FACING),
    (f"set {FAMILY} x nx pxat 1", {"authorization"}),
    (f"evalsha {'0' * 40} 3 {FAMILY} {head_key(Lane.REVOCATIONS)} {ENDINGS_KEY}", {"authorization"}),
    *((f"{command} {FAMILY}", NOBODY) for command in ("del", "unlink", "persist", "getdel")),
    (f"expire {FAMILY} 1", NOBODY),
    (f"xadd {ENDINGS_KEY} * ending x", {"authorization"}),
    (f"xlen {ENDINGS_KEY}", {"authorization"}),
    (f"xread count 100 block 1 streams {ENDINGS_KEY} 0", REVOCATIONS),
    (f"xdel {ENDINGS_KEY} 1-0", REVOCATIONS),
    *((f"{command} {ENDINGS_KEY}", NOBODY) for command in ("del", "unlink", "persist")),
    (f"xtrim {ENDINGS_KEY} maxlen 0", NOBODY),
    # For how long revocations of grants are kept: revocation says so, and its word is sealed.
    (f"hget {PROMISE_KEY} promise", EVERYBODY),
    (f"hset {PROMISE_KEY} promise x", REVOCATIONS),
    (f"hdel {PROMISE_KEY} promise", NOBODY),
    (f"set {PROMISE_KEY} x", NOBODY),
    # How far receivers of security events have been told, and what they refused.
    *((f"{command} keyturn:streams:x:progress", REVOCATIONS) for command in ("get", "llen")),
    ("set keyturn:streams:x:progress y", REVOCATIONS),
    ("lpush keyturn:streams:x:dead y", REVOCATIONS),
    ("lrange keyturn:streams:x:dead 0 -1", REVOCATIONS),
    ("ltrim keyturn:streams:x:dead 0 9", REVOCATIONS),
    (f"evalsha {'0' * 40} 2 keyturn:streams:x:progress keyturn:streams:x:dead", REVOCATIONS),
    ("del keyturn:streams:x:turn", REVOCATIONS),
    ("expire keyturn:streams:x:progress 1", NOBODY),
    # Clients' assertions that were used: who authenticates clients notes them, and nobody looks. (To forget one takes a
    # mark over it that runs out at once: no access list knows NX.)
    (f"set {ASSERTION} x nx px 1000", CLIENT_FACING),
    (f"set {ASSERTION} x get", NOBODY),
    (f"get {ASSERTION}", NOBODY),
    (f"del {ASSERTION}", NOBODY),
    (f"expire {ASSERTION} 1", NOBODY),
    # Places in status lists: who issues tokens takes them and writes, and who publishes the lists reads.
    (f"evalsha {'0' * 40} 1 {LEASE_KEY}", {"authorization"}),
    (f"evalsha {'0' * 40} 1 {ROWS_KEY}", {"authorization"}),
    (f"hmget {LEASE_KEY} list", {"authorization"}),
    (f"hset {LEASE_KEY} next 0", {"authorization"}),
    (f"xadd {ROWS_KEY} * list x", {"authorization"}),
    (f"xtrim {ROWS_KEY} minid 1-0", {"authorization"}),
    (f"xrange {ROWS_KEY} - +", {"revocation"}),
    *((f"{command} {key}", NOBODY) for command in ("del", "persist", "unlink") for key in (LEASE_KEY, ROWS_KEY)),
    (f"xdel {ROWS_KEY} 1-0", NOBODY),
    # Which events of other issuers were carried out.
    ("get keyturn:received:x", REVOCATIONS),
    ("set keyturn:received:x 1 nx px 1000", REVOCATIONS),
    ("del keyturn:received:x", NOBODY),
    # Presence: each verifier its own, and who waits for adoption reads all.
    *((f"set keyturn:presence:{name} x", {name}) for name in SIDECARS),
    *((f"publish keyturn:presence:{name} x", {name}) for name in SIDECARS),
    *((f"mget keyturn:presence:{name}", WATCHERS) for name in SIDECARS),
    *((f"del keyturn:presence:{name}", NOBODY) for name in SIDECARS),
    ("psubscribe keyturn:presence:*", WATCHERS),
    ("psubscribe *", NOBODY),
    ("scan 0", REVOCATIONS),
    # The worker's queue.
    (f"zadd {JOBS} 0 job", {"worker"}),
    (f"zrem {JOBS} job", {"worker"}),
    ("set arq:result:job x", {"worker"}),
    # What only an administrator does.
    *((command, NOBODY) for command in (
        "config set appendfsync no", "config rewrite", "flushall", "flushdb", "keys *", "eval return 0", "shutdown",
        "debug sleep 0", "monitor", "acl list", "acl setuser x on", "client list", "client kill 127.0.0.1:1",
        "client pause 1", "replicaof no one", "script flush", "function flush", "function stats", "swapdb 0 1",
        "save", "bgrewriteaof", "cluster info", "module list", "slowlog get", "randomkey", "rename a b",
        f"dump {SEALED}", f"restore {TRUST} 0 x", f"copy {SEALED} {RECORD}", f"object encoding {SEALED}",
        "spublish a b", f"getdel {RECORD}", f"memory usage {RECORD}", "latency reset",
    )),
]  # fmt: skip


@pytest.fixture
async def people(listed_fleet: Fleet) -> Any:
    """Use the system."""
    async with people_of(listed_fleet) as people:
        yield people


@pytest.mark.parametrize(("command", "allowed"), ALLOWED, ids=[command for command, _ in ALLOWED])
async def test_a_command_is_for_those_who_need_it_and_nobody_else(
    administrator: Redis, command: str, allowed: set[str]
) -> None:
    """Whoever takes over one process must find no way from its user of the store into another's work."""
    words = _words(command)
    may = {user for user in USERS if await _give(administrator, ["acl", "dryrun", user, *words]) == b"OK"}
    assert may == allowed


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        ("psync ? -1", {"replica"}),
        ("replconf ack 1", {"replica"}),
        ("role", {"sentinel"}),
        ("replicaof no one", {"sentinel"}),
        ("config rewrite", {"sentinel"}),
        ("client kill type normal", {"sentinel"}),
        ("publish __sentinel__:hello x", {"sentinel"}),
        (f"publish {bell_channel(Lane.KEYS)} x", NOBODY),
        (f"get {TRUST}", NOBODY),
        (f"hgetall {SEALED}", NOBODY),
        (f"hset {head_key(Lane.KEYS)} position x", NOBODY),
        ("config set appendfsync no", NOBODY),
        ("shutdown", NOBODY),
    ],
)
async def test_servers_users_do_what_servers_do(administrator: Redis, command: str, allowed: set[str]) -> None:
    """A sentinel moves the primary's role and reads nothing; a replica copies everything and changes nothing."""
    may = {
        user for user in SERVER_USERS if await _give(administrator, ["acl", "dryrun", user, *_words(command)]) == b"OK"
    }
    assert may == allowed


@pytest.mark.parametrize("name", ["default", "keyservice", "worker", "replica", "sentinel"])
def test_a_verifier_with_the_name_of_another_user_is_refused(tmp_path: Path, name: str) -> None:
    """It would be given that user's password, and the store that user's rights: `default` may do everything."""
    with pytest.raises(ConfigurationError, match=f"{name} is a user of the store already"):
        provision(tmp_path / "kt", Plan(issuer="https://issuer.example", verifiers=("sidecar-1", name)), now=0.0)
    assert not (tmp_path / "kt").exists()


@pytest.mark.parametrize("user", USERS)
async def test_a_user_is_refused_for_real(listed_fleet: Fleet, user: str) -> None:
    """What the server says that it would do is what it does."""
    async with listed_fleet.redis(user) as redis:
        assert await redis.get(TRUST)
        for command in ("flushall", "keys *", "config set appendfsync no", f"unlink {head_key(Lane.KEYS)}"):
            with pytest.raises(NoPermissionError):
                await _give(redis, _words(command))


async def test_every_process_does_its_work_without_a_single_refusal(
    listed_fleet: Fleet, administrator: Redis, people: People
) -> None:
    """One command too few and something fails in production on the day that it is first needed."""
    await administrator.acl_log_reset()
    for step in (_tokens, _families, _keys, _restarts):
        await step(people)
    assert await administrator.acl_log() == []
    assert "NoPermission" not in listed_fleet.last_words()


async def _tokens(people: People) -> None:
    """Issue, introspect and revoke, in each way that there is."""
    for form in ("jwt", "opaque"):
        asked = {"grant_type": "client_credentials", "token_format": form}
        told = await people.ask("authorization", "/token", form=asked, who="client")
        assert told is not None
        token = {"token": told[1]["access_token"]}
        assert await people.ask("introspection", "/introspect", form=token, who="resource")
        assert await people.ask("revocation", "/revoke?wait=all", form=token, who="client")
        told = await people.ask("introspection", "/introspect", form=token, who="resource")
        assert told is not None
        assert told[1] == {"active": False}
    assert await people.revoke(await people.token()) == 200


async def _families(people: People) -> None:
    """Turn a refresh token, ask about it, come with a used one, so that revocation ends its grant; sign out another."""
    fleet, now = people.fleet, SystemClock().now()
    keys = RecordKeys.parse((fleet.directory / "records.json").read_bytes())
    async with fleet.redis() as redis:
        first, another = [await _begin_family(fleet, Families(redis, keys), now) for _ in range(2)]
        second = await _refreshed(people, first)
        third = await _refreshed(people, second)
        assert third is not None
        assert await people.introspect_text(third) is False  # It is another client's.
        assert await _refreshed(people, first) is None
        await eventually(lambda: _is_empty(redis), within_seconds=15, saying=fleet.last_words)
    assert await _refreshed(people, third) is None
    revoked = {"token": another, "client_id": "app"}
    assert await people.ask("revocation", "/revoke?wait=all", form=revoked)
    counted = {"selector": {"sub": "alice"}, "dry_run": True}
    told = await people.order("revocation", "/revocations", counted)
    assert told is not None
    assert told[1]["records"] == 0


async def _begin_family(fleet: Fleet, families: Families, now: float) -> str:
    token = new_refresh_token()
    claims = {"iss": fleet.issuer, "sub": "alice", "client_id": "app", "aud": DEFAULT_AUDIENCE, "scope": "read",
              "grant_id": entropy.uuid7(now)}  # fmt: skip
    family = Family(claims=claims, ends_at=now + 3600, current=mark_of(token), made_at=now, expires_at=now + 3600)
    await families.begin(token, family, keep_seconds=2.0)
    return token


async def _refreshed(people: People, token: str | None) -> str | None:
    form = {"grant_type": "refresh_token", "client_id": "app", "refresh_token": token or ""}
    told = await people.ask("authorization", "/token", form=form)
    return None if told is None else str(told[1]["refresh_token"])


async def _is_empty(redis: Redis) -> bool:
    return int(await redis.xlen(ENDINGS_KEY)) == 0


async def _keys(people: People) -> None:
    """Rotate, revoke a key, and look at everything."""
    held = await people.token()
    assert await people.rotate() == 200
    assert await people.order("keyservice", f"/keys/{held.kid}/revoke?wait=all", {})
    for service, path in (
        ("keyservice", "/keys"), ("keyservice", "/verifiers"), ("keyservice", "/feed/keys"),
        ("keyservice", "/feed/revocations"), ("revocation", "/revocations/1"),
    ):  # fmt: skip
        assert await people.look(service, path) == 200


async def _restarts(people: People) -> None:
    """Begin again on a store that restarted, and has forgotten its scripts."""
    fleet = people.fleet
    await fleet.server.restart()
    await eventually(people.well, within_seconds=15)
    assert await people.revoke(await people.token()) == 200
    assert await people.rotate() == 200
    assert await fleet.end("worker") == 0
    async with fleet.redis() as redis:
        await redis.delete("arq:keyturn:health")
        fleet.start("worker")
        # It writes this once it has looked for jobs.
        await eventually(lambda: redis.exists("arq:keyturn:health"), within_seconds=15, saying=fleet.last_words)


async def _give(redis: Redis, words: list[str]) -> object:
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]


def _words(command: str) -> list[str]:
    return ["eval", "return 0", "0"] if command.startswith("eval ") else command.split(" ")
