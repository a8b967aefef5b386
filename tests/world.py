"""A whole small Keyturn in memory: a root, roles, identities, a feed with publishers, replicas, and minted tokens."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from keyturn import entropy
from keyturn.clock import Clock
from keyturn.contract import events as e
from keyturn.contract import keys as k
from keyturn.contract.encoding import b64url, encode_json
from keyturn.contract.envelope import StatementKey
from keyturn.contract.jwk import ALGORITHMS, public_jwk, thumbprint
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from keyturn.contract.snapshots import Section
from keyturn.contract.trust import Client, Identity, IdentityKind, MaySign, Trust, TrustDocument, open_trust, sign_trust
from keyturn.feed.log import Feed
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.publisher import Publisher, bootstrap
from keyturn.feed.recovery import ALONE, Recovery, Remembered
from keyturn.verifier.follower import Follower
from keyturn.verifier.freshness import Freshness
from keyturn.verifier.policy import Policy
from keyturn.verifier.replica import Replica
from keyturn.verifier.verifier import TokenVerifier
from tests.clocks import ManualClock

ISSUER = "https://issuer.example"
AUDIENCE = "https://api.example"
TOKEN_SECONDS = 300.0
LEASE_SECONDS = 5.0


def new_statement_key() -> StatementKey:
    """Make a root, role or identity key."""
    return StatementKey(entropy.new_statement_key())


@dataclass
class Member:
    """A process that follows the feed: its replica, what it noted, and a verifier on top."""

    replica: Replica
    follower: Follower
    verifier: TokenVerifier
    noted: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def events(self) -> list[str]:
        """Return the names of what was noted, in order."""
        return [event for event, _ in self.noted]


@dataclass
class World:
    """Everything that one issuer needs; `feed` may be any implementation, `clock` any clock."""

    feed: Feed = field(default_factory=MemoryFeed)
    clock: Clock = field(default_factory=ManualClock)
    issuer: str = ISSUER
    freshness: Freshness = field(default_factory=Freshness)
    root: StatementKey = field(default_factory=new_statement_key)
    roles: dict[Lane, StatementKey] = field(default_factory=lambda: {lane: new_statement_key() for lane in Lane})
    services: dict[str, StatementKey] = field(default_factory=dict)
    verifiers: dict[str, StatementKey] = field(default_factory=dict)
    may_sign: dict[str, tuple[MaySign, ...]] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)
    client_roles: dict[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)
    hash_key: bytes = field(default_factory=lambda: entropy.token_bytes(16))
    private: dict[str, entropy.PrivateKey] = field(default_factory=dict)
    algorithms: dict[str, str] = field(default_factory=dict)
    signing_kid: str = ""

    def document(self, **changes: Any) -> TrustDocument:
        """Return the trust document of this world, version 1 and good for ten days, with these members changed."""
        now = self.clock.now()
        identities = {
            name: Identity(kind=IdentityKind.SERVICE, jwk=key.public, may_sign=self.may_sign.get(name, ()))
            for name, key in self.services.items()
        } | {name: Identity(kind=IdentityKind.VERIFIER, jwk=key.public) for name, key in self.verifiers.items()}
        members: dict[str, Any] = {
            "version": 1, "issuer": self.issuer, "issued_at": now, "expires_at": now + 864_000,
            "roles": {lane.value: (key.public,) for lane, key in self.roles.items()} | self.client_roles,
            "lowest_epoch": {lane.value: 1 for lane in Lane}, "identities": identities, "clients": self.clients,
        }  # fmt: skip
        return TrustDocument(**(members | changes))

    def trust_bytes(self, **changes: Any) -> bytes:
        """Return the signed document."""
        return sign_trust(self.root, self.document(**changes))

    def trust(self, **changes: Any) -> Trust:
        """Return the document as somebody who pins the root reads it."""
        return open_trust(self.trust_bytes(**changes), root=self.root.public, allow_dev=True)

    def genesis(self, lane: Lane, **changes: Any) -> e.SignedSnapshot:
        """Return the signed snapshot that begins a lane, or another epoch of it."""
        place: dict[str, Any] = {"epoch": 1, "sequence": 0, "at": self.clock.now(), "trust": 1}
        if lane is Lane.KEYS:
            return self.sign_snapshot(e.KeysSnapshot(**(place | changes)))
        sections = (Section(hash_key=changes.pop("hash_key", self.hash_key)),)
        return self.sign_snapshot(e.RevocationsSnapshot(**({"sections": sections} | place | changes)))

    def sign_snapshot(self, snapshot: e.Snapshot) -> e.SignedSnapshot:
        """Sign a snapshot by its lane's role."""
        return e.sign_snapshot(self.roles[snapshot.lane], snapshot)

    async def begin(self, **changes: Any) -> "World":
        """Store trust document and genesis."""
        await self.feed.keep_trust(self.trust_bytes(**changes))
        for lane in Lane:
            await bootstrap(self.feed, self.genesis(lane).compact, self.trust(), lane)
        return self

    def member(self, *, root: Mapping[str, Any] | None = None, allow_dev: bool = False) -> Member:
        """Return a process that has not read anything yet."""
        noted: list[tuple[str, dict[str, Any]]] = []
        replica = Replica(issuer=self.issuer, freshness=self.freshness)
        pinned = self.root.public if root is None else root
        follower = Follower(
            self.feed, replica, self.clock, root=pinned, allow_dev=allow_dev,
            note=lambda event, **facts: noted.append((event, facts)),
        )  # fmt: skip
        return Member(replica, follower, TokenVerifier(replica, self.clock), noted)

    async def caught_up(self, **choices: Any) -> Member:
        """Return a process that has read the feed once and does not follow it: the test decides when it reads."""
        member = self.member(**choices)
        await member.follower._read_all()  # `catch_up` would sleep by the clock first.
        return member

    @asynccontextmanager
    async def following(self, **choices: Any) -> AsyncIterator[Member]:
        """Run a process that follows the feed, from when it is ready."""
        member = self.member(**choices)
        task = asyncio.create_task(member.follower.run())
        try:
            await asyncio.wait_for(member.follower.ready(), 5)
            yield member
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def publisher(self, lane: Lane, member: Member) -> Publisher:
        """Return the lane's voice on top of that member's replica."""
        return Publisher(lane, self.roles[lane], self.feed, member.replica, self.clock)

    def recovery(
        self, publisher: Publisher, member: Member, *, genesis: bytes = b"",
        beside: Callable[[e.SignedEvent], Remembered] = lambda _: ALONE,
    ) -> Recovery:  # fmt: skip
        """Return what mends that publisher's lane; what it notes is the member's."""
        return Recovery(
            publisher, self.feed, member.replica, self.clock, read_anew=member.follower.read_anew,
            beside=beside, genesis=lambda: genesis, note=lambda event, **facts: member.noted.append((event, facts)),
        )  # fmt: skip

    def new_key(
        self, alg: str = "ES256", *, use: k.Use = k.Use.ACCESS, token_seconds: float = TOKEN_SECONDS
    ) -> k.Published:
        """Make a signing key, keep its private half, and return the change that publishes it."""
        key = entropy.new_key(alg)
        jwk = public_jwk(key.public_key())
        kid = thumbprint(jwk)
        self.private[kid], self.algorithms[kid] = key, alg
        return k.Published(kid=kid, alg=alg, jwk=jwk, use=use, token_seconds=token_seconds)

    def activation(self, kid: str, *, sign_seconds: float = 86_400.0) -> k.Activated:
        """Return the change that lets a key sign from now on; `mint` signs with it from now on, too."""
        self.signing_kid = kid
        sign_until = self.clock.now() + sign_seconds
        skew = self.freshness.skew_seconds
        return k.Activated(
            kid=kid, sign_until=sign_until, verify_until=sign_until + LEASE_SECONDS + TOKEN_SECONDS + 2 * skew
        )

    def first_key(self, alg: str = "ES256", *, sign_seconds: float = 86_400.0) -> list[k.KeyChange]:
        """Return the changes that publish and activate a new key."""
        published = self.new_key(alg)
        return [published, self.activation(published.kid, sign_seconds=sign_seconds)]

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a good access token; a change to None drops the claim."""
        now = self.clock.now()
        claims: dict[str, Any] = {
            "iss": self.issuer, "sub": "alice", "client_id": "shop", "aud": AUDIENCE, "scope": "read write",
            "iat": int(now), "exp": int(now + TOKEN_SECONDS), "jti": entropy.uuid7(now), "grant_id": entropy.uuid7(now),
        }  # fmt: skip
        return {name: value for name, value in (claims | changes).items() if value is not None}

    def mint(self, *, kid: str | None = None, header: Mapping[str, Any] | None = None, **changes: Any) -> bytes:
        """Return an access token signed by the active key (or `kid`), with changed claims or header members."""
        kid = kid or self.signing_kid
        members = {"alg": self.algorithms[kid], "kid": kid, "typ": "at+jwt"} | dict(header or {})
        plain = {name: value for name, value in members.items() if value is not None}
        return self.sign_raw(encode_json(plain), encode_json(self.claims(**changes)), kid=kid)

    def sign_raw(self, header: bytes, payload: bytes, *, kid: str | None = None) -> bytes:
        """Return a compact JWS over exactly these bytes, by a key of ours whatever the header says."""
        kid = kid or self.signing_kid
        signing_input = f"{b64url(header)}.{b64url(payload)}".encode("ascii")
        signature: bytes = ALGORITHMS[self.algorithms[kid]].sign(signing_input, self.private[kid])
        return signing_input + b"." + b64url(signature).encode("ascii")

    def entry(
        self, kind: SelectorKind, value: str = "", *, before: float | None = None, until_seconds: float = 3600.0
    ) -> Entry:
        """Return a revocation of our issuer's tokens."""
        selector = Selector(iss=self.issuer, kind=kind, value=value, before=before)
        return Entry(selector=selector, until=self.clock.now() + until_seconds)

    def event(self, lane: Lane, member: Member, content: Sequence[Any], **changes: Any) -> Any:
        """Return the event (not signed yet) that would come next for that member, with changed members."""
        held = member.replica.position(lane)
        assert held is not None, "read the feed first"
        now = self.clock.now()
        members: dict[str, Any] = {
            "epoch": held.epoch, "sequence": held.sequence + 1, "previous": held.hash, "at": now,
            "trust": member.replica.trust.version, "id": entropy.uuid7(now),
        } | changes  # fmt: skip
        if lane is Lane.KEYS:
            return e.KeysEvent(changes=tuple(content), **members)
        return e.RevocationsEvent(entries=tuple(content), **members)


def policy(**changes: Any) -> Policy:
    """Return a policy for the audience of `World.claims`."""
    return Policy(**({"audience": AUDIENCE} | changes))
