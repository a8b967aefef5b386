"""A whole sidecar on a feed in memory, its publishers, and a client that asks as a gateway does."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from keyturn.contract.keys import KeyChange, Revoked
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.publisher import Publisher
from keyturn.process.values import Listen
from keyturn.sidecar.app import Sidecar
from keyturn.sidecar.charge import Charge
from keyturn.sidecar.dialects import NGINX
from keyturn.verifier.policy import Policy
from tests.clocks import ManualClock
from tests.sidecar.wire import Client, Reply
from tests.waiting import eventually
from tests.world import AUDIENCE, Member, World, new_statement_key

NAME = "sidecar-1"
LOOPBACK = Listen(host="127.0.0.1", port=0)
POLICIES = {
    "default": Policy(audience=AUDIENCE),
    "strict": Policy(audience=AUDIENCE, scopes=("read", "admin"), name="strict"),
    "fresh": Policy(audience=AUDIENCE, name="fresh", max_staleness_seconds=2.0),
}


@dataclass
class Beside:
    """A sidecar that runs, and everything around it."""

    world: World
    feed: MemoryFeed
    clock: ManualClock
    sidecar: Sidecar
    port: int
    clients: list[Client] = field(default_factory=list)
    office: Member | None = None

    async def connect(self) -> Client:
        """Open a connection that is closed at the end of the test."""
        client = await Client.to(self.port)
        self.clients.append(client)
        return client

    async def ask(self, target: str, *authorization: bytes, method: str = "GET", more: bytes = b"") -> Reply:
        """Ask on a connection of its own; `more` is further header lines, and the body."""
        client = await self.connect()
        lines = b"".join(b"Authorization: " + value + b"\r\n" for value in authorization)
        return await client.ask(f"{method} {target} HTTP/1.1\r\nHost: s\r\n".encode() + lines + (more or b"\r\n"))

    async def check(self, token: bytes, policy: str = "default") -> Reply:
        """Ask as nginx does."""
        return await self.ask(f"/nginx/{policy}", b"Bearer " + token)

    async def introspect(self, body: bytes, content_type: bytes = b"application/x-www-form-urlencoded") -> Reply:
        """Send a form to /introspect."""
        head = b"Content-Type: " + content_type + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
        return await self.ask("/introspect", method="POST", more=head + body)

    async def facts(self, target: str = "/state") -> Any:
        """Return what a route tells in JSON."""
        return json.loads((await self.ask(target)).body)

    async def publisher(self, lane: Lane) -> Publisher:
        """Return the voice of a lane."""
        if self.office is None:
            self.office = await self.world.caught_up()
        return self.world.publisher(lane, self.office)

    async def publish(self, *changes: KeyChange) -> None:
        """Append to the keys lane, and wait until the sidecar has it."""
        await (await self.publisher(Lane.KEYS)).append(list(changes))
        await self.settled()

    async def revoke_key(self, kid: str) -> None:
        """Reject a key by name."""
        await self.publish(Revoked(kid=kid))

    async def revoke(self, kind: SelectorKind, value: str) -> None:
        """Append to the revocations lane, and wait until the sidecar has it."""
        await (await self.publisher(Lane.REVOCATIONS)).append([self.world.entry(kind, value)])
        await self.settled()

    async def beat(self) -> None:
        """Let both publishers be heard, and wait until the sidecar has heard them."""
        for lane in Lane:
            await (await self.publisher(lane)).beat()
        await eventually(lambda: self.sidecar.replica.age(self.clock.now(), self.clock.boottime()) == 0)

    async def settled(self) -> None:
        """Wait until the sidecar stands where the publishers do."""
        assert self.office is not None
        office, replica = self.office.replica, self.sidecar.replica
        await eventually(lambda: all(replica.place(lane) == office.place(lane) for lane in Lane))


@asynccontextmanager
async def sidecar_of(world: World, **changes: Any) -> AsyncIterator[Beside]:
    """Run a sidecar on a world whose feed and clock are in memory; it may not have read anything yet."""
    feed, clock = world.feed, world.clock
    assert isinstance(feed, MemoryFeed)
    assert isinstance(clock, ManualClock)
    members: dict[str, Any] = {
        "issuer": world.issuer, "root": world.root.public, "allow_dev": False, "freshness": world.freshness,
        "verifier": NAME, "identity": world.verifiers[NAME], "policies": POLICIES, "dialects": (NGINX,),
    } | changes  # fmt: skip
    sidecar = Sidecar(feed, Charge(**members), clock)
    async with sidecar.serving(LOOPBACK) as address:
        beside = Beside(world, feed, clock, sidecar, address.port)
        try:
            yield beside
        finally:
            for client in beside.clients:
                await client.close()
            await eventually(lambda: sidecar.listener.connections == 0)  # Draining would wait by the clock.


@asynccontextmanager
async def running_sidecar() -> AsyncIterator[Beside]:
    """Run a sidecar that is ready, with one ES256 key that signs."""
    world = World(verifiers={NAME: new_statement_key()})
    await world.begin()
    async with sidecar_of(world) as beside:
        await beside.sidecar.follower.ready()
        await beside.publish(*world.first_key())
        await beside.beat()
        yield beside
