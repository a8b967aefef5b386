"""The library as an API team uses it: connect, verify, be told the truth when nothing can be said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from keyturn import (
    ConfigurationError,
    FeedUnavailable,
    ForeignIssuer,
    InvalidToken,
    IssuerKeysUnavailable,
    Policy,
    ReplicaExpired,
    Verifier,
)
from keyturn.clock import SystemClock
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.redis import RedisFeed
from keyturn.verifier.freshness import Freshness, State
from tests.verifier.abroad import Abroad
from tests.waiting import eventually
from tests.world import AUDIENCE, World


@pytest.fixture
async def world(valkey: Redis, valkey_url: str) -> World:
    """Return a world on a real Valkey with one active key."""
    world = await World(feed=RedisFeed(valkey, pubsub=valkey), clock=SystemClock()).begin()
    member = await world.caught_up()
    await world.publisher(Lane.KEYS, member).append(world.first_key())
    return world


async def test_a_token_passes_until_its_revocation_is_pushed(world: World, valkey_url: str) -> None:
    """The whole promise of the product, in five lines of an API's code."""
    token = world.mint(jti="one")
    async with Verifier.connect(valkey_url, issuer=world.issuer, root=world.root.public, audience=AUDIENCE) as verifier:
        assert verifier.verify(token)["sub"] == "alice"
        assert verifier.verify(token.decode())["jti"] == "one"
        assert verifier.state is State.FRESH
        member = await world.caught_up()
        await world.publisher(Lane.REVOCATIONS, member).append([world.entry(SelectorKind.JTI, "one")])

        def refused() -> bool:
            try:
                verifier.verify(token)
            except InvalidToken as error:
                return error.reason == "revoked"
            return False

        await eventually(refused, within_seconds=5)


async def test_audience_and_scope_are_asked_for(world: World, valkey_url: str, tmp_path: Path) -> None:
    """A token for another API, or with less than is needed, is not good here; the root may be a file."""
    file = tmp_path / "root.jwk"
    file.write_text(json.dumps(world.root.public))
    async with Verifier.connect(valkey_url, issuer=world.issuer, root=file, audience=AUDIENCE) as verifier:
        with pytest.raises(InvalidToken, match="audience"):
            verifier.verify(world.mint(aud="https://else.example"))
        with pytest.raises(InvalidToken, match="insufficient_scope"):
            verifier.verify(world.mint(), Policy(audience=AUDIENCE, scopes=("admin",)))
        for junk in ("", "é.é.é", "a.b.c", "\ud800", b"\xff" * 9000):
            with pytest.raises(InvalidToken):
                verifier.verify(junk)


async def test_a_silent_feed_is_told_apart_from_a_bad_token(world: World, valkey_url: str) -> None:
    """401 for what could not be checked would log every user out of every API at once."""
    limits = Freshness(stale_after_seconds=0.0001, expired_after_seconds=0.0002)
    token = world.mint()
    async with Verifier.connect(
        valkey_url, issuer=world.issuer, root=world.root.public, audience=AUDIENCE, freshness=limits
    ) as verifier:
        await eventually(lambda: verifier.state is State.EXPIRED, within_seconds=5)
        with pytest.raises(ReplicaExpired):
            verifier.verify(token)


async def test_a_development_document_is_refused_for_a_real_issuer(
    world: World, valkey_url: str, valkey: Redis
) -> None:
    """What `make up` makes must never vouch for a production issuer, unless somebody says so."""
    await valkey.set("keyturn:trust", world.trust_bytes(dev=True))
    choices: dict[str, Any] = {"issuer": world.issuer, "root": world.root.public, "audience": AUDIENCE}
    with pytest.raises(FeedUnavailable):
        async with Verifier.connect(valkey_url, **choices, ready_within_seconds=0.3):
            pass
    async with Verifier.connect(valkey_url, **choices, allow_dev=True) as verifier:
        assert verifier.state is State.FRESH


async def test_a_root_that_is_none_is_named(tmp_path: Path) -> None:
    """The commonest mistake at the first try is the wrong file."""
    for root in (tmp_path / "missing", {"kty": "RSA"}, {}):
        with pytest.raises(ConfigurationError, match="root"):
            async with Verifier.connect("redis://127.0.0.1:1/0", issuer="https://i.example", root=root, audience="a"):
                pass


async def test_tokens_of_another_issuer_are_verified_by_the_keys_that_it_tells(
    world: World, valkey_url: str, tmp_path: Path
) -> None:
    """An application without a sidecar protects the tokens of the provider that it has; one that is away is named."""
    abroad = Abroad(world.clock, jwks=tmp_path / "jwks.json", name="workforce")
    away = ForeignIssuer(name="away", url="https://away.example", token_seconds=60, jwks=tmp_path / "missing.json")
    (tmp_path / "jwks.json").write_bytes(abroad.jwks)
    both = Policy(audience=AUDIENCE, issuers=frozenset({world.issuer, abroad.issuer.url, away.url}))
    noted: list[str] = []
    async with Verifier.connect(
        valkey_url, issuer=world.issuer, root=world.root.public, policy=both, issuers=[abroad.issuer, away],
        note=lambda event, **facts: noted.append(f"{event} {facts.get('issuer')}"),
    ) as verifier:  # fmt: skip
        assert verifier.verify(abroad.mint())["client_id"] == "shop"
        assert verifier.verify(world.mint())["sub"] == "alice"
        with pytest.raises(InvalidToken, match="issuer"):
            verifier.verify(abroad.mint(), Policy(audience=AUDIENCE))
        with pytest.raises(IssuerKeysUnavailable, match="away") as caught:
            verifier.verify(abroad.mint(iss=away.url, header={"typ": "at+jwt"}))
        assert isinstance(caught.value, ReplicaExpired)
    assert "issuer_unreachable away" in noted


async def test_an_issuer_whose_keys_would_come_in_the_clear_is_refused(world: World) -> None:
    """Whoever is on the way could sign as that issuer."""
    good = Abroad(world.clock).issuer
    for issuer in (
        replace(good, url="http://login.example"), replace(good, jwks="http://login.example/keys"),
        replace(good, url=world.issuer),
    ):  # fmt: skip
        with pytest.raises(ConfigurationError, match=r"issuers\.workforce"):
            async with Verifier.connect(
                "redis://127.0.0.1:1/0", issuer=world.issuer, root=world.root.public, audience="a", issuers=[issuer]
            ):
                pass
