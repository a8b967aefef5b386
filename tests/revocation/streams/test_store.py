"""What a stream keeps in the store: whose turn it is, and no more dead letters than there is room for."""

import pytest

from revocation.streams import store as storing
from revocation.streams.store import StreamStore
from tests.building import FickleRedis


async def test_a_turn_is_one_replicas_until_it_leaves_or_is_silent() -> None:
    """RFC 8935, 2: two that push at once would tell out of order, and twice; one that died must not keep its turn."""
    redis = FickleRedis()
    store = StreamStore(redis, "one")
    assert await store.take_turn("a", lasting_seconds=30.0)
    assert await store.take_turn("a", lasting_seconds=30.0)
    assert 0 < await redis.pttl("keyturn:streams:one:turn") <= 30_000
    await store.leave_turn("b")
    assert not await store.take_turn("b", lasting_seconds=30.0)
    await store.leave_turn("a")
    assert await store.take_turn("b", lasting_seconds=30.0)
    assert await StreamStore(redis, "two").take_turn("a", lasting_seconds=30.0), "another stream's is its own"


async def test_the_newest_letters_are_kept_and_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checklist, every endpoint: a receiver that refuses all must not fill the store."""
    monkeypatch.setattr(storing, "MOST_DEAD_LETTERS", 3)
    redis = FickleRedis()
    store = StreamStore(redis, "one")
    for number in range(5):
        held = await store.progress()
        assert await store.settle(held, str(number).encode(), [{"jti": str(number)}])
    assert await store.count_letters() == 3
    assert [letter["jti"] for _, letter in await store.raw_letters()] == ["4", "3", "2"]
    for number in range(5, 8):
        assert await store.settle_again(await store.again(), str(number).encode(), [{"jti": str(number)}])
    assert [letter["jti"] for _, letter in await store.raw_letters()] == ["7", "6", "5"]
    await redis.execute_command("RPUSH", "keyturn:streams:one:dead", *([b"{}"] * 9))
    assert len(await store.raw_letters()) == 3, (
        "whoever can write the store must not have us read all that he puts there"
    )


async def test_nothing_is_kept_over_what_another_replica_has_kept() -> None:
    """What one has told the other would tell again, or pass over; a letter without its progress would lie."""
    store = StreamStore(FickleRedis(), "one")
    assert await store.settle(b"", b"one")
    assert not await store.settle(b"", b"two", [{"jti": "1"}])
    assert not await store.settle_again(b"x", b"two", [{"jti": "1"}])
    assert not await store.send_again(b"x", b"two", [])
    assert (await store.progress(), await store.again(), await store.count_letters()) == (b"one", b"", 0)
