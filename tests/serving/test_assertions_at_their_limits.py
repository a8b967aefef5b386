"""private_key_jwt at its limits: what just fits is taken, what is past it is not; and what is written of failures."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from fakeredis import FakeAsyncRedis

from keyturn import entropy
from keyturn.contract.errors import InvalidToken
from keyturn.contract.jwk import public_jwk
from serving.authentication import Authenticator
from serving.clientassertions import (
    ASSERTION_TYPE,
    LARGEST_ASSERTION_BYTES,
    LONGEST_JTI,
    LONGEST_LIFE_SECONDS,
    MOST_KEYS,
    read_assertion,
)
from serving.problems import OAuthError
from serving.routing import facts_of
from tests.building import Standing
from tests.clocks import ManualClock
from tests.serving.test_clientassertions import MINE, PUBLIC, SIGNING, Maker, ask, refused, register, signing_client
from tests.world import World


@pytest.fixture
async def stage() -> AsyncIterator[Standing]:
    """Begin a world in which `signing` has keys."""
    async with signing_client(FakeAsyncRedis()) as one:
        yield one


async def test_a_clock_that_was_set_back_takes_no_assertion_that_has_expired(stage: Standing) -> None:
    """RFC 7523, 3: `exp` is judged by the publishers' word, too.

    Its mark in the store is gone by the time: what was used before could be used again.
    """
    clock = stage.world.clock
    assert isinstance(clock, ManualClock)
    now = int(clock.now())
    maker = Maker(stage.world)
    gone, good = maker.make(iat=now - 90, exp=now - 30), maker.make()
    clock.set_wall(now - 3600.0)
    assert "the assertion has expired" in str(await refused(stage, gone))
    assert (await ask(stage, good)).client_id == SIGNING


def test_what_just_fits_is_taken() -> None:
    """Limits are promised in the reference: one character less would break whoever keeps to them."""
    world = World(clock=ManualClock())
    maker, now, skew = Maker(world), int(world.clock.now()), 2

    def read(text: str, at: float = now) -> str:
        return read_assertion(text, issuer=world.issuer, now=at, skew_seconds=skew).jti

    assert len(read(maker.make(jti="x" * LONGEST_JTI))) == LONGEST_JTI
    plain = maker.make(jti="one")
    padding = (LARGEST_ASSERTION_BYTES - len(plain)) * 3 // 4
    fitting = [maker.make(jti="one", note="x" * (padding - cut)) for cut in range(30)]
    assert {read(one) for one in fitting if len(one) <= LARGEST_ASSERTION_BYTES} == {"one"}
    assert max(len(one) for one in fitting if len(one) <= LARGEST_ASSERTION_BYTES) >= LARGEST_ASSERTION_BYTES - 1
    farthest = maker.make(jti="one", exp=int(now + LONGEST_LIFE_SECONDS + skew))
    assert read(farthest) == "one"
    with pytest.raises(InvalidToken, match="exp is at most"):
        read(farthest, at=now - 0.001)
    for name in ("application/jwt", "JWT", "Client-Authentication+JWT"):
        assert read(maker.make(jti="one", header={"typ": name})) == "one"


@pytest.mark.parametrize(
    ("header", "changes"),
    [
        ({"x5c": ["MIIB"]}, {}),
        ({"b64": True}, {}),
        ({"typ": "at+jwt"}, {}),
        ({"typ": "application/at+jwt"}, {}),
        ({"alg": 7}, {}),
        ({"alg": ["ES256"]}, {}),
        ({}, {"sub": "", "iss": ""}),
        ({}, {"sub": 7, "iss": 7}),
        ({}, {"sub": ["a"], "iss": ["a"]}),
        ({}, {"aud": "https://issuer.example/"}),
        ({}, {"aud": {"https://issuer.example": 1}}),
        ({}, {"exp": -1}),
        ({}, {"nbf": True}),
        ({}, {"nbf": -1}),
        ({}, {"iat": 1e12}),
    ],
)  # fmt: skip
def test_what_is_of_another_shape_is_refused_by_a_word(header: dict[str, Any], changes: dict[str, Any]) -> None:
    """RFC 8725, 3.11 and RFC 7523, 3: neither taken nor a stack trace, whatever a claim is made of."""
    world = World(clock=ManualClock())
    sent = Maker(world).make(header=header, **changes)
    with pytest.raises(InvalidToken):
        read_assertion(sent, issuer=world.issuer, now=world.clock.now(), skew_seconds=2)


async def test_a_client_has_at_most_so_many_keys(stage: Standing) -> None:
    """What is tried for an assertion that names no key costs as many signature checks."""
    fillers = [{**public_jwk(entropy.new_key("ES256").public_key()), "kid": f"k{n}"} for n in range(MOST_KEYS)]
    mine = PUBLIC[0]
    maker = Maker(stage.world)
    for version, (keys, taken) in enumerate((([*fillers[1:], mine], True), ([*fillers, mine], False)), start=3):
        register(stage, keys, version=version)
        for kid in (None, "ES256"):
            assertion = maker.make(header={"kid": kid})
            if taken:
                assert (await ask(stage, assertion)).client_id == SIGNING
            else:
                assert (await refused(stage, assertion)).status == 401


async def test_a_key_without_a_name_is_tried_for_each_assertion(stage: Standing) -> None:
    """RFC 7517, 4.5: `kid` is optional on both sides."""
    unnamed = {name: value for name, value in PUBLIC[0].items() if name not in ("kid", "alg")}
    register(stage, [unnamed], version=3)
    for kid in (None, "ES256", "whatever"):
        assert (await ask(stage, Maker(stage.world).make(header={"kid": kid}))).client_id == SIGNING


async def test_each_failure_is_counted_and_its_line_says_which_it_was(stage: Standing) -> None:
    """The caller hears little (RFC 6749, 5.2): an operator has to tell a lost key from a replay."""
    maker, authenticator = Maker(stage.world), Authenticator(stage.parts)
    good = maker.make()
    sent = [maker.make(exp=1), maker.make(key=entropy.new_key("ES256")), maker.make(iss="nobody", sub="nobody"), good]
    await authenticator.authenticate(make_mocked_request("POST", "/token"), form_of(good))
    told = []
    for one in sent:
        request = make_mocked_request("POST", "/token")
        with pytest.raises(OAuthError):
            await authenticator.authenticate(request, form_of(one))
        told.append(facts_of(request)["refused"])
    assert told == ["expired", "signature", "signature", "used_before"]
    counted = b'keyturn_authentication_failures_total{method="private_key_jwt",slowed="false"} 4.0'
    assert counted in stage.parts.metrics.render()


def form_of(assertion: str) -> dict[str, str]:
    """Return the parameters of a form that brings it."""
    return {"client_assertion": assertion, "client_assertion_type": ASSERTION_TYPE}


async def test_one_client_s_use_of_a_jti_is_not_another_s(stage: Standing) -> None:
    """RFC 7519, 4.1.7: a `jti` is unique for its issuer; nor may two names run into one another."""
    other = "sign"
    clients = {**stage.world.document().clients, other: stage.world.document().clients[SIGNING]}
    roles = {**stage.world.document().roles, "client:sign": tuple(PUBLIC), "client:signing": tuple(PUBLIC)}
    stage.member.replica.adopt_trust(stage.world.trust(version=3, clients=clients, roles=roles))
    maker = Maker(stage.world)
    assert (await ask(stage, maker.make(jti="x"))).client_id == SIGNING
    assert (await ask(stage, maker.make(iss=other, sub=other, jti="ingx"))).client_id == other
    assert (await ask(stage, maker.make(iss=other, sub=other, jti="x"))).client_id == other
    assert "used before" in str(await refused(stage, maker.make("EdDSA", jti="x", key=MINE["EdDSA"])))
