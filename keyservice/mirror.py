"""Snapshots over HTTP for followers that begin: signed, or named by their hash, so that nobody asks who reads them."""

from collections import OrderedDict

from aiohttp import web

from keyservice.description import CHUNK, CHUNK_TYPE, LONGEST_DIGEST, SNAPSHOT, SNAPSHOT_TYPE
from keyturn.clock import Clock
from keyturn.contract.encoding import digest
from keyturn.contract.positions import Lane
from keyturn.feed.log import Feed
from serving.problems import NotFound, Style
from serving.routing import add_route

SNAPSHOT_SECONDS = 5  # As long as a cache between may keep the newest one.
CHUNK_SECONDS = 86_400  # A chunk never changes under its name.
LOOK_SECONDS = 1.0  # The store is asked for a snapshot at most so often.
MOST_CHUNKS_KEPT = 128  # At most 32 MiB: a million revocations, so that a fleet that begins reads each once.


class SnapshotRoutes:
    """`GET /feed/{lane}/snapshot` and `GET /feed/{lane}/chunks/{digest}`, as they stand in the store."""

    def __init__(self, feed: Feed, clock: Clock) -> None:
        self._feed, self._clock = feed, clock
        self._newest: dict[Lane, tuple[float, bytes | None]] = {}
        self._chunks: OrderedDict[str, bytes] = OrderedDict()

    def add_routes(self, app: web.Application) -> None:
        """Serve both."""
        for path, handler, operation in (
            ("/feed/{lane}/snapshot", self.snapshot, SNAPSHOT),
            ("/feed/{lane}/chunks/{digest}", self.chunk, CHUNK),
        ):
            add_route(app, "GET", path, handler, style=Style.PROBLEM, operation=operation)

    async def snapshot(self, request: web.Request) -> web.Response:
        """Answer the snapshot, with an entity tag."""
        lane, now = _lane(request), self._clock.boottime()
        read_at, compact = self._newest.get(lane, (float("-inf"), None))
        if now - read_at >= LOOK_SECONDS:  # Anybody may ask: as often as he likes, but us and not the store.
            compact = await self._feed.snapshot(lane)
            self._newest[lane] = (now, compact)
        if compact is None:
            raise NotFound("the store has no snapshot of that lane")
        tag = f'"{digest(compact)}"'
        headers = {"ETag": tag, "Cache-Control": f"public, max-age={SNAPSHOT_SECONDS}"}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=compact, content_type=SNAPSHOT_TYPE, headers=headers)

    async def chunk(self, request: web.Request) -> web.Response:
        """Answer a chunk, if the store holds what its name says."""
        lane, name = _lane(request), request.match_info["digest"]
        raw = self._chunks.get(name)
        if raw is None and len(name) <= LONGEST_DIGEST:
            raw = (await self._feed.chunks(lane, [name])).get(name)
        if raw is None or digest(raw) != name:
            raise NotFound("the store has no such chunk")
        self._chunks[name] = raw
        if len(self._chunks) > MOST_CHUNKS_KEPT:
            self._chunks.popitem(last=False)
        headers = {"Cache-Control": f"public, max-age={CHUNK_SECONDS}, immutable"}
        return web.Response(body=raw, content_type=CHUNK_TYPE, headers=headers)


def _lane(request: web.Request) -> Lane:
    try:
        return Lane(request.match_info["lane"])
    except ValueError:
        raise NotFound("the lanes are keys and revocations") from None
