"""Failed authentication at the door: whose it is, what it leaves behind, and by what time it is judged."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from fakeredis import FakeAsyncRedis

from keyturn import entropy
from keyturn.contract.credentials import RANDOM_BYTES, CredentialKind, make_credential, secret_hash
from keyturn.contract.errors import ReplicaExpired
from keyturn.contract.trust import Client
from serving.authentication import LONGEST_CLIENT_ID, Authenticator, require_admin
from serving.failures import OF_ADDRESS
from serving.problems import BearerError, OAuthError
from tests.building import ADMIN, CLIENT, CLIENTS, SECRETS, Standing, basic, new_access_token, standing
from tests.clocks import HastyClock

LONGEST, TOO_LONG = "x" * LONGEST_CLIENT_ID, "x" * (LONGEST_CLIENT_ID + 1)


@pytest.fixture
async def stage() -> AsyncIterator[Standing]:
    """Begin a world with clients, two of them of long names, whose clock a sleep moves on."""
    clients = {**CLIENTS, LONGEST: Client(secret_hash=secret_hash("s")), TOO_LONG: Client(secret_hash=secret_hash("s"))}
    async with standing(FakeAsyncRedis(), deaf=True, clock=HastyClock(), clients=clients) as one:
        yield one


def request(address: str, client_id: str = CLIENT, secret: str = "wrong") -> web.BaseRequest:
    """Return a request from this address."""
    return make_mocked_request("POST", "/token", headers=basic(client_id, secret)).clone(remote=address)


async def fail(authenticator: Authenticator, one: web.BaseRequest) -> int:
    """Return after how many seconds the client is told to come back."""
    assert isinstance(one, web.Request)
    with pytest.raises(OAuthError) as caught:
        await authenticator.authenticate(one, {})
    assert (caught.value.error, caught.value.status) == ("invalid_client", 401)
    return caught.value.retry_after_seconds


async def test_failures_count_against_the_address_that_they_come_from(stage: Standing) -> None:
    """Or one guesser would slow everybody's mistakes."""
    authenticator = Authenticator(stage.parts)
    for _ in range(int(OF_ADDRESS.burst)):
        assert await fail(authenticator, request("192.0.2.1")) == 0
    assert await fail(authenticator, request("198.51.100.7")) == 0
    assert await fail(authenticator, request("192.0.2.1")) == 1
    shown = stage.parts.metrics.render()
    for line in (b'slowed="false"} 21.0', b'slowed="true"} 1.0'):
        assert b'keyturn_authentication_failures_total{method="client_secret_basic",' + line in shown


async def test_a_name_without_end_takes_no_more_room_than_a_long_one(stage: Standing) -> None:
    """A limit on everything that grows: four thousand names of 8 KiB each would be 32 MiB."""
    authenticator = Authenticator(stage.parts)
    await fail(authenticator, request("192.0.2.1", "y" * 6000))
    assert {len(name) for name in authenticator._failures._of_client._left} == {LONGEST_CLIENT_ID}


async def test_a_client_has_a_longest_name(stage: Standing) -> None:
    """A route's description promises it: what is longer is as unknown as any stranger."""
    authenticator = Authenticator(stage.parts)
    good = request("192.0.2.1", LONGEST, "s")
    assert isinstance(good, web.Request)
    assert (await authenticator.authenticate(good, {})).client_id == LONGEST
    assert await fail(authenticator, request("192.0.2.1", TOO_LONG, "s")) == 0


async def test_a_clock_that_was_set_back_brings_no_operator_back(stage: Standing) -> None:
    """RFC 9068, 4: `exp` is judged by the publishers' word, too: a bad time server must not undo an hour of ends."""
    now, scope = int(stage.world.clock.now()), "keyturn:admin"
    claims = {"client_id": ADMIN, "sub": ADMIN, "scope": scope, "aud": scope}
    gone, good = await stage.put_opaque(**claims, exp=now - 60), await stage.put_opaque(**claims, exp=now + 60)
    clock = stage.parts.clock
    assert isinstance(clock, HastyClock)
    clock.set_wall(now - 3600)
    for token, passes in ((gone, False), (good, True)):
        asked = make_mocked_request("POST", "/keys/rotate", headers={"Authorization": f"Bearer {token}"})
        if passes:
            assert (await require_admin(asked, stage.records, stage.parts))["exp"] == now + 60
        else:
            with pytest.raises(BearerError):
                await require_admin(asked, stage.records, stage.parts)


async def test_exp_ends_an_operator_s_token_at_that_moment(stage: Standing) -> None:
    """No skew is forgiven to who may revoke everybody (RFC 7519, 4.1.4: on or after `exp` it must not be accepted)."""
    now = int(stage.world.clock.now())
    clock = stage.parts.clock
    assert isinstance(clock, HastyClock)
    claims = {"client_id": ADMIN, "sub": ADMIN, "scope": "keyturn:admin", "aud": "keyturn:admin"}
    token = await stage.put_opaque(**claims, exp=now + 60)
    asked = make_mocked_request("POST", "/keys/rotate", headers={"Authorization": f"Bearer {token}"})
    clock.set_wall(now + 59.5)
    assert await require_admin(asked, stage.records, stage.parts)
    clock.set_wall(now + 60.0)
    with pytest.raises(BearerError):
        await require_admin(asked, stage.records, stage.parts)


async def test_a_secret_of_any_length_is_compared_whole(stage: Standing) -> None:
    """What begins with the secret is not the secret."""
    authenticator = Authenticator(stage.parts)
    await fail(authenticator, request("192.0.2.1", CLIENT, SECRETS[CLIENT] + "x" * 4000))


async def test_an_operator_s_token_is_one_of_an_operator_s_client_for_that_very_scope(stage: Standing) -> None:
    """RFC 6750, 3.1: what only looks like it opens nothing, whoever wrote the record; the scheme has no case.

    A client that is gone, or lost the scope, is refused though its token has it still; a code is no token, whatever
    stands there; and no record lasts for ever for want of an `exp`.
    """
    admin = {"client_id": ADMIN, "sub": ADMIN, "scope": "keyturn:admin", "aud": "keyturn:admin"}
    code = make_credential(CredentialKind.CODE, entropy.token_bytes(RANDOM_BYTES))
    await stage.records.put(code, stage.world.claims(**admin), expires_at=stage.world.clock.now() + 60)
    endless = new_access_token()
    claims = {name: value for name, value in stage.world.claims(**admin).items() if name != "exp"}
    await stage.records.put(endless, claims, expires_at=stage.world.clock.now() + 60)
    for token, status in (
        (code, 401),
        (endless, 401),
        (await stage.put_opaque(**{**admin, "client_id": "ghost", "sub": "ghost"}), 401),
        (await stage.put_opaque(**{**admin, "client_id": CLIENT, "sub": CLIENT}), 401),
        (await stage.put_opaque(**{**admin, "scope": "keyturn:administrator"}), 403),
        (await stage.put_opaque(**{**admin, "scope": "read xkeyturn:admin"}), 403),
    ):
        asked = make_mocked_request("POST", "/keys/rotate", headers={"Authorization": f"Bearer {token}"})
        with pytest.raises(BearerError) as caught:
            await require_admin(asked, stage.records, stage.parts)
        assert (caught.value.status, caught.value.scope) == (status, "keyturn:admin" if status == 403 else "")
    good = await stage.put_opaque(**{**admin, "scope": "read keyturn:admin"})
    for scheme in ("bearer", "BEARER", "Bearer "):
        asked = make_mocked_request("POST", "/keys/rotate", headers={"Authorization": f"{scheme} {good}"})
        assert (await require_admin(asked, stage.records, stage.parts))["client_id"] == ADMIN


async def test_where_nothing_can_be_said_no_token_is_called_bad(stage: Standing) -> None:
    """RFC 9110, 15.6.4: an operator must not throw his token away because the feed is silent."""
    clock = stage.parts.clock
    assert isinstance(clock, HastyClock)
    clock.advance(901)
    asked = make_mocked_request("POST", "/keys/rotate", headers={"Authorization": "Bearer nonsense"})
    with pytest.raises(ReplicaExpired):
        await require_admin(asked, stage.records, stage.parts)
