"""Keys of another issuer come in: they verify what they signed, or sign next, and never surprise a verifier."""

import asyncio
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyservice.importing import Import, read_import
from keyservice.rotator import Order
from keyservice.signer import Request
from keyturn import entropy
from keyturn.contract.errors import MalformedInput
from keyturn.contract.jwk import PrivateKey
from keyturn.contract.keys import KeyRecord, Phase, Use
from keyturn.contract.positions import Lane
from keyturn.contract.reports import Report, sign_report
from keyturn.contract.rotation import APPEND_SECONDS, RotationPolicy
from keyturn.feed.memory import MemoryFeed
from tests.clocks import HastyClock, ManualClock
from tests.contract.test_weak_keys import jwk_of, pem_of
from tests.keyservice.building import POLICY, Inside, allowed, inside
from tests.world import World, new_statement_key, policy

HYDRA_KID = "public:hydra.jwt.access-token/1"


@pytest.fixture
async def world() -> World:
    """Return a world whose feed has begun, with one verifier identity."""
    return await World(clock=HastyClock(), verifiers={"api-1": new_statement_key()}).begin()


def brought(*keys: Any, phase: str = "retiring", rules: RotationPolicy = POLICY, **members: Any) -> Import:
    """Read an import as the route does."""
    return read_import({"keys": list(keys), "as": phase} | members, rules)


def record_of(one: Inside, kid: str) -> KeyRecord:
    """Return a key's record."""
    record = one.member.replica.keys.get(kid)
    assert record is not None
    return record


def foreign(world: World, alg: str = "ES256", kid: str = HYDRA_KID) -> PrivateKey:
    """Make a key as the other issuer had it; `world.mint(kid=kid)` signs as that issuer did."""
    world.private[kid], world.algorithms[kid] = entropy.new_key(alg), alg
    return world.private[kid]


async def verdict(world: World, token: bytes) -> str:
    """Return what a verifier that has read everything says of a token."""
    return (await world.caught_up()).verifier.judge(token, policy()).reason


async def report(world: World, place: tuple[int, int], count: int) -> None:
    """Leave a verifier's signed report on the board."""
    said = Report(
        verifier="api-1", incarnation="0", count=count, at=world.clock.now(), keys=place, revocations=(1, 0),
        state="fresh",
    )  # fmt: skip
    assert isinstance(world.feed, MemoryFeed)
    await world.feed.report("api-1", sign_report(world.verifiers["api-1"], said), ttl_seconds=60)


async def test_tokens_of_the_other_issuer_pass_until_their_time_is_over(world: World) -> None:
    """The night of a migration: nobody signs in again; what it signs after the move is refused."""
    one = await inside(world)
    await one.rotator.tick()
    foreign(world)
    token = world.mint(kid=HYDRA_KID)
    assert await verdict(world, token) == "unknown_kid"
    before = one.member.replica.place(Lane.KEYS)
    outcome = await one.importer.bring(brought(jwk_of(world.private[HYDRA_KID], kid=HYDRA_KID), token=600))
    assert one.member.replica.place(Lane.KEYS) == (before[0], before[1] + 1), "more than one event"
    assert (outcome.active, record_of(one, HYDRA_KID).phase) == (True, Phase.RETIRING)
    assert await verdict(world, token) == "active"
    clock = world.clock
    assert isinstance(clock, ManualClock)
    clock.advance(APPEND_SECONDS + POLICY.lease_seconds + 10)
    assert await verdict(world, world.mint(kid=HYDRA_KID)) != "active", "signed after it was brought in"
    clock.advance(600 + POLICY.lease_seconds + 2 * POLICY.skew_seconds - POLICY.lease_seconds - 10.1)
    await one.rotator.tick()
    assert record_of(one, HYDRA_KID).phase is Phase.RETIRING, "removed while its tokens may live"
    clock.advance(0.2)
    await one.rotator.tick()
    assert record_of(one, HYDRA_KID).phase is Phase.REMOVED


async def test_a_key_that_only_verifies_leaves_nothing_private_behind_and_changes_nobody_elses_turn(
    world: World,
) -> None:
    """Even if its private half was sent; a rotation that was asked for is still asked for."""
    await report(world, (1, 0), 1)
    one = await inside(world)
    await one.rotator.tick()
    active, ordered = one.member.replica.keys.active("ES256", Use.ACCESS), await one.rotator.rotate("ES256", Order())
    await one.importer.bring(brought(jwk_of(foreign(world), private=True, kid=HYDRA_KID)))
    assert isinstance(world.feed, MemoryFeed)
    assert HYDRA_KID not in await world.feed.sealed_keys()
    assert one.member.replica.keys.active("ES256", Use.ACCESS) == active
    standby = one.member.replica.keys.standby("ES256", Use.ACCESS)
    assert standby is not None
    assert standby.kid == ordered.kid
    assert one.member.replica.keys.requested("ES256", Use.ACCESS) is not None


async def test_a_key_that_is_to_sign_waits_for_the_verifiers_like_any_other_and_goes_first(world: World) -> None:
    """Published first, activated by the barrier; the old key retires, and the standbys stay what they are."""
    await report(world, (1, 0), 1)
    one = await inside(world)
    await one.rotator.tick()
    keys = one.member.replica.keys
    old, standby = keys.active("ES256", Use.ACCESS), keys.standby("ES256", Use.ACCESS)
    assert old is not None
    assert standby is not None
    outcome = await one.importer.bring(brought(pem_of(foreign(world), private=True), phase="active", kid=HYDRA_KID))
    assert not outcome.active
    assert await one.rotator.tick() == 0
    assert record_of(one, HYDRA_KID).phase is Phase.PUBLISHED
    assert await verdict(world, world.mint(kid=HYDRA_KID)) == "active", "tokens that are out do not verify"
    await report(world, one.member.replica.place(Lane.KEYS), 2)
    await one.watch.look()
    assert await one.rotator.tick() >= 1
    assert record_of(one, HYDRA_KID).phase is Phase.ACTIVE
    assert record_of(one, old.kid).phase is Phase.RETIRING
    assert record_of(one, standby.kid).phase is Phase.PUBLISHED
    assert await one.keyring.refresh() == []
    claims = world.claims(iss=None, iat=None)
    token = one.signer.sign(Request("at+jwt", claims), identity=allowed())
    assert await verdict(world, token.encode()) == "active"


@pytest.mark.parametrize("alg", ["ES384", "RS256", "PS256", "EdDSA"])
async def test_every_algorithm_can_be_brought_to_sign(world: World, alg: str) -> None:
    """Sealed like any other, under its own name, and opened by whoever signs next."""
    rules = msgspec.structs.replace(POLICY, algorithms=("ES256", alg))
    one = await inside(world, rules)
    await one.rotator.tick()
    kid = f"keycloak/{alg}"
    key = foreign(world, alg, kid)
    await one.importer.bring(brought(jwk_of(key, private=True, kid=kid, alg=alg), phase="active", rules=rules))
    await one.rotator.tick()
    assert record_of(one, kid).phase is Phase.ACTIVE
    assert await one.keyring.refresh() == []
    opened = one.keyring.get(kid)
    assert opened is not None
    raw = (Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert opened.private_bytes(*raw) == key.private_bytes(*raw)
    assert (await one.keyring.reseal()).left == ()
    outcome = await one.rotator.revoke(kid, Order())
    assert outcome.active
    assert record_of(one, kid).phase is Phase.REVOKED
    assert isinstance(world.feed, MemoryFeed)
    assert kid not in await world.feed.sealed_keys()


async def test_an_emergency_while_it_waits_takes_a_key_that_verifiers_know(world: World) -> None:
    """The key that was brought a moment ago is the one that nobody holds yet; its own turn stays."""
    await report(world, (1, 0), 1)
    one = await inside(world)
    await one.rotator.tick()
    keys = one.member.replica.keys
    active, standby = keys.active("ES256", Use.ACCESS), keys.standby("ES256", Use.ACCESS)
    assert active is not None
    assert standby is not None
    await one.importer.bring(brought(jwk_of(foreign(world), private=True, kid=HYDRA_KID), phase="active"))
    await one.rotator.revoke(active.kid, Order())
    assert record_of(one, standby.kid).phase is Phase.ACTIVE
    request = one.member.replica.keys.requested("ES256", Use.ACCESS)
    assert request is not None
    assert request.kid == HYDRA_KID
    await one.rotator.revoke(HYDRA_KID, Order())
    assert one.member.replica.keys.requested("ES256", Use.ACCESS) is None


async def test_bringing_the_same_again_does_nothing(world: World) -> None:
    """An operator who saw a timeout asks again, at any service."""
    one, other = await inside(world), await inside(world)
    await one.rotator.tick()
    await other.member.follower._read_all()
    public = jwk_of(foreign(world), kid=HYDRA_KID)
    signing = jwk_of(foreign(world, kid="next"), private=True, kid="next")
    outcomes = await asyncio.gather(*(each.importer.bring(brought(public)) for each in (one, other)))
    assert sum(outcome.event is not None for outcome in outcomes) == 1
    await one.member.follower._read_all()
    first = await one.importer.bring(brought(signing, phase="active"))
    again = await one.importer.bring(brought(signing, phase="active"))
    assert (first.event is not None, again.event) == (True, None)
    await one.rotator.tick()
    assert (await one.importer.bring(brought(signing, phase="active"))).active


async def test_the_first_key_of_an_issuer_may_be_brought_and_signs_at_once(world: World) -> None:
    """Nobody can hold a set that lacks it; one that only verifies cannot be the first."""
    one = await inside(world)
    with pytest.raises(MalformedInput, match="no key of its own yet"):
        await one.importer.bring(brought(jwk_of(foreign(world), kid=HYDRA_KID)))
    outcome = await one.importer.bring(brought(jwk_of(foreign(world), private=True, kid=HYDRA_KID), phase="active"))
    assert outcome.active
    await one.rotator.tick()
    assert record_of(one, HYDRA_KID).phase is Phase.ACTIVE
    assert len(one.member.replica.keys.of("ES256", Use.ACCESS, Phase.PUBLISHED)) == POLICY.standbys


async def test_a_key_that_must_not_come_in_is_refused(world: World) -> None:
    """Above all a revoked one, by whatever name: whoever stole it would have it back."""
    one = await inside(world)
    await one.rotator.tick()
    key = foreign(world)
    await one.importer.bring(brought(jwk_of(key, kid=HYDRA_KID)))
    with pytest.raises(MalformedInput, match="by the name"):
        await one.importer.bring(brought(jwk_of(key, kid="another-name")))
    with pytest.raises(MalformedInput, match="another key is called"):
        await one.importer.bring(brought(jwk_of(entropy.new_key("ES256"), kid=HYDRA_KID)))
    with pytest.raises(MalformedInput, match="has stopped signing here"):
        await one.importer.bring(brought(jwk_of(key, private=True, kid=HYDRA_KID), phase="active"))
    await one.rotator.revoke(HYDRA_KID, Order())
    for kid in (HYDRA_KID, "another-name"):
        for phase in ("retiring", "active"):
            with pytest.raises(MalformedInput, match="was revoked here"):
                await one.importer.bring(brought(jwk_of(key, private=True, kid=kid), phase=phase))


KEY = entropy.new_key("ES256")
SECRET = jwk_of(KEY, private=True, kid="a")


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "keys is a list"),
        ({"keys": [1], "as": "active"}, "keys is a list"),
        ({"keys": [SECRET]}, "as is retiring"),
        ({"keys": [SECRET], "as": "published"}, "as is retiring"),
        ({"keys": [SECRET], "as": "active", "token": 5}, "token goes with retiring"),
        ({"keys": [SECRET], "as": "retiring", "token": 0}, "token is how long"),
        ({"keys": [SECRET], "as": "retiring", "token": True}, "token is how long"),
        ({"keys": [SECRET], "as": "retiring", "token": 1e9}, "token is how long"),
        ({"keys": [SECRET], "as": "retiring", "alg": 1}, "alg is a string"),
        ({"keys": [SECRET], "as": "retiring", "kid": 1}, "kid is a string"),
        ({"keys": [SECRET], "as": "retiring", "why": ""}, "unknown member 'why'"),
        ({"keys": [jwk_of(KEY, kid="a")], "as": "active"}, "bring its private half"),
        ({"keys": [jwk_of(entropy.new_key("EdDSA"), private=True)], "as": "active"}, "not among rotation.algorithms"),
        (
            {"keys": [SECRET, jwk_of(entropy.new_key("ES256"), private=True, kid="b")], "as": "active"},
            "one key at a time",
        ),
        ({"keys": [{**SECRET, "alg": "ES384"}], "as": "active"}, "crv P-384"),
    ],
)
def test_an_import_that_cannot_be_meant_so_is_refused_without_repeating_the_key(
    body: dict[str, Any], named: str
) -> None:
    """Answers end up in tickets."""
    with pytest.raises(MalformedInput) as refused:
        read_import(body, POLICY)
    assert named in str(refused.value)
    assert SECRET["d"] not in str(refused.value)
