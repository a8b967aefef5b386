"""Snapshots over HTTP for followers that begin: signed, or named by their hash, so that nobody asks who reads them."""

from aiohttp import web

from keyturn.contract.encoding import digest
from keyturn.contract.positions import Lane
from keyturn.feed.log import Feed
from serving.problems import NotFound, Style
from serving.routing import add_route

SNAPSHOT_SECONDS = 5  # As long as a cache between may keep the newest one.
CHUNK_SECONDS = 86_400  # A chunk never changes under its name.
_LONGEST_DIGEST = 64


class SnapshotRoutes:
    """`GET /feed/{lane}/snapshot` and `GET /feed/{lane}/chunks/{digest}`, as they stand in the store."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def add_routes(self, app: web.Application) -> None:
        """Serve both."""
        for path, handler, summary in (
            ("/feed/{lane}/snapshot", self.snapshot, "The newest signed snapshot of a lane"),
            ("/feed/{lane}/chunks/{digest}", self.chunk, "A chunk that a snapshot names"),
        ):
            add_route(app, "GET", path, handler, style=Style.PROBLEM, operation={"summary": summary})

    async def snapshot(self, request: web.Request) -> web.Response:
        """Answer the snapshot, with an entity tag."""
        compact = await self._feed.snapshot(_lane(request))
        if compact is None:
            raise NotFound("the store has no snapshot of that lane")
        tag = f'"{digest(compact)}"'
        headers = {"ETag": tag, "Cache-Control": f"public, max-age={SNAPSHOT_SECONDS}"}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return web.Response(body=compact, content_type="application/jose", headers=headers)

    async def chunk(self, request: web.Request) -> web.Response:
        """Answer a chunk, if the store holds what its name says."""
        lane, name = _lane(request), request.match_info["digest"]
        raw = (await self._feed.chunks(lane, [name])).get(name) if len(name) <= _LONGEST_DIGEST else None
        if raw is None or digest(raw) != name:
            raise NotFound("the store has no such chunk")
        headers = {"Cache-Control": f"public, max-age={CHUNK_SECONDS}, immutable"}
        return web.Response(body=raw, content_type="application/octet-stream", headers=headers)


def _lane(request: web.Request) -> Lane:
    try:
        return Lane(request.match_info["lane"])
    except ValueError:
        raise NotFound("the lanes are keys and revocations") from None
