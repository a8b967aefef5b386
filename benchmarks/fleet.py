"""Fifty sidecars in one process on uvloop, each with a replica, a connection to the store and a listener of its own."""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from benchmarks.issuer import ISSUER
from keyturn.cli.provisioning import DEFAULT_AUDIENCE
from keyturn.clock import SystemClock
from keyturn.feed.redis import RedisFeed
from keyturn.process.following import connect_as
from keyturn.process.logging import configure_logging
from keyturn.process.pinned import read_root, statement_key
from keyturn.process.settings import LogSettings, RedisSettings
from keyturn.process.values import Listen, Secret
from keyturn.sidecar.app import Sidecar
from keyturn.sidecar.charge import Charge
from keyturn.sidecar.dialects import NGINX
from keyturn.verifier.freshness import Freshness
from keyturn.verifier.policy import Policy


async def serve(directory: Path, redis_url: str, sidecars: int) -> None:
    """Serve until the process ends; writes the ports, one a line, when all replicas are ready."""
    configure_logging(LogSettings(level="error"), process="fleet")
    root, clock = read_root(directory / "root.jwk"), SystemClock()
    store = RedisSettings(url=redis_url, credentials=directory / "redis")
    async with AsyncExitStack() as stack:
        ports, waiting = [], []
        for number in range(sidecars):
            name = f"sidecar-{number + 1}"
            identity = Secret.read(directory / "identities" / f"{name}.jwk")
            feed = RedisFeed(connect_as(stack, store, name), pubsub=connect_as(stack, store, name, subscribing=True))
            charge = Charge(
                issuer=ISSUER, root=root, allow_dev=False, freshness=Freshness(), verifier=name,
                identity=statement_key(identity, setting="identity"),
                policies={"default": Policy(audience=DEFAULT_AUDIENCE)}, dialects=(NGINX,),
            )  # fmt: skip
            sidecar = Sidecar(feed, charge, clock)
            address = await stack.enter_async_context(sidecar.serving(Listen(host="127.0.0.1", port=0)))
            ports.append(address.port)
            waiting.append(sidecar.follower.ready())
        await asyncio.gather(*waiting)
        written = directory / "fleet.ports"
        written.with_suffix(".part").write_text("\n".join(map(str, ports)), "ascii")
        written.with_suffix(".part").rename(written)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
