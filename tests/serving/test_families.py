"""Families of refresh tokens in the store: found by any of their tokens, under any of the peppers, replaced by one."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from keyturn import entropy
from keyturn.contract.encoding import b64url
from keyturn.contract.errors import StoreUnavailable
from keyturn.contract.positions import Lane, Position
from keyturn.feed.redis import head_key
from serving.families import PREFIX, Families, Family, Held, Swap, mark_of, successor_of
from serving.records import RecordKeys
from tests.building import FickleRedis, new_record_keys
from tests.clocks import START
from tests.families import new_refresh_token

PLACE = Position(1, 7, "hash")


@pytest.fixture
async def store() -> FickleRedis:
    """Return a store whose revocations lane stands somewhere."""
    redis = FickleRedis()
    await redis.execute_command("HSET", head_key(Lane.REVOCATIONS), "position", str(PLACE))
    return redis


def family_of(token: str, **changes: Any) -> Family:
    """Return a family with this token as its good one."""
    made: Mapping[str, Any] = {
        "claims": {"sub": "alice"}, "ends_at": START + 9e8, "current": mark_of(token), "made_at": START,
        "expires_at": START + 9e8,
    }  # fmt: skip
    return Family(**{**made, **changes})


async def held(families: Families, token: str) -> Held | None:
    """Return a token's family."""
    return (await families.read(token)).held


async def swap(families: Families, one: Held, family: Family, *, at: Position | None = PLACE) -> Swap:
    """Replace a family."""
    return (await families.swap(one, family, judged_at=at, keep_seconds=2.0))[0]


async def test_every_token_of_a_family_finds_it_and_no_other_does(store: FickleRedis) -> None:
    """A used token must name its family, however old it is; the checksum is of each token's own."""
    families, token = Families(store, new_record_keys()), new_refresh_token()
    await families.begin(token, family_of(token), keep_seconds=2.0)
    successor = successor_of(token, b64url(entropy.token_bytes(32)))
    for one in (token, successor):
        found = await held(families, one)
        assert found is not None
        assert found.family == family_of(token)
    assert await held(families, new_refresh_token()) is None
    with pytest.raises(StoreUnavailable):  # One that stands there is never written over.
        await families.begin(token, family_of(token), keep_seconds=2.0)


async def test_one_of_many_replaces_it_and_only_where_the_lane_stands_as_judged(store: FickleRedis) -> None:
    """Compared byte by byte inside the script: between reading and writing nothing may have happened."""
    families, token = Families(store, new_record_keys()), new_refresh_token()
    await families.begin(token, family_of(token), keep_seconds=2.0)
    one = await held(families, token)
    assert one is not None
    assert await swap(families, one, one.family, at=Position(1, 6, "hash")) is Swap.BEHIND
    assert await swap(families, one, one.family, at=Position(1, 7, "fork")) is Swap.BEHIND
    assert await swap(families, one, one.family, at=None) is Swap.BEHIND
    outcomes = await asyncio.gather(*(swap(families, one, one.family) for _ in range(8)))
    assert sorted(outcomes) == [Swap.CHANGED] * 7 + [Swap.DONE]
    assert await swap(families, one, one.family) is Swap.CHANGED  # The same content, in another box.
    await store.delete(one.name)
    assert await swap(families, one, one.family) is Swap.CHANGED  # One that is gone does not come back.
    await store.delete(head_key(Lane.REVOCATIONS))
    outcome, positions = await families.swap(one, one.family, judged_at=PLACE, keep_seconds=2.0)
    assert (outcome, positions) == (Swap.BEHIND, {Lane.REVOCATIONS: b""})


async def test_a_new_pepper_and_a_new_seal_lose_no_family(store: FickleRedis) -> None:
    """`keyturn records rotate`: a family stays where it began, and its next box is sealed by the newest key."""
    old, token = new_record_keys(), new_refresh_token()
    await Families(store, old).begin(token, family_of(token), keep_seconds=2.0)
    fresh = new_record_keys()
    families = Families(store, RecordKeys("newer", fresh.seal, fresh.pepper, (old,)))
    one = await held(families, token)
    assert one is not None
    assert await swap(families, one, one.family) is Swap.DONE
    assert await held(Families(store, old), token) is None, "sealed by the newest"
    again = await held(families, token)
    assert again is not None
    assert again.name == one.name
    assert len(await store.keys(PREFIX + "*")) == 1
    assert await held(Families(store, fresh), token) is None, "the older pepper is needed to find it"


async def test_keys_that_another_process_has_taken_up_are_looked_for(store: FickleRedis) -> None:
    """Authorization may have begun the family by a pepper that introspection has not read yet."""
    newer, token = new_record_keys(), new_refresh_token()
    await Families(store, newer).begin(token, family_of(token), keep_seconds=2.0)
    waiting = [newer]
    families = Families(store, new_record_keys(), renew=lambda: waiting.pop() if waiting else None)
    assert await held(families, token) is not None


async def test_what_is_not_ours_is_passed_over_when_all_are_looked_at(store: FickleRedis) -> None:
    """A dry run must not end at what somebody else wrote, nor count it."""
    families, token = Families(store, new_record_keys()), new_refresh_token()
    await families.begin(token, family_of(token), keep_seconds=2.0)
    await store.set(PREFIX + "forged", b"box")
    await store.execute_command("HSET", PREFIX + "hash", "a", "b")
    page = await families.page(0)
    assert (page.following, page.names, [family for _, family in page.families]) == (0, 3, [family_of(token)])


async def test_a_store_that_is_away_cannot_say(store: FickleRedis) -> None:
    """Never "no such family"."""
    families, token = Families(store, new_record_keys()), new_refresh_token()
    one = Held(family_of(token), PREFIX + "x", b"box")
    store.away = True
    for asked in (
        families.read(token),
        families.begin(token, family_of(token), keep_seconds=2.0),
        families.page(0),
        families.swap(one, one.family, judged_at=PLACE, keep_seconds=2.0),
    ):
        with pytest.raises(StoreUnavailable):
            await asked
