"""Keys for every use: what signs what, and that no use stands in for another."""

from typing import Any

import jwt
import pytest

from keyservice.rotator import Order
from keyservice.signer import Request
from keyturn.contract.encoding import b64url, encode_json
from keyturn.contract.errors import SignerUnavailable, SigningRefused
from keyturn.contract.jwk import ALGORITHMS
from keyturn.contract.keys import Phase, Use
from keyturn.contract.purposes import ACCESS_TOKEN, INTROSPECTION_ANSWER, PURPOSES, SECURITY_EVENT, STATUS_LIST
from keyturn.process.rotation import IntrospectionKeysSettings, StatusKeysSettings, derived
from tests.clocks import ManualClock
from tests.keyservice.building import POLICY, Inside, allowed, inside
from tests.world import AUDIENCE, World, policy

STATUS = derived(POLICY, Use.STATUS, StatusKeysSettings())
INTROSPECTION = derived(POLICY, Use.INTROSPECTION, IntrospectionKeysSettings())
OTHERS = (INTROSPECTION, STATUS)
CLAIMS: dict[str, dict[str, Any]] = {
    ACCESS_TOKEN: {"aud": AUDIENCE, "sub": "alice"},
    INTROSPECTION_ANSWER: {"aud": "resource", "token_introspection": {"active": False}},
    STATUS_LIST: {"sub": "https://issuer.example/statuslists/1", "status_list": {"bits": 1, "lst": ""}},
    SECURITY_EVENT: {"aud": "receiver", "jti": "1", "events": {}},
}


@pytest.fixture
async def world() -> World:
    """Return a world whose feed has begun."""
    return await World().begin()


@pytest.fixture
async def one(world: World) -> Inside:
    """Return a key service with open keys of every use."""
    made = await inside(world, others=OTHERS)
    assert await made.rotator.tick() == len(Use)
    assert await made.keyring.refresh() == []
    return made


def sign(one: Inside, typ: str, **changes: Any) -> str:
    """Sign good claims of a type, changed, for a service that may have that type signed."""
    claims = {name: value for name, value in (CLAIMS[typ] | changes).items() if value is not None}
    return one.signer.sign(Request(typ, claims), identity=allowed(typ))


def kid_of(token: str) -> str:
    """Return the kid that a token names."""
    return str(jwt.get_unverified_header(token)["kid"])


def claims_of(token: str) -> dict[str, Any]:
    """Return what a token says."""
    told: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return told


@pytest.mark.parametrize("typ", PURPOSES)
async def test_each_type_is_signed_by_a_key_of_its_own_use(one: Inside, typ: str) -> None:
    """Architecture, Trust: access tokens, introspection answers and status lists use different keys."""
    key = one.member.replica.keys.get(kid_of(sign(one, typ)))
    assert key is not None
    assert (key.use, key.phase) == (PURPOSES[typ].use, Phase.ACTIVE)


async def test_a_batch_of_all_types_gives_each_its_own_key_and_place(one: Inside) -> None:
    """The signing listener takes them mixed; a signature by a neighbour's key would pass for another type."""
    types = [*PURPOSES, *reversed(list(PURPOSES))]
    identity = allowed()
    for typ in PURPOSES:
        may_sign = (*identity.may_sign, *allowed(typ).may_sign)
        identity = type(identity)(kind=identity.kind, jwk={}, may_sign=may_sign)
    tokens = one.signer.sign_all([Request(typ, CLAIMS[typ]) for typ in types], identity=identity)
    for typ, token in zip(types, tokens, strict=True):
        record = one.member.replica.keys.get(kid_of(token))
        assert record is not None
        jwt.decode(
            token,
            jwt.PyJWK(record.jwk | {"alg": record.alg}),
            options={"verify_aud": False, "verify_exp": False, "verify_iat": False},
        )
        assert (jwt.get_unverified_header(token)["typ"], record.use) == (typ, PURPOSES[typ].use)


async def test_answers_and_events_have_no_exp_and_are_refused_with_one(one: Inside) -> None:
    """RFC 9701, 5 (SHOULD NOT) and RFC 8417, 2.2 (NOT RECOMMENDED): an `exp` makes them look like a token."""
    for typ in (INTROSPECTION_ANSWER, SECURITY_EVENT):
        assert claims_of(sign(one, typ)).keys() == CLAIMS[typ].keys() | {"iss", "iat"}
        for exp in (2e9, 0, False):
            with pytest.raises(SigningRefused, match="has no exp"):
                sign(one, typ, exp=exp)


async def test_a_status_list_expires_with_its_own_life_and_is_for_everybody(world: World, one: Inside) -> None:
    """Token Status List, 5.1: `exp`, and no `aud`; the cap is T of status keys, not of access tokens."""
    now = int(world.clock.now())
    assert claims_of(sign(one, STATUS_LIST))["exp"] == now + STATUS.token_seconds
    assert claims_of(sign(one, STATUS_LIST, exp=now + 600))["exp"] == now + 600
    assert claims_of(sign(one, STATUS_LIST, exp=now + 10**7))["exp"] == now + STATUS.token_seconds
    assert claims_of(sign(one, ACCESS_TOKEN, exp=now + 10**7))["exp"] == now + POLICY.token_seconds
    with pytest.raises(SigningRefused, match="has no audience"):
        sign(one, STATUS_LIST, aud=AUDIENCE)


@pytest.mark.parametrize("typ", [INTROSPECTION_ANSWER, SECURITY_EVENT])
@pytest.mark.parametrize("aud", [None, [], 7, {"resource": 1}])
async def test_an_answer_or_event_for_nobody_is_refused(one: Inside, typ: str, aud: object) -> None:
    """RFC 9701, 5: `aud` identifies the resource server that receives the answer; else it would be anybody's."""
    with pytest.raises(SigningRefused, match="audience"):
        sign(one, typ, aud=aud)


@pytest.mark.parametrize("typ", ["", "JWT", "AT+JWT", "logout+jwt", "keyturn-event+jws", "keyturn-head+jws"])
async def test_a_type_that_no_key_is_for_is_refused_whatever_the_root_says(one: Inside, typ: str) -> None:
    """An entry that a careless root signed must not have our statements, or any JWT, made by a token key."""
    with pytest.raises(SigningRefused):
        one.signer.sign(Request(typ, CLAIMS[ACCESS_TOKEN]), identity=allowed(typ))


@pytest.mark.parametrize("use", [Use.INTROSPECTION, Use.STATUS])
async def test_no_verifier_takes_an_access_token_by_a_key_of_another_use(world: World, one: Inside, use: Use) -> None:
    """Who steals the key of status lists has none of access tokens; the signature is genuine, and it is refused."""
    verifier = (await world.caught_up()).verifier
    good = sign(one, ACCESS_TOKEN, **world.claims(iss=None, iat=None))
    assert verifier.judge(good.encode(), policy()).kind == "active"
    key = one.member.replica.keys.active("ES256", use)
    assert key is not None
    private = one.keyring.get(key.kid)
    header = encode_json({"alg": "ES256", "kid": key.kid, "typ": ACCESS_TOKEN})
    head = f"{b64url(header)}.{b64url(encode_json(claims_of(good)))}".encode()
    signature: bytes = ALGORITHMS["ES256"].sign(head, private)
    forged = head + b"." + b64url(signature).encode()
    jwt.api_jws.decode(forged, jwt.PyJWK(key.jwk | {"alg": "ES256"}))
    assert verifier.judge(forged, policy()).kind == "inactive"


@pytest.mark.parametrize("typ", [INTROSPECTION_ANSWER, STATUS_LIST, SECURITY_EVENT])
async def test_nothing_else_that_is_signed_passes_for_an_access_token(world: World, one: Inside, typ: str) -> None:
    """RFC 8725, 3.11 and RFC 9701, 8.1: even one with all of a token's claims, by whatever key."""
    claims = world.claims(iss=None, iat=None, exp=None, aud=None if typ == STATUS_LIST else AUDIENCE)
    verifier = (await world.caught_up()).verifier
    assert verifier.judge(sign(one, typ, **claims).encode(), policy()).kind == "inactive"


async def test_a_deployment_of_one_use_gains_the_others_with_no_gap_in_access(world: World) -> None:
    """An upgrade: the first tick begins the missing uses, and the access key that signs goes on as it was."""
    before = await inside(world)
    await before.rotator.tick()
    await before.keyring.refresh()
    held = {key.kid: key for key in before.member.replica.keys}
    signing = kid_of(sign(before, ACCESS_TOKEN))

    after = await inside(world, others=OTHERS)
    await after.keyring.refresh()
    await after.publisher.beat()
    assert kid_of(sign(after, ACCESS_TOKEN)) == signing
    for typ in (INTROSPECTION_ANSWER, STATUS_LIST):
        with pytest.raises(SignerUnavailable):
            sign(after, typ)
    assert after.signer.unready() == "no active ES256 key of use introspection yet"
    assert await after.rotator.tick() == len(OTHERS)
    await after.keyring.refresh()
    assert after.signer.unready() is None
    keys = after.member.replica.keys
    assert {key.kid: key for key in keys if key.use is Use.ACCESS} == held
    for rules in OTHERS:
        phases = [key.phase for key in keys if key.use is rules.use]
        assert phases == [Phase.ACTIVE] + [Phase.PUBLISHED] * rules.standbys
    assert kid_of(sign(after, ACCESS_TOKEN)) == signing
    # The old process, which knows nothing of the other uses, goes on beside it.
    await before.member.follower._read_all()
    assert await before.rotator.tick() == 0
    await before.publisher.beat()
    assert kid_of(sign(before, ACCESS_TOKEN)) == signing


async def test_an_emergency_of_one_use_takes_a_standby_of_that_use(one: Inside) -> None:
    """A standby of another use would sign what verifiers refuse by it."""
    keys = one.member.replica.keys
    active = {use: keys.active("ES256", use) for use in Use}
    standby = keys.standby("ES256", Use.STATUS)
    leaked = active[Use.STATUS]
    assert leaked is not None
    assert standby is not None
    outcome = await one.rotator.revoke(leaked.kid, Order(reason="leaked"))
    assert (outcome.kid, outcome.active) == (standby.kid, True)
    keys = one.member.replica.keys
    assert {use: keys.active("ES256", use) for use in (Use.ACCESS, Use.INTROSPECTION)} == {
        use: active[use] for use in (Use.ACCESS, Use.INTROSPECTION)
    }
    assert len(keys.of("ES256", Use.STATUS, Phase.PUBLISHED)) == STATUS.standbys


async def test_each_use_rotates_by_its_own_period_and_goes_by_its_own_life(world: World) -> None:
    """Rule 2 for each use: a status key stays as long as its lists live, which is longer than a token does."""
    clock = world.clock
    assert isinstance(clock, ManualClock)
    own = derived(POLICY, Use.STATUS, StatusKeysSettings(active=7 * POLICY.active_seconds))
    one = await inside(world, others=(own,))
    await one.rotator.tick()
    first = {use: one.member.replica.keys.active("ES256", use) for use in (Use.ACCESS, Use.STATUS)}
    gone: dict[Use, float] = {}
    retired: dict[Use, float] = {}
    for _ in range(40 * 24):
        clock.advance(POLICY.active_seconds / 4)
        await one.publisher.beat()
        await one.rotator.tick()
        for use, key in first.items():
            assert key is not None
            now = one.member.replica.keys.get(key.kid)
            if now is not None and now.retiring_at is not None:
                retired.setdefault(use, now.retiring_at)
            if now is None or now.removed_at is not None:
                gone.setdefault(use, clock.now())
        if len(gone) == len(first):
            break
    step = POLICY.active_seconds / 4
    for use, rules in ((Use.ACCESS, POLICY), (Use.STATUS, own)):
        key = first[use]
        assert key is not None
        assert key.active_at is not None
        assert rules.active_seconds <= retired[use] - key.active_at <= rules.active_seconds + step
        assert gone[use] - retired[use] >= rules.token_seconds + 2 * rules.skew_seconds
    assert gone[Use.STATUS] - retired[Use.STATUS] > POLICY.token_seconds + 2 * step
