"""The reference for an HTTP framework: an aiohttp application with one handler that does nothing but answer."""

import asyncio
import sys

import uvloop
from aiohttp import web


async def hello(request: web.Request) -> web.Response:  # noqa: ARG001 - aiohttp calls it so
    """Answer."""
    return web.Response(text="hello")


async def serve(port: int) -> None:
    """Serve on loopback until the process ends."""
    app = web.Application()
    app.router.add_get("/nginx/default", hello)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
