"""What is signed, for whom, and when nothing may be."""

from typing import Any

import jwt
import pytest

from keyservice.keyring import Keyring
from keyservice.rotator import Order
from keyservice.signer import Request
from keyturn.contract.errors import SignerUnavailable, SigningRefused
from keyturn.contract.keys import Use
from tests.clocks import ManualClock
from tests.keyservice.building import POLICY, Inside, allowed, inside
from tests.world import AUDIENCE, World, policy


@pytest.fixture
async def world() -> World:
    """Return a world whose feed has begun."""
    return await World().begin()


@pytest.fixture
async def one(world: World) -> Inside:
    """Return a key service that has its first keys open."""
    made = await inside(world)
    await made.rotator.tick()
    assert await made.keyring.refresh() == []
    return made


def request(world: World, **changes: Any) -> Request:
    """Return a request to sign good claims, changed."""
    claims = world.claims(**({"iss": None, "iat": None} | changes))
    return Request("at+jwt", claims)


async def test_what_is_signed_passes_our_own_verifier(world: World, one: Inside) -> None:
    """The two ends of the system agree on form, header and claims."""
    token = one.signer.sign(request(world), identity=allowed())
    verifier = await world.caught_up()
    assert verifier.verifier.judge(token.encode(), policy()).kind == "active"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["iss"] == world.issuer
    assert claims["iat"] == int(world.clock.now())
    assert set(jwt.get_unverified_header(token)) == {"alg", "kid", "typ"}


async def test_exp_is_capped_by_the_key_and_never_stretched(world: World, one: Inside) -> None:
    """Rule 2: a key is removed by its T, so nothing that it signed may outlive it."""
    now = world.clock.now()
    long = one.signer.sign(request(world, exp=now + 10_000), identity=allowed())
    short = one.signer.sign(request(world, exp=now + 10), identity=allowed())
    assert jwt.decode(long, options={"verify_signature": False})["exp"] == int(now + POLICY.token_seconds)
    assert jwt.decode(short, options={"verify_signature": False})["exp"] == int(now + 10)


@pytest.mark.parametrize("members", [{"iss": "https://other.example"}, {"iat": 1}])
async def test_a_service_cannot_choose_issuer_or_moment(world: World, one: Inside, members: dict[str, Any]) -> None:
    """A stolen service identity must not mint tokens in another's name or out of the past."""
    with pytest.raises(SigningRefused):
        one.signer.sign(Request("at+jwt", {**request(world).claims, **members}), identity=allowed())


async def test_an_identity_gets_only_its_types_and_audiences(world: World, one: Inside) -> None:
    """Least privilege: introspection's identity cannot mint an access token."""
    with pytest.raises(SigningRefused, match="at\\+jwt"):
        one.signer.sign(request(world), identity=allowed("token-introspection+jwt"))
    with pytest.raises(SigningRefused, match="audience"):
        one.signer.sign(request(world), identity=allowed("at+jwt", "https://else.example"))
    with pytest.raises(SigningRefused, match="audience"):
        one.signer.sign(request(world, aud=[AUDIENCE, "https://more.example"]), identity=allowed("at+jwt", AUDIENCE))
    with pytest.raises(SigningRefused, match="audience"):
        one.signer.sign(request(world, aud=None), identity=allowed())


@pytest.mark.parametrize("aud", [5, None, True, {AUDIENCE: 1}, [], [AUDIENCE, 5]])
async def test_an_audience_of_another_kind_is_refused_and_breaks_nothing(
    world: World, one: Inside, aud: object
) -> None:
    """A number once ended in a 500, and an object was signed."""
    claims = {**request(world).claims, "aud": aud}
    with pytest.raises(SigningRefused, match="audience"):
        one.signer.sign(Request("at+jwt", claims), identity=allowed())


async def test_a_signer_that_cannot_confirm_its_state_stops(world: World, one: Inside) -> None:
    """Rule 3: it may have been cut off from an emergency; a write that the primary accepts lets it go on."""
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(POLICY.lease_seconds)
    with pytest.raises(SignerUnavailable):
        one.signer.sign(request(world), identity=allowed())
    assert one.signer.unready() is not None
    assert await one.publisher.beat()
    assert one.signer.unready() is None
    one.signer.sign(request(world), identity=allowed())


async def test_a_lease_that_runs_out_between_check_and_signature_signs_nothing(
    world: World, one: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped in between wakes up with a key that may have been revoked meanwhile."""
    assert isinstance(world.clock, ManualClock)
    clock, sign = world.clock, one.signer._signed

    def paused(*arguments: Any) -> list[str]:
        clock.advance(POLICY.lease_seconds)
        return sign(*arguments)

    monkeypatch.setattr(one.signer, "_signed", paused)
    with pytest.raises(SignerUnavailable, match="while signing"):
        one.signer.sign(request(world), identity=allowed())


async def test_a_key_past_its_time_signs_nothing(world: World, one: Inside) -> None:
    """Verifiers refuse what is issued later; the signer must not produce it."""
    record = one.member.replica.keys.active("ES256", Use.ACCESS)
    assert record is not None
    assert record.sign_until is not None
    assert isinstance(world.clock, ManualClock)
    world.clock.advance(record.sign_until - world.clock.now())
    await one.publisher.beat()
    with pytest.raises(SignerUnavailable, match="past the time"):
        one.signer.sign(request(world), identity=allowed())


async def test_after_a_rotation_the_new_key_signs_and_the_old_private_half_is_gone(world: World, one: Inside) -> None:
    """Retired means retired: neither memory nor store keeps what could still sign."""
    old = jwt.get_unverified_header(one.signer.sign(request(world), identity=allowed()))["kid"]
    outcome = await one.rotator.rotate("ES256", Order())
    await one.keyring.refresh()
    new = jwt.get_unverified_header(one.signer.sign(request(world), identity=allowed()))["kid"]
    assert new == outcome.kid != old
    assert one.keyring.get(old) is None
    assert old not in await world.feed.sealed_keys()


async def test_a_sealed_key_that_was_swapped_in_the_store_is_not_opened(world: World) -> None:
    """Redis in the attacker's hands: kid and use are bound into the seal."""
    made = await inside(world)
    await made.rotator.tick()
    boxes = world.feed._sealed  # type: ignore[attr-defined]
    kids = list(boxes)
    boxes[kids[0]], boxes[kids[1]] = boxes[kids[1]], boxes[kids[0]]
    newcomer = Keyring(made.keyring._sealer, world.feed, made.member.replica)  # It has no seal of its own to go by.
    assert set(await newcomer.refresh()) == {kids[0], kids[1]}
    assert newcomer.get(kids[0]) is None
    assert newcomer.get(kids[2]) is not None
    assert await made.keyring.refresh() == []  # Who sealed them goes by his own seals.
