"""What names a grant is kept for as long as any grant may live, whatever settings said before or say elsewhere."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from keyturn.contract.errors import StoreUnavailable
from keyturn.process.grants import LONGEST_GRANT_SECONDS, GrantSettings
from revocation.keeping import Keeping
from revocation.promising import KEPT_LONGER, Promising
from serving.promises import Promise, Promises
from tests.building import FickleRedis, Standing, standing
from tests.revocation.conftest import Office, office_on

OWN_SECONDS = 86_400.0


class Replica:
    """One replica of the service, with a setting of its own."""

    def __init__(self, stage: Standing, seconds: float) -> None:
        self.keeping = Keeping(
            longest_token_seconds=300, grant_seconds=LONGEST_GRANT_SECONDS, skew_seconds=2, leeway_seconds=60
        )
        self.promises = Promises(stage.redis, stage.record_keys)
        self.promising = Promising(self.promises, self.keeping, stage.parts, own_seconds=seconds)


async def test_all_replicas_keep_by_the_longest_setting(capsys: pytest.CaptureFixture[str]) -> None:
    """Grants go by the one word that stands in the store: whoever revokes has to keep to it."""
    async with standing(FickleRedis()) as stage:
        await stage.redis.flushall()
        short, long = Replica(stage, OWN_SECONDS), Replica(stage, 2 * OWN_SECONDS)
        assert short.promising.unready() is not None
        assert short.keeping.grant_seconds == LONGEST_GRANT_SECONDS, "before it knows, it forgets nothing"
        await short.promising.look()
        assert (short.keeping.grant_seconds, short.promising.unready()) == (OWN_SECONDS, None)
        await long.promising.look()
        for _ in range(2):
            await short.promising.look()
            assert short.keeping.grant_seconds == long.keeping.grant_seconds == 2 * OWN_SECONDS
        assert capsys.readouterr().out.count(KEPT_LONGER) == 1, "told once"
        promise = await short.promises.read()
        assert promise is not None
        assert promise.seconds == 2 * OWN_SECONDS


async def test_a_longer_word_is_kept_to_for_as_long_as_grants_went_by_it() -> None:
    """`grants.life` was shortened: what it was yesterday still counts for yesterday's grants."""
    async with standing(FickleRedis()) as stage:
        one, now = Replica(stage, OWN_SECONDS), stage.parts.now()
        for ago_seconds, kept in ((0.0, 3), (3 * OWN_SECONDS - 60, 3), (3 * OWN_SECONDS + 1, 1)):
            before = Promise(iss=stage.parts.issuer, seconds=3 * OWN_SECONDS, at=now - ago_seconds)
            await one.promises.write(before)
            await one.promising.look()
            assert one.keeping.grant_seconds == kept * OWN_SECONDS
            stated = await one.promises.read()
            assert stated is not None
            assert (stated == before) is (kept == 3), "that it was said is no younger than it was"


async def test_without_the_store_what_was_said_stands() -> None:
    """It is neither shortened nor forgotten; and it is said anew to a store that was emptied."""
    store = FickleRedis()
    async with standing(store) as stage:
        await store.flushall()
        one = Replica(stage, OWN_SECONDS)
        store.away = True
        with pytest.raises(StoreUnavailable):
            await one.promising.look()
        assert one.keeping.grant_seconds == LONGEST_GRANT_SECONDS
        assert one.promising.unready() is not None
        store.away = False
        await one.promising.look()
        await store.flushall()
        await one.promising.look()
        stated = await one.promises.read()
        assert stated is not None
        assert stated.seconds == OWN_SECONDS


async def test_the_service_gives_its_word_before_it_is_ready(office: Office) -> None:
    """Who waits for `/readyz` can sign users in."""
    stated = await Promises(office.stage.redis, office.stage.record_keys).read()
    assert stated is not None
    assert (stated.iss, stated.seconds) == (office.stage.world.issuer, GrantSettings().life)


async def test_a_service_whose_life_of_grants_was_shortened_keeps_by_the_one_before(
    valkey: Redis, valkey_url: str, tmp_path: Path
) -> None:
    """The whole way: from the word in the store to until when an entry of the lane is kept."""
    async with office_on(valkey, valkey_url, tmp_path, KEYTURN_GRANTS__LIFE="1d") as office:
        promises = Promises(office.stage.redis, office.stage.record_keys)
        now = office.stage.parts.now()
        await promises.write(Promise(iss=office.stage.world.issuer, seconds=10 * OWN_SECONDS, at=now))
        await office.service._promising.look()
        status, told = await office.admin("POST", "/revocations", {"selector": {"sub": "alice"}, "dry_run": True})
        assert status == 200
        assert told["until"] >= now + 10 * OWN_SECONDS
