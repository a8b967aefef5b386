"""Dry runs: what a revocation would end, counted within limits, and nothing said that was not looked at."""

import asyncio
from typing import Any

import pytest

from keyturn import entropy
from keyturn.contract.errors import StoreUnavailable
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from revocation import survey as limits
from revocation.keeping import Keeping
from revocation.survey import Survey
from serving.families import Families, Family, mark_of
from serving.problems import Busy
from serving.records import RecordStore
from tests.building import FickleRedis, new_access_token, new_record_keys
from tests.clocks import ManualClock
from tests.families import LIFE_SECONDS, new_refresh_token
from tests.revocation.conftest import Office
from tests.world import Member, World

KEEPING = Keeping(longest_token_seconds=300, grant_seconds=LIFE_SECONDS, skew_seconds=2, leeway_seconds=60)
NOTHING: dict[str, Any] = {"grants": 0, "records": 0, "scanned": 0, "complete": True}


class Archive:
    """A survey over records in memory, in a world where one can also revoke."""

    def __init__(self, world: World, member: Member) -> None:
        self.world, self.member, self.redis = world, member, FickleRedis()
        keys = new_record_keys()
        self.records, self.families = RecordStore(self.redis, keys, world.clock), Families(self.redis, keys)
        self.survey = Survey(self.records, self.families, member.replica, world.clock, keeping=KEEPING)

    async def keep(self, count: int = 1, **claims: Any) -> None:
        """Keep records with these claims, each a token of its own."""
        for _ in range(count):
            record = self.world.claims(**claims)
            await self.records.put(new_access_token(), record, expires_at=self.world.clock.now() + 3600)

    def entry(self, kind: SelectorKind, value: str = "", *, before: float | None = None) -> Entry:
        """Return a revocation that might be."""
        return self.world.entry(kind, value, before=before)


@pytest.fixture
async def archive() -> Archive:
    """Begin a world with two sign-ins of alice and one of bob."""
    world = await World(clock=ManualClock()).begin()
    archive = Archive(world, await world.caught_up())
    now = world.clock.now()
    laptop, phone = entropy.uuid7(now - 100), entropy.uuid7(now - 10)
    await archive.keep(3, grant_id=laptop, sid="s-1")
    await archive.keep(1, grant_id=phone, client_id="app")
    await archive.keep(1, sub="bob", grant_id=entropy.uuid7(now - 50))
    return archive


async def test_grants_and_records_are_counted_as_a_verifier_would_find_them(archive: Archive) -> None:
    """The number is what an operator decides by: one that is wrong either way is worse than none."""
    now = archive.world.clock.now()
    expected = {
        archive.entry(SelectorKind.SUBJECT, "alice", before=now): (2, 4),
        archive.entry(SelectorKind.SUBJECT, "alice", before=now - 60): (1, 3),
        archive.entry(SelectorKind.SUBJECT, "carol", before=now): (0, 0),
        archive.entry(SelectorKind.CLIENT, "app", before=now): (1, 1),
        archive.entry(SelectorKind.SESSION, "s-1"): (1, 3),
        archive.entry(SelectorKind.AUDIENCE, "https://api.example", before=now): (3, 5),
        archive.entry(SelectorKind.ALL, before=now - 30): (2, 4),
    }
    for entry, (grants, records) in expected.items():
        assert await archive.survey.count(entry) == (grants, records, 5, True), entry
    foreign = Selector(iss="https://other.example", kind=SelectorKind.SUBJECT, value="alice", before=now)
    assert (await archive.survey.count(Entry(selector=foreign, until=now + 1))).records == 0


async def test_a_grant_counts_once_and_of_its_refresh_tokens_the_good_one(archive: Archive) -> None:
    """An operator counts people who will have to sign in again, not how often their tokens have turned."""
    now, keep = archive.world.clock.now(), archive.families.begin
    grant = entropy.uuid7(now - 100)
    await archive.keep(2, sub="carol", grant_id=grant)

    async def family(**changes: Any) -> None:
        token = new_refresh_token()
        claims = archive.world.claims(sub="carol", **changes.pop("claims", {}))
        made = {"ends_at": now + 900, "made_at": now, "expires_at": now + 600} | changes
        await keep(token, Family(claims=claims, current=mark_of(token), **made), keep_seconds=2.0)

    await family(claims={"grant_id": grant}, previous=mark_of(new_refresh_token()))
    await family(claims={"grant_id": entropy.uuid7(now - 50)})
    await family(claims={"grant_id": entropy.uuid7(now - 50)}, ended=True)
    await family(claims={"grant_id": entropy.uuid7(now - 50)}, expires_at=now - 1)
    whole = archive.entry(SelectorKind.SUBJECT, "carol", before=now)
    assert await archive.survey.count(whole) == (2, 4, 11, True)
    assert await archive.survey.count(archive.entry(SelectorKind.GRANT, grant)) == (1, 3, 11, True)


async def test_what_has_expired_or_is_revoked_already_is_not_live(archive: Archive) -> None:
    """It would not be ended by this revocation."""
    now = archive.world.clock.now()
    await archive.keep(1, exp=now - 10, grant_id=entropy.uuid7(now - 50))  # Named, and yet not live.
    whole = archive.entry(SelectorKind.SUBJECT, "alice", before=now)
    assert await archive.survey.count(whole) == (2, 4, 6, True)
    publisher = archive.world.publisher(Lane.REVOCATIONS, archive.member)
    await publisher.append([archive.entry(SelectorKind.SESSION, "s-1")])
    assert await archive.survey.count(whole) == (1, 1, 6, True)
    archive.world.clock.set_wall(now - 3600)  # type: ignore[attr-defined]
    assert await archive.survey.count(whole) == (1, 1, 6, True), "a clock that was set back brings nothing back to life"


async def test_a_count_that_reaches_its_limits_says_that_it_is_not_complete(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least so many must not look like exactly so many."""
    entry = archive.entry(SelectorKind.ALL, before=archive.world.clock.now())
    monkeypatch.setattr(limits, "MOST_RECORDS", 1)
    monkeypatch.setattr("serving.storing._LISTED_TOGETHER", 2)
    count = await archive.survey.count(entry)
    assert (count.complete, 1 <= count.scanned < 5, count.records == count.scanned) == (False, True, True)
    monkeypatch.setattr(limits, "MOST_RECORDS", 1_000)
    page = archive.records.page

    async def slow(cursor: int) -> Any:
        archive.world.clock.advance(limits.LONGEST_SECONDS)  # type: ignore[attr-defined]
        return await page(cursor)

    monkeypatch.setattr(archive.records, "page", slow)
    assert not (await archive.survey.count(entry)).complete


async def test_a_record_that_comes_twice_counts_once(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that grows meanwhile may name one again; and a record that is of no grant is one by itself."""
    entry = archive.entry(SelectorKind.SUBJECT, "alice", before=archive.world.clock.now())
    page = archive.records.page

    async def again(cursor: int) -> Any:
        _, names, rows = await page(0)
        return 0 if cursor else 1, names, [(name, {**claims, "grant_id": None}) for name, claims in rows]

    monkeypatch.setattr(archive.records, "page", again)
    assert await archive.survey.count(entry) == (1, 4, 10, True)

    async def without(_cursor: int) -> Any:
        _, names, rows = await page(0)
        for _, claims in rows:
            del claims["grant_id"]
        return 0, names, rows

    monkeypatch.setattr(archive.records, "page", without)
    assert await archive.survey.count(entry) == (4, 4, 5, True)


async def test_one_count_at_a_time(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs the store seconds of work; a hundred at once would cost everybody else theirs."""
    gate, page = asyncio.Event(), archive.records.page

    async def gated(cursor: int) -> Any:
        await gate.wait()
        return await page(cursor)

    monkeypatch.setattr(archive.records, "page", gated)
    entry = archive.entry(SelectorKind.ALL, before=archive.world.clock.now())
    first = asyncio.create_task(archive.survey.count(entry))
    await asyncio.wait([first], timeout=0)
    with pytest.raises(Busy):
        await archive.survey.count(entry)
    gate.set()
    assert (await first).complete


async def test_what_somebody_else_put_among_the_records_is_passed_over(archive: Archive) -> None:
    """Rubbish under our prefix, of whatever type, must not make the count fail, nor count."""
    await archive.redis.set("keyturn:record:rubbish", b"x" * 40)
    await archive.redis.execute_command("LPUSH", "keyturn:record:list", b"x")
    await archive.redis.set(b"keyturn:record:\xff\xfe", b"")
    await archive.redis.set("another:key", b"x")
    entry = archive.entry(SelectorKind.ALL, before=archive.world.clock.now())
    assert await archive.survey.count(entry) == (3, 5, 8, True)


async def test_a_store_that_is_away_is_no_zero(archive: Archive) -> None:
    """Nothing found is not the same as nothing looked at."""
    archive.redis.away = True
    with pytest.raises(StoreUnavailable):
        await archive.survey.count(archive.entry(SelectorKind.SESSION, "s-1"))


async def test_a_dry_run_revokes_nothing_and_counts(office: Office) -> None:
    """An operator looks before leaping; of two opaque tokens of one sign-in the grant is one."""
    grant = entropy.uuid7(office.stage.world.clock.now() - 1)
    tokens = [await office.opaque(sub="eve", grant_id=grant) for _ in range(2)]
    status, told = await office.admin("POST", "/revocations", {"selector": {"sub": "eve"}, "dry_run": True})
    assert (status, told["grants"], told["records"], told["complete"]) == (200, 1, 2, True)
    assert told["scanned"] >= 3, "the operator's own token is a record, too"
    assert office.position == (1, 0)
    assert await office.records.get(tokens[0]) is not None
