"""A doctor's findings over facts: each question has facts that make it fail, and says how to mend it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyturn.cli.checkup import Level, Result, examine
from keyturn.cli.examination import look_into
from keyturn.cli.facts import ArchiveFacts, Facts, LaneFacts, ServiceFacts, UserFacts
from keyturn.contract.keys import KeySet
from keyturn.contract.positions import Lane
from keyturn.contract.reports import Report
from keyturn.feed.lines import render_line
from keyturn.process.redis import ServerFacts
from tests.world import World, new_statement_key

KEYS, REVOCATIONS = Lane
SOUND = ServerFacts(
    run_id="r", version="9.1", role="master", uptime_seconds=9, replicas=0, append_only=True, append_fsync="always",
    maxmemory_policy="noeviction", min_replicas_to_write=0,
)  # fmt: skip


def world() -> World:
    """Return a world with one verifier."""
    return World(verifiers={"sidecar-1": new_statement_key()})


def report(at: float, **changes: Any) -> Report:
    """Return a good report of the verifier."""
    members: dict[str, Any] = {
        "verifier": "sidecar-1", "incarnation": "i", "count": 1, "at": at, "keys": (1, 7), "revocations": (1, 9),
        "state": "fresh",
    } | changes  # fmt: skip
    return Report(**members)


def well(**changes: Any) -> Facts:
    """Return the facts of a system where all is well, with these changed."""
    ours = world()
    now, member = ours.clock.now(), ours.member()
    changes_of_key = ours.first_key()
    keys = KeySet().after(changes_of_key, at=now, place=(1, 1))
    facts = Facts(
        now=now, freshness=member.replica.freshness, users={"keyservice": UserFacts()}, server=SOUND, durable=True,
        trust=ours.trust(expires_at=now + 40 * 86_400), keys=keys, sealed=frozenset(key.kid for key in keys),
        lanes={
            KEYS: LaneFacts(top="1:7:x", top_place=(1, 7), held=(1, 7), said_at=now - 0.4),
            REVOCATIONS: LaneFacts(top="1:9:x", top_place=(1, 9), held=(1, 9), said_at=now - 0.9),
        },
        reports=[report(now - 1)], services={"keyservice": ServiceFacts(ready=True, detail="ready")},
    )  # fmt: skip
    return replace(facts, **changes)


def found(facts: Facts, check: str) -> Result:
    """Return the one finding of a check."""
    (result,) = [one for one in examine(facts) if one.check == check]
    return result


def test_where_all_is_well_every_question_is_ok() -> None:
    """Else the alarm would always ring."""
    results = examine(well())
    assert {one.level for one in results} == {Level.OK}, results
    assert not any(one.mend for one in results)
    assert len(results) == 13


def test_where_nothing_could_be_found_out_nothing_is_ok() -> None:
    """Silence is no health."""
    results = examine(Facts(now=1.0, freshness=well().freshness))
    assert {one.level for one in results} == {Level.UNKNOWN}
    assert {"store", "eviction", "durability", "trust document", "lane keys", "sealed keys", "verifiers"} <= {
        one.check for one in results
    }


NOW = world().clock.now()
KEYS_WELL, REVOCATIONS_WELL = (well().lanes[lane] for lane in Lane)


def lanes(**changes: Any) -> dict[Lane, LaneFacts]:
    """Return the lanes, with the keys lane changed."""
    return {KEYS: replace(KEYS_WELL, **changes), REVOCATIONS: REVOCATIONS_WELL}


@pytest.mark.parametrize(
    ("check", "level", "seen", "changes"),
    [
        ("store as worker", "fail", "WRONGPASS", {"users": {"worker": UserFacts(trouble="WRONGPASS")}}),
        ("access list of worker", "fail", "and may: write", {"users": {"worker": UserFacts(exceeds=("write",))}}),
        ("access list of worker", "fail", "may not: read", {"users": {"worker": UserFacts(lacks=("read",))}}),
        ("access list", "warn", "one user", {"separate_users": False}),
        ("eviction", "fail", "allkeys-lru", {"server": replace(SOUND, maxmemory_policy="allkeys-lru")}),
        ("durability", "fail", "redis.durable says", {"server": replace(SOUND, append_fsync="everysec")}),
        ("durability", "fail", "1 replicas", {"server": replace(SOUND, replicas=1, min_replicas_to_write=1)}),
        ("durability", "warn", "everysec", {"server": replace(SOUND, append_fsync="everysec"), "durable": False}),
        ("durability", "warn", "write 0", {"server": replace(SOUND, replicas=2), "durable": False}),
        ("trust document", "fail", "another root", {"trust": None, "trust_trouble": "by another root"}),
        ("trust document", "fail", "HAS EXPIRED", {"now": NOW + 41 * 86_400}),
        ("trust document", "warn", "expires 2027", {"now": NOW + 11 * 86_400}),
        ("feed format", "fail", "write 9, this version reads", {"trust": world().trust(feed_format=9)}),
        ("lane keys", "fail", "never began", {"lanes": lanes(top=None)}),
        ("lane keys", "fail", "no position: rubbish?", {"lanes": lanes(top="rubbish\x1b", top_place=None)}),
        ("lane keys", "fail", "no snapshot", {"lanes": lanes(held=(0, 0))}),
        ("lane keys", "fail", "to 1:3 and not to 1:7: forged", {"lanes": lanes(held=(1, 3), complaints=("forged",))}),
        ("lane keys", "fail", "not to 2:0", {"lanes": lanes(top_place=(2, 0))}),
        ("lane keys", "warn", "forged", {"lanes": lanes(complaints=("forged",))}),
        ("clock and lane keys", "fail", "3.0 s ahead of this clock", {"lanes": lanes(said_at=NOW + 3)}),
        ("clock and lane keys", "warn", "8.0 s old", {"lanes": lanes(said_at=NOW - 8)}),
        ("clock and lane keys", "fail", "901.0 s old", {"lanes": lanes(said_at=NOW - 901)}),
        ("clock and lane keys", "unknown", "believed", {"lanes": lanes(said_at=None)}),
        ("sealed keys", "fail", "no sealed record", {"sealed": frozenset()}),
        ("sealed keys", "fail", "no key is active", {"keys": KeySet()}),
        ("verifiers", "fail", "sidecar-1 is stale", {"reports": [report(NOW, state="stale")]}),
        ("verifiers", "fail", "sidecar-1 lags", {"reports": [report(NOW, revocations=(1, 8))]}),
        ("verifiers", "warn", "0 live of 1", {"reports": [report(NOW, goodbye=True)]}),
        ("verifiers", "warn", "0 live of 1", {"reports": [report(NOW - 903)]}),
        ("archive", "fail", "damaged", {"archive": ArchiveFacts(directory="/a", trouble="damaged")}),
        ("keyservice", "fail", "not ready: no", {"services": {"keyservice": ServiceFacts(ready=False, detail="no")}}),
        ("keyservice", "fail", "refused", {"services": {"keyservice": ServiceFacts(ready=None, detail="refused")}}),
    ],
)  # fmt: skip
def test_each_question_notices_what_it_is_there_for(check: str, level: str, seen: str, changes: dict[str, Any]) -> None:
    """And names a mend wherever it is not ok."""
    result = found(well(**changes), check)
    assert (result.level, bool(result.mend)) == (level, True), result
    assert seen in result.seen


def test_an_archive_is_looked_into_where_one_is_kept(tmp_path: Path) -> None:
    """A damaged segment stops the archiving long before anybody wants to read it."""
    assert "archive" not in {one.check for one in examine(well())}
    assert look_into(tmp_path / "missing").trouble is not None
    line = render_line(KEYS, epoch=1, sequence=9, event=b"a.b.c")
    (tmp_path / "keys-1-1-9.ndjson").write_bytes(line)
    result = found(well(archive=look_into(tmp_path)), "archive")
    assert (result.level, result.seen) == ("ok", f"1 segments in {tmp_path}, up to keys 1:9")
    (tmp_path / "keys-1-10-12.ndjson").write_bytes(line)
    result = found(well(archive=look_into(tmp_path)), "archive")
    assert result.level == "fail"
    assert "keys-1-10-12.ndjson is damaged" in result.seen


def test_a_clock_within_the_skew_is_well() -> None:
    """S is forgiven, in both directions of time."""
    for said_at in (NOW + 1.9, NOW - 4.9):
        assert found(well(lanes=lanes(said_at=said_at)), "clock and lane keys").level == "ok"


def test_what_the_store_says_cannot_steer_a_terminal() -> None:
    """Somebody else may have written it."""
    for result in examine(well(lanes=lanes(top="\x1b[2J", top_place=None, complaints=("\x1b[31m",)))):
        assert "\x1b" not in result.seen
