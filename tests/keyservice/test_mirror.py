"""Snapshots over HTTP: a follower begins there, and whatever is wrong with the mirror costs it nothing but a moment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from aiohttp import web

from keyservice.mirror import SnapshotRoutes
from keyturn.clock import SystemClock
from keyturn.contract.encoding import digest
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.contract.snapshots import Chunks, pack
from keyturn.feed.memory import MemoryFeed
from keyturn.process.feeding import FeedSettings
from keyturn.process.logging import logger
from keyturn.verifier.mirror import HttpSnapshots
from serving.application import make_application
from serving.listening import listening
from tests.clocks import HastyClock
from tests.world import Member, World

KEYS, REVOCATIONS = Lane


class CountingFeed(MemoryFeed):
    """Memory that counts who reads snapshots of it."""

    def __init__(self) -> None:
        super().__init__()
        self.snapshots_read = self.chunks_read = 0

    async def snapshot(self, lane: Lane) -> bytes | None:
        """Return the snapshot, and count."""
        self.snapshots_read += 1
        return await super().snapshot(lane)

    async def chunks(self, lane: Lane, digests: object) -> dict[str, bytes]:
        """Return chunks, and count."""
        self.chunks_read += 1
        return await super().chunks(lane, digests)  # type: ignore[arg-type]


@pytest.fixture
async def world() -> World:
    """Return a world with a snapshot in which tokens are revoked."""
    world = await World(feed=CountingFeed(), clock=HastyClock()).begin()
    member = await world.caught_up()
    publisher = world.publisher(REVOCATIONS, member)
    await publisher.append([world.entry(SelectorKind.JTI, name) for name in ("a", "b")])
    assert await publisher.open_epoch(2, after=str(member.replica.position(REVOCATIONS)))
    return world


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[str]:
    """Serve it on a free port of loopback."""
    async with listening(app, "127.0.0.1:0") as address:
        yield f"http://{address}"


def mirror_of(feed: MemoryFeed) -> web.Application:
    """Return a mirror of a feed."""
    app = make_application(logger("tests"), clock=SystemClock())
    SnapshotRoutes(feed, SystemClock()).add_routes(app)
    return app


async def begun(world: World, url: str) -> Member:
    """Return a follower that has begun, with a mirror there."""
    member = world.member()

    def note(event: str, **facts: object) -> None:
        member.noted.append((event, facts))

    member.follower.mirrors.append(HttpSnapshots(url, world.clock, note=note))
    assert isinstance(world.feed, CountingFeed)
    world.feed.snapshots_read = world.feed.chunks_read = 0
    await member.follower._read_all()
    return member


def knows_all(world: World, member: Member) -> bool:
    """Say whether a follower stands where the world does, with its revocations."""
    named = [member.replica.names(world.claims(jti=name)) for name in ("a", "b")]
    return member.replica.place(REVOCATIONS) == (2, 0) and all(member.replica.revokes(one) for one in named)


async def test_a_follower_begins_without_reading_a_snapshot_of_the_store(world: World) -> None:
    """A thousand sidecars that start at once read a cache, and the store sees a thousand small reads."""
    assert isinstance(world.feed, CountingFeed)
    mirror = MemoryFeed()
    mirror._chains = world.feed._chains
    async with served(mirror_of(mirror)) as url:
        member = await begun(world, url)
    assert knows_all(world, member)
    assert (world.feed.snapshots_read, world.feed.chunks_read) == (0, 0)


@pytest.mark.parametrize(
    "fault", ["nobody there", "404", "garbage", "of another root", "endless", "lacks chunks", "old"]
)
async def test_a_mirror_that_fails_lags_or_lies_costs_a_moment(world: World, fault: str) -> None:
    """What it says is checked like the store's word; what it does not have, the store has."""
    stranger = World(hash_key=world.hash_key)
    index = (await world.caught_up()).replica.indexes
    other = stranger.genesis(REVOCATIONS, epoch=9, sections=pack(index).sections)
    good = await world.feed.snapshot(REVOCATIONS)
    assert good is not None
    answers: dict[str, bytes | None] = {
        "404": None, "garbage": b"a.b.c", "of another root": other.compact, "endless": b"x" * (17 * 1024 * 1024),
        "lacks chunks": good, "old": world.genesis(REVOCATIONS).compact, "nobody there": None,
    }  # fmt: skip

    async def snapshot(_: web.Request) -> web.Response:
        body = answers[fault]
        return web.Response(status=404) if body is None else web.Response(body=body)

    app = web.Application()
    app.router.add_get("/feed/revocations/snapshot", snapshot)
    async with served(app) as url:
        member = await begun(world, "http://127.0.0.1:1" if fault == "nobody there" else url)
    assert knows_all(world, member)
    if fault == "nobody there":
        assert "snapshot_mirror_failed" in member.events()


async def test_what_is_served_can_be_cached_and_is_what_its_name_says(world: World) -> None:
    """A cache between must not keep an old snapshot for long, and may keep a chunk for ever."""
    feed = world.feed
    assert isinstance(feed, CountingFeed)
    async with served(mirror_of(feed)) as url, httpx2.AsyncClient(base_url=url) as client:
        told = await client.get("/feed/revocations/snapshot")
        assert told.content == await feed.snapshot(REVOCATIONS)
        assert told.headers["Cache-Control"] == "public, max-age=5"
        again = await client.get("/feed/revocations/snapshot", headers={"If-None-Match": told.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
        chunks: Chunks = pack((await world.caught_up()).replica.indexes).chunks
        for name, raw in chunks.items():
            chunk = await client.get(f"/feed/revocations/chunks/{name}")
            assert (chunk.content, chunk.headers["Cache-Control"]) == (raw, "public, max-age=86400, immutable")
        for path in (
            "/feed/others/snapshot", "/feed/revocations/chunks/x", f"/feed/revocations/chunks/{'x' * 200}",
            f"/feed/keys/chunks/{digest(b'nothing')}",
        ):  # fmt: skip
            assert (await client.get(path)).status_code == 404


async def test_a_flood_of_requests_is_not_passed_on_to_the_store(world: World) -> None:
    """These routes are open to everybody, and a chunk has a quarter of a megabyte."""
    feed = world.feed
    assert isinstance(feed, CountingFeed)
    name = next(iter(pack((await world.caught_up()).replica.indexes).chunks))
    async with served(mirror_of(feed)) as url, httpx2.AsyncClient(base_url=url) as client:
        feed.snapshots_read = feed.chunks_read = 0
        for _ in range(20):
            assert (await client.get("/feed/revocations/snapshot")).status_code == 200
            assert (await client.get(f"/feed/revocations/chunks/{name}")).status_code == 200
    assert feed.snapshots_read <= 3, "once a second"
    assert feed.chunks_read == 1


class Racing(HastyClock):
    """A clock on which a second passes with each look."""

    def boottime(self) -> float:
        """Return a later moment than before."""
        self.advance(1.0)
        return super().boottime()


async def test_a_mirror_that_drips_is_left_for_the_store() -> None:
    """Each drop comes in time; all of them would take a day, and an API would answer 503 all the while."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(10_000):
            await response.write(b"x")
        return response

    app, noted = web.Application(), list[str]()
    app.router.add_get("/feed/revocations/snapshot", drip)
    async with served(app) as url:
        mirror = HttpSnapshots(url, Racing(), note=lambda event, **_: noted.append(event))
        assert await mirror.snapshot(REVOCATIONS) is None
        assert await mirror.chunks(REVOCATIONS, ["a", "b"]) == {}, "its time is over"
    assert noted == []


@pytest.mark.parametrize("url", ["ftp://a.example", "http://a.example", "https://", "https://a.example/", "nonsense",
                                 "https://a.example/?x", "https://a:b:c"])  # fmt: skip
def test_an_origin_that_cannot_be_one_is_refused_at_start(url: str) -> None:
    """House rule 7."""
    with pytest.raises(ConfigurationError, match=r"feed\.snapshots"):
        FeedSettings(snapshots=url)
    assert FeedSettings(snapshots="http://127.0.0.1:8402").snapshots
    assert FeedSettings(snapshots="https://auth.example/tenant").snapshots
