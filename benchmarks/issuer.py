"""A whole issuer for a measurement: provisioned directory, embedded server, two keys that sign, and a heartbeat."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load import MeasurementSpoiledError
from keyturn import entropy
from keyturn.cli.newclients import DEFAULT_AUDIENCE
from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.contract.encoding import b64url, decode_object, encode_json
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import ALGORITHMS, load_ed25519_private, public_jwk, thumbprint
from keyturn.contract.keys import Activated, KeyChange, Published, Use
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from keyturn.contract.trust import open_trust
from keyturn.feed.publisher import Publisher, bootstrap
from keyturn.feed.redis import RedisFeed
from keyturn.process.redis import connect
from keyturn.process.values import Secret
from keyturn.verifier.follower import Follower
from keyturn.verifier.freshness import Freshness
from keyturn.verifier.replica import Replica
from stack.server import EmbeddedServer

ISSUER = "https://issuer.example"
ALGORITHMS_MEASURED = ("ES256", "RS256")
TOKEN_SECONDS = 3600.0
KEY_SECONDS = 86_400.0


@dataclass
class Issuer:
    """Signs tokens, and speaks on both lanes."""

    server: EmbeddedServer
    password: Secret
    publishers: dict[Lane, Publisher]
    keys: dict[str, tuple[str, entropy.PrivateKey]]

    def claims(self, number: int) -> dict[str, Any]:
        """Return the claims of an access token as they usually are."""
        now = SystemClock().now()
        return {
            "iss": ISSUER, "sub": f"service-account-{number}", "client_id": f"client-{number % 50}",
            "aud": DEFAULT_AUDIENCE, "scope": "read write orders:read orders:write", "iat": int(now),
            "exp": int(now + TOKEN_SECONDS), "jti": entropy.uuid7(now), "grant_id": entropy.uuid7(now),
        }  # fmt: skip

    def mint(self, number: int) -> bytes:
        """Return a token; the algorithms take turns."""
        alg = ALGORITHMS_MEASURED[number % len(ALGORITHMS_MEASURED)]
        return self.sign(alg, self.claims(number))

    def sign(self, alg: str, claims: dict[str, Any]) -> bytes:
        """Return these claims as an access token."""
        kid, key = self.keys[alg]
        header = b64url(encode_json({"alg": alg, "kid": kid, "typ": "at+jwt"}))
        signing_input = f"{header}.{b64url(encode_json(claims))}".encode("ascii")
        signature: bytes = ALGORITHMS[alg].sign(signing_input, key)
        return signing_input + b"." + b64url(signature).encode("ascii")

    async def begin(self) -> None:
        """Publish and activate one key of each algorithm."""
        changes: list[KeyChange] = []
        until = SystemClock().now() + KEY_SECONDS
        for alg in ALGORITHMS_MEASURED:
            key = entropy.new_key(alg)
            jwk = public_jwk(key.public_key())
            kid = thumbprint(jwk)
            self.keys[alg] = kid, key
            changes.append(Published(kid=kid, alg=alg, jwk=jwk, use=Use.ACCESS, token_seconds=TOKEN_SECONDS))
            changes.append(Activated(kid=kid, sign_until=until, verify_until=until + TOKEN_SECONDS + 60))
        await self.publishers[Lane.KEYS].append(changes)

    async def revoke(self, jti: str) -> int:
        """Revoke one token; it is durable on return. Gives the event's number."""
        selector = Selector(iss=ISSUER, kind=SelectorKind.JTI, value=jti)
        until = SystemClock().now() + TOKEN_SECONDS
        signed = await self.publishers[Lane.REVOCATIONS].append([Entry(selector=selector, until=until)])
        return signed.position.sequence


@asynccontextmanager
async def issuer(directory: Path, *, verifiers: int = 1) -> AsyncIterator[Issuer]:
    """Run an issuer in a new directory, laid out as `keyturn init` does, for as long as the block lasts."""
    clock = SystemClock()
    names = tuple(f"sidecar-{number + 1}" for number in range(verifiers))
    provision(directory, Plan(issuer=ISSUER, verifiers=names), now=clock.now())
    password = Secret.read(directory / "redis" / "default.password")
    users = directory / "redis" / "users.acl"
    async with EmbeddedServer(directory / "server", aclfile=users, user="default", password=password) as server:
        url = server.url("default")
        redis = connect(url, client_name="issuer", password=password)
        feed = RedisFeed(redis, pubsub=connect(url, client_name="issuer", password=password, subscribing=True))
        root = decode_object((directory / "root.jwk").read_bytes())
        compact = (directory / "trust.jws").read_bytes()
        trust = open_trust(compact, root=root, allow_dev=False)
        await feed.keep_trust(compact)
        for lane in Lane:
            await bootstrap(feed, (directory / "genesis" / f"{lane}.jws").read_bytes(), trust, lane)
        replica = Replica(issuer=ISSUER, freshness=Freshness())
        follower = Follower(feed, replica, clock, root=root)
        publishers = {lane: Publisher(lane, _role(directory, lane), feed, replica, clock) for lane in Lane}
        running = Issuer(server, password, publishers, {})
        spoiled: MeasurementSpoiledError | None = None
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(follower.run())]
            await follower.ready()
            await running.begin()
            tasks += [group.create_task(one.run(follower.catch_up)) for one in publishers.values()]
            try:
                yield running
            except MeasurementSpoiledError as error:
                spoiled = error  # As it is, and not in a group: it says why nothing was measured.
            for task in tasks:
                task.cancel()
        if spoiled is not None:
            raise spoiled


def _role(directory: Path, lane: Lane) -> StatementKey:
    jwk = decode_object((directory / "roles" / f"{lane}.jwk").read_bytes())
    return StatementKey(load_ed25519_private(jwk))


async def serve(directory: Path, tokens: int) -> None:
    """Run an issuer; write its tokens, one a line, and its store's URL, when all is ready."""
    async with issuer(directory) as running:
        minted = b"".join(running.mint(number) + b"\n" for number in range(tokens))
        (directory / "tokens").write_bytes(minted)
        (directory / "redis.url").write_text(running.server.url(), "ascii")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
