"""`keyturn doctor` beside a whole running system, well and unwell; it leaves nothing behind and tells no secret."""

from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from keyturn.cli.provisioning import Plan, provision
from keyturn.contract.positions import Lane
from keyturn.feed.redis import SEALED_KEY, stream_key
from keyturn.feed.snapshots import snapshot_key
from keyturn.process.redis import connect
from stack.ports import free_port
from tests.cli import test_with_a_stack
from tests.cli.conftest import Ran, Run
from tests.stack.upping import Place

place = test_with_a_stack.place


def configuration(place: Place, tmp_path: Path) -> str:
    """Write the settings of the host that the stack runs on; return their file."""
    server = place.env["KEYTURN_REDIS_URL"].rpartition("@")[2]
    file = tmp_path / "doctor.toml"
    file.write_text(
        f"""
[issuer]
url = "{place.env["KEYTURN_ISSUER"]}"
[redis]
url = "redis://{server}"
credentials = "{place.directory / "redis"}"
durable = true
[trust]
root = "{place.directory / "root.jwk"}"
allow_dev = true
[freshness]
skew = 1
expired = 60
[keyservice]
listen = "127.0.0.1:{place.port}"
[sidecar]
listen = "127.0.0.1:{place.sidecar_port}"
"""
    )
    return str(file)


def levels(ran: Ran) -> dict[str, str]:
    """Return how each check came out."""
    return {one["check"]: one["level"] for one in ran.json["checks"]}


def unwell(ran: Ran) -> dict[str, str]:
    """Return what was seen where it was not ok."""
    return {one["check"]: one["seen"] for one in ran.json["checks"] if one["level"] != "ok"}


async def test_a_well_system_is_well_and_each_harm_is_found(run: Run, place: Place, tmp_path: Path) -> None:
    """One system, harmed in one way after the other; every probe of the access list comes to nothing."""
    config, admin = configuration(place, tmp_path), connect(place.env["KEYTURN_REDIS_URL"], client_name="tests")
    try:
        before = await _names(admin)
        ran = await run("doctor", "--config", config, "--json")
        assert (ran.status, unwell(ran)) == (0, {}), ran.err
        asked = {"store", "access list", "eviction", "durability", "trust document", "lane keys", "lane revocations"}
        assert (
            asked | {"clock and lane keys", "sealed keys", "verifiers", "keyservice", "sidecar"} <= levels(ran).keys()
        )
        shown = (await run("doctor", "--config", config)).out + ran.out
        for secret in (place.directory / "redis").glob("*.password"):
            assert secret.read_text() not in shown
        assert await _names(admin) - before <= {"keyturn:keys:1:events"}, "only what the system itself writes"

        by_env = await run("doctor", "--env", str(place.directory / "dev.env"), "--json")
        assert (by_env.status, levels(by_env)["access list"]) == (0, "warn")
        assert levels(by_env)["issuer"] == "ok"

        await _harm_and_look(run, config, admin)
    finally:
        await admin.aclose()


async def _names(admin: Redis) -> set[str]:
    return {name.decode() async for name in admin.scan_iter() if not name.startswith((b"keyturn:record:", b"arq:"))}


async def _harm_and_look(run: Run, config: str, admin: Redis) -> None:
    """Harm it, look, and undo it where that is easy."""
    execute = cast("Any", admin.execute_command)
    await execute("ACL", "SETUSER", "introspection", "~*", "+xadd")
    await execute("ACL", "SETUSER", "sidecar-1", "-hget")
    await execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await execute("CONFIG", "SET", "appendfsync", "everysec")
    (kid, *_) = await cast("Any", admin.hkeys(SEALED_KEY))
    await cast("Any", admin.hdel(SEALED_KEY, kid))
    ran = await run("doctor", "--config", config, "--json")
    found = unwell(ran)
    assert ran.status == 1
    assert "must not, and may: write lane keys, write lane revocations" in found["access list of introspection"]
    assert "must, and may not: read the feed" in found["access list of sidecar-1"]
    assert "allkeys-lru" in found["eviction"]
    assert "everysec" in found["durability"]
    assert kid.decode() in found["sealed keys"]

    await cast("Any", admin.xadd(stream_key(Lane.KEYS, 1), {"event": "no.event.this"}, id="999999-0"))
    await cast("Any", admin.hset(snapshot_key(Lane.REVOCATIONS), "snapshot", "no.snapshot.this"))
    ran = await run("doctor", "--config", config, "--json")
    assert ran.status == 1
    assert "no snapshot that a new verifier could begin with" in unwell(ran)["lane revocations"]


@pytest.mark.parametrize("how", ["nothing listens", "no credentials"])
async def test_a_store_that_cannot_be_asked_is_said_once_and_the_rest_is_unknown(
    run: Run, tmp_path: Path, how: str
) -> None:
    """A doctor must come to an end, and must not take what it could not see for well."""
    directory = tmp_path / "keyturn"
    provision(directory, Plan(issuer="http://127.0.0.1:1", redis_url=f"redis://127.0.0.1:{free_port()}/0"), now=1.0)
    if how == "no credentials":
        for file in (directory / "redis").glob("*.password"):
            file.chmod(0o644)
    ran = await run("doctor", "--config", str(directory / "keyturn.toml"), "--json")
    told = levels(ran)
    assert ran.status == 1
    assert (told["store as keyservice"], told["trust document"], told["eviction"]) == ("fail", "unknown", "unknown")
    seen = unwell(ran)["store as keyservice"]
    assert ("open to other users" if how == "no credentials" else "Connection") in seen


async def test_a_configuration_that_cannot_be_read_is_2(run: Run, tmp_path: Path) -> None:
    """As for every process."""
    ran = await run("doctor", "--config", str(tmp_path / "missing.toml"))
    assert (ran.status, ran.out) == (2, "")
    assert (await run("doctor")).status == 2, "no configuration, and no dev.env either"
