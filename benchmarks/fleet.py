"""Many sidecars in one process on uvloop, each with a replica, connections to the store and a listener of its own."""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from benchmarks.adoption import WAVE, Adoption, CountingFeed
from benchmarks.issuer import ISSUER
from keyturn.cli.newclients import DEFAULT_AUDIENCE
from keyturn.clock import SystemClock
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


async def serve(directory: Path, redis_url: str, numbers: range) -> None:
    """Serve the sidecars of these numbers; prints their ports, in one line, when all replicas are ready."""
    configure_logging(LogSettings(level="error"), process="fleet")
    store = RedisSettings(url=redis_url, credentials=directory / "redis")
    adoption = Adoption(len(numbers))
    async with AsyncExitStack() as stack:
        ports: list[int] = []
        for start in range(0, len(numbers), WAVE):
            wave = [sidecar_of(stack, store, directory, number) for number in numbers[start : start + WAVE]]
            for sidecar in wave:
                address = await stack.enter_async_context(sidecar.serving(Listen(host="127.0.0.1", port=0)))
                ports.append(address.port)
            await asyncio.gather(*(sidecar.follower.ready() for sidecar in wave))
            for sidecar in wave:
                adoption.watch(sidecar.follower)
        print(*ports, flush=True)
        await asyncio.Event().wait()


def sidecar_of(stack: AsyncExitStack, store: RedisSettings, directory: Path, number: int) -> Sidecar:
    """Return a sidecar that was provisioned under that number; its connections are closed with the stack."""
    name = f"sidecar-{number}"
    identity = Secret.read(directory / "identities" / f"{name}.jwk")
    feed = CountingFeed(connect_as(stack, store, name), pubsub=connect_as(stack, store, name, subscribing=True))
    charge = Charge(
        issuer=ISSUER, root=read_root(directory / "root.jwk"), allow_dev=False, freshness=Freshness(), verifier=name,
        identity=statement_key(identity, setting="identity"),
        policies={"default": Policy(audience=DEFAULT_AUDIENCE)}, dialects=(NGINX,),
    )  # fmt: skip
    return Sidecar(feed, charge, SystemClock())


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), sys.argv[2], range(int(sys.argv[3]), int(sys.argv[4]) + 1)))
