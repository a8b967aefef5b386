"""What every presence board promises, whatever it is kept in."""

import asyncio

import pytest

from keyturn.contract.errors import FeedUnavailable
from keyturn.feed.log import Listening
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.redis import PRESENCE, RedisFeed
from tests.feed.conftest import Store
from tests.feed.valkey import Valkey

VERIFIERS = ("sidecar-1", "sidecar-2", "never")


async def test_a_report_replaces_the_one_before_and_others_stay(store: Store) -> None:
    """One key for each verifier: presence never grows."""
    assert await store.feed.reports(VERIFIERS) == await store.feed.reports([]) == {}
    await store.feed.report("sidecar-1", b"first", ttl_seconds=60)
    await store.feed.report("sidecar-2", b"other", ttl_seconds=60)
    await store.feed.report("sidecar-1", b"second", ttl_seconds=60)
    assert await store.feed.reports(VERIFIERS) == {"sidecar-1": b"second", "sidecar-2": b"other"}


async def test_a_watcher_hears_that_it_listens_and_then_each_report(store: Store) -> None:
    """A receipt waits for these, so they come at once and in order."""
    async with store.feed.watch() as bell:
        assert await bell.next(5) == Listening()
        await store.feed.report("sidecar-1", b"first", ttl_seconds=60)
        await store.feed.report("sidecar-1", b"second", ttl_seconds=60)
        assert await bell.next(5) == ("sidecar-1", b"first")
        assert await bell.next(5) == ("sidecar-1", b"second")
        assert await bell.next(0.02) is None


@pytest.mark.parametrize("store", ["memory", "valkey"], indirect=True)
async def test_a_watcher_that_was_cut_off_is_told_so(store: Store) -> None:
    """Whoever believes to watch, and does not, believes a set of verifiers that is not the living one."""
    async with store.feed.watch() as bell:
        assert await bell.next(5) == Listening()
        await store.cut()
        with pytest.raises(FeedUnavailable):
            await bell.next(5)


@pytest.mark.parametrize("store", ["memory", "valkey"], indirect=True)
async def test_one_run_of_a_server_has_one_name(store: Store) -> None:
    """The presence set counts as complete only after it was watched on one run."""
    assert await store.feed.server_run() == await store.feed.server_run() != ""


async def test_a_restarted_server_has_another_name(own_valkey: Valkey) -> None:
    """It may have forgotten reports that it had accepted."""
    runs = []
    for _ in range(2):
        async with own_valkey.client() as client:
            runs.append(await RedisFeed(client, pubsub=client).server_run())
        own_valkey.stop()
        own_valkey.start()
    assert runs[0] != runs[1]


@pytest.mark.parametrize("store", ["fakeredis", "valkey"], indirect=True)
async def test_a_report_runs_out_by_itself(store: Store) -> None:
    """A verifier that is gone for good must not stay in the store for ever."""
    assert store.redis is not None
    await store.feed.report("sidecar-1", b"word", ttl_seconds=902)
    assert 901_000 < await store.redis.pttl(PRESENCE + "sidecar-1") <= 902_000


@pytest.mark.parametrize("store", ["fakeredis", "valkey"], indirect=True)
async def test_a_key_whose_name_is_not_text_does_not_stop_the_readers(store: Store) -> None:
    """Who can write to the store could otherwise end every rotation with one write."""
    assert store.redis is not None
    await store.redis.set(PRESENCE.encode() + b"\xff\xfe", b"word")
    await store.redis.hset(PRESENCE + "not-a-string", "a", "b")  # type: ignore[misc]
    await store.feed.report("sidecar-1", b"word", ttl_seconds=60)
    assert (await store.feed.reports(VERIFIERS))["sidecar-1"] == b"word"
    async with store.feed.watch() as bell:
        assert await bell.next(5) == Listening()
        await store.redis.publish(PRESENCE.encode() + b"\xff\xfe", b"word")
        told = await bell.next(5)
        assert isinstance(told, tuple)


async def test_a_slow_watcher_in_memory_is_cut_off_rather_than_fed_without_end() -> None:
    """A real server cuts it off, too; a simulation must show what follows from that."""
    feed = MemoryFeed()
    async with feed.watch() as bell:
        for _ in range(2000):
            await feed.report("sidecar-1", b"word", ttl_seconds=60)
        with pytest.raises(FeedUnavailable):
            await asyncio.wait_for(bell.next(5), 5)
