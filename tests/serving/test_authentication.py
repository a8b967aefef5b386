"""Who asks: a client by its secret, an operator by an opaque token; and nobody in two ways at once."""

from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from fakeredis import FakeAsyncRedis
from multidict import CIMultiDict

from keyturn.contract.credentials import secret_hash
from keyturn.contract.errors import ReplicaExpired, StoreUnavailable
from keyturn.contract.selectors import SelectorKind
from keyturn.contract.trust import Client
from serving.authentication import Authenticator, Caller, require_admin
from serving.clientassertions import ASSERTION_TYPE
from serving.problems import BearerError, OAuthError
from tests.building import ADMIN, CLIENT, CLIENTS, SECRETS, FickleRedis, Standing, basic, new_access_token, standing
from tests.clocks import ManualClock
from tests.world import World

ODD = "odd:id/ü %"


def value(client_id: str, secret: str) -> str:
    """Return an Authorization value."""
    return basic(client_id, secret)["Authorization"]


def request(*authorization: str) -> web.Request:
    """Return a request with these Authorization headers."""
    headers = CIMultiDict([("Authorization", one) for one in authorization])
    return make_mocked_request("POST", "/token", headers=headers)


@pytest.fixture
async def stage() -> AsyncIterator[Standing]:
    """Begin a world with clients, one of them public and one with an odd name."""
    clients = {**CLIENTS, ODD: Client(secret_hash=secret_hash("s e+c:r/é")), "public": Client(secret_hash=""),
               "hollow": Client(secret_hash=secret_hash(""))}  # fmt: skip
    async with standing(FakeAsyncRedis(), deaf=True, clients=clients) as one:
        yield one


async def ask(stage: Standing, *authorization: str, **form: str) -> Caller:
    """Authenticate a request."""
    return await Authenticator(stage.parts).authenticate(request(*authorization), form)


async def refusal(stage: Standing, *authorization: str, **form: str) -> tuple[str, int, bool]:
    """Return error, status and whether Basic is named, of a request that is refused."""
    with pytest.raises(OAuthError) as caught:
        await ask(stage, *authorization, **form)
    return caught.value.error, caught.value.status, caught.value.basic


async def test_a_client_proves_itself_by_basic_or_by_the_form(stage: Standing) -> None:
    """RFC 6749, 2.3.1; both are what clients in the field use."""
    assert await ask(stage, value(CLIENT, SECRETS[CLIENT])) == Caller(CLIENT, CLIENTS[CLIENT], "client_secret_basic")
    posted = await ask(stage, client_id=CLIENT, client_secret=SECRETS[CLIENT])
    assert posted.method == "client_secret_post"
    assert (await ask(stage, value(CLIENT, SECRETS[CLIENT]), client_id=CLIENT)).client_id == CLIENT
    for spelling in ("bAsIc ", "Basic  "):  # RFC 9110, 11.1 and 11.4.
        assert (await ask(stage, value(CLIENT, SECRETS[CLIENT]).replace("Basic ", spelling))).client_id == CLIENT


async def test_who_was_let_in_by_a_header_is_known_by_it_and_held_to_the_rest(stage: Standing) -> None:
    """The second look says what the first would: to another proof beside it, another client_id, a new secret."""
    authenticator, good = Authenticator(stage.parts), value(CLIENT, SECRETS[CLIENT])

    async def once(*authorization: str, **form: str) -> Caller:
        return await authenticator.authenticate(request(*authorization), form)

    first = await once(good)
    assert await once(good) is first
    assert await once(good, client_id=CLIENT) is first
    for authorization, form in (
        ([good], {"client_secret": SECRETS[CLIENT]}),
        ([good], {"client_assertion": "x"}),
        ([good], {"client_assertion_type": "x"}),
        ([good], {"client_id": ADMIN}),
        ([good, good], {}),
    ):
        with pytest.raises(OAuthError) as caught:
            await once(*authorization, **form)
        assert caught.value.status == 400
    changed = {**CLIENTS, CLIENT: msgspec.structs.replace(CLIENTS[CLIENT], secret_hash=secret_hash("another"))}
    stage.member.replica.adopt_trust(stage.world.trust(version=2, clients=changed))
    with pytest.raises(OAuthError):
        await once(good)
    assert (await once(value(CLIENT, "another"))).client == changed[CLIENT]


async def test_basic_is_form_decoded(stage: Standing) -> None:
    """Checklist (4), RFC 6749, 2.3.1: an id with a colon, a space and a letter beyond ASCII is decoded."""
    assert (await ask(stage, value(ODD, "s e+c:r/é"))).client_id == ODD


async def test_two_ways_at_once_are_refused(stage: Standing) -> None:
    """Checklist (4): one client authentication only (RFC 6749, 2.3)."""
    good = value(CLIENT, SECRETS[CLIENT])
    for authorization, form in (
        ([good], {"client_id": CLIENT, "client_secret": SECRETS[CLIENT]}),
        ([good, good], {}),
        ([good], {"client_id": ADMIN}),
    ):
        error, status, _ = await refusal(stage, *authorization, **form)
        assert (error, status) == ("invalid_request", 400)


@pytest.mark.parametrize(
    ("authorization", "form"),
    [
        ([value(CLIENT, SECRETS[ADMIN])], {}),
        ([value("nobody", SECRETS[CLIENT])], {}),
        ([value("public", "")], {}),
        ([value(CLIENT, "")], {}),
        ([value("", "")], {}),
        (["Basic " + b64encode(b"no colon").decode()], {}),
        (["Basic !!!"], {}),
        (["Basic"], {}),
        (["Basic " + b64encode(b"\xff:\xff").decode()], {}),
        (["Basic " + b64encode(b"%ff:x").decode()], {}),
        (["Bearer " + SECRETS[CLIENT]], {}),
        ([], {"client_id": CLIENT, "client_secret": "wrong"}),
        ([], {"client_id": "public"}),
        ([], {"client_id": CLIENT}),
        ([], {"client_id": CLIENT, "client_secret": SECRETS[CLIENT] + "x" * 600}),
        ([value(CLIENT, SECRETS[CLIENT])[:-4] + "!" + value(CLIENT, SECRETS[CLIENT])[-4:]], {}),
        ([value("hollow", "")], {}),
        ([], {"client_id": "hollow", "client_secret": ""}),
        ([], {"client_assertion": "eyJ", "client_id": CLIENT}),
        ([], {"client_assertion_type": ASSERTION_TYPE, "client_id": CLIENT}),
        ([], {}),
    ],
)
async def test_whoever_does_not_prove_itself_is_an_invalid_client(
    stage: Standing, authorization: list[str], form: dict[str, str]
) -> None:
    """Unknown, public and wrong look alike; Basic is named in the answer exactly if it was tried (RFC 6749, 5.2)."""
    assert await refusal(stage, *authorization, **form) == ("invalid_client", 401, bool(authorization))


REDIRECTS: Any = ({"uri": "https://app.example/back"},)
APP = Client(secret_hash="", grant_types=("authorization_code", "refresh_token"))


async def test_a_public_client_is_known_by_its_name_where_public_clients_may_ask(stage: Standing) -> None:
    """RFC 6749, 2.1: it has no secret to prove itself by; 3.2.1: `client_id` says who asks."""
    trust = stage.world.trust(version=2, clients={"app": APP}, roles=roles_of(stage, **{"redirects:app": REDIRECTS}))
    stage.member.replica.adopt_trust(trust)
    authenticator = Authenticator(stage.parts)
    assert await authenticator.authenticate(request(), {"client_id": "app"}, public=True) == Caller("app", APP, "none")
    for authorization, form, public in (
        ([], {"client_id": "app"}, False),  # Such as introspection (checklist, introspection 2).
        ([], {"client_id": "app", "client_secret": "x"}, True),
        ([value("app", "")], {}, True),
        ([value("app", "")], {"client_id": "app"}, True),
        ([], {}, True),
        ([], {"client_id": "nobody"}, True),
    ):
        with pytest.raises(OAuthError) as caught:
            await authenticator.authenticate(request(*authorization), form, public=public)
        assert (caught.value.error, caught.value.status) == ("invalid_client", 401)


@pytest.mark.parametrize(
    ("changes", "roles"),
    [
        ({"secret_hash": secret_hash("s")}, {"redirects:app": REDIRECTS}),
        ({}, {"redirects:app": REDIRECTS, "client:app": ({"kty": "OKP"},)}),
        ({}, {}),
        ({}, {"redirects:app": ({"uri": "http://app.example/"}, {"url": "https://app.example/"}, {"uri": 1})}),
        ({}, {"redirects:other": REDIRECTS}),
        ({"grant_types": ()}, {"redirects:app": REDIRECTS}),
        ({"grant_types": ("client_credentials", "authorization_code")}, {"redirects:app": REDIRECTS}),
        ({"may_introspect": True}, {"redirects:app": REDIRECTS}),
    ],
)
async def test_who_only_lost_its_secret_is_no_public_client(
    stage: Standing, changes: dict[str, Any], roles: dict[str, Any]
) -> None:
    """A mistake in the trust document must take a client's access away, not its need for a proof."""
    clients = {"app": msgspec.structs.replace(APP, **changes)}
    stage.member.replica.adopt_trust(stage.world.trust(version=2, clients=clients, roles=roles_of(stage, **roles)))
    with pytest.raises(OAuthError) as caught:
        await Authenticator(stage.parts).authenticate(request(), {"client_id": "app"}, public=True)
    assert caught.value.error == "invalid_client"


def roles_of(stage: Standing, **more: Any) -> Any:
    """Return the roles of the world's trust document and others."""
    return {**stage.world.document().roles, **more}


async def test_without_a_trust_document_nobody_is_called_unknown() -> None:
    """A service that has read nothing yet must not tell a good client that its secret is wrong."""
    async with standing(FakeAsyncRedis(), deaf=True) as stage:
        unread = replace(stage.parts, replica=World(clock=ManualClock()).member().replica)
        with pytest.raises(ReplicaExpired):
            await Authenticator(unread).authenticate(request(value(CLIENT, SECRETS[CLIENT])), {})


async def admin_token(stage: Standing, **changes: Any) -> str:
    """Return an operator's token."""
    claims = {"client_id": ADMIN, "sub": ADMIN, "scope": "keyturn:admin", "aud": "keyturn:admin"}
    return await stage.put_opaque(**(claims | changes))


async def administer(stage: Standing, *authorization: str) -> dict[str, Any]:
    """Ask as an operator."""
    return await require_admin(request(*authorization), stage.records, stage.parts)


async def test_an_operator_is_let_in_by_an_opaque_admin_token(stage: Standing) -> None:
    """The one way in."""
    assert (await administer(stage, f"Bearer {await admin_token(stage)}"))["client_id"] == ADMIN


async def test_every_other_token_is_refused_with_a_challenge(stage: Standing) -> None:
    """RFC 6750, 3.1: 401 for what is no good token, 403 for one without the scope, 400 for two."""
    now = stage.world.clock.now()
    good = await admin_token(stage)
    revoked = await admin_token(stage, jti="019ab0f5-0000-7000-8000-000000000001")
    await stage.revoke(stage.world.entry(SelectorKind.JTI,
                                         "019ab0f5-0000-7000-8000-000000000001"))  # fmt: skip
    for authorization, status, error in (
        ([], 401, ""),
        (["Basic abc"], 401, ""),
        (["Bearer nonsense"], 401, "invalid_token"),
        ([f"Bearer {new_access_token()}"], 401, "invalid_token"),
        ([f"Bearer {SECRETS[ADMIN]}"], 401, "invalid_token"),
        ([f"Bearer {revoked}"], 401, "invalid_token"),
        ([f"Bearer {await admin_token(stage, exp=int(now) - 1)}"], 401, "invalid_token"),
        ([f"Bearer {await admin_token(stage, iss='https://other.example')}"], 401, "invalid_token"),
        ([f"Bearer {await admin_token(stage, client_id='gone')}"], 401, "invalid_token"),
        ([f"Bearer {await admin_token(stage, client_id=CLIENT)}"], 401, "invalid_token"),
        ([f"Bearer {await admin_token(stage, sub='alice')}"], 401, "invalid_token"),
        ([f"Bearer {await admin_token(stage, scope='read')}"], 403, "insufficient_scope"),
        ([f"Bearer {good}", f"Bearer {good}"], 400, "invalid_request"),
    ):
        with pytest.raises(BearerError) as caught:
            await administer(stage, *authorization)
        assert (caught.value.status, caught.value.error) == (status, error)


async def test_a_jwt_never_opens_an_admin_route(stage: Standing) -> None:
    """A stolen signing key must not be able to make an operator."""
    await stage.publish(*stage.world.first_key())
    token = stage.world.mint(client_id=ADMIN, sub=ADMIN, scope="keyturn:admin", aud="keyturn:admin")
    with pytest.raises(BearerError):
        await administer(stage, f"Bearer {token.decode()}")


async def test_an_admin_token_revoked_elsewhere_is_refused_at_once(stage: Standing) -> None:
    """This replica is deaf: only the position that is read beside the record tells it to catch up."""
    token = await admin_token(stage)
    await stage.revoke(
        stage.world.entry(SelectorKind.CLIENT, ADMIN, before=stage.world.clock.now() + 1), elsewhere=True
    )
    with pytest.raises(BearerError):
        await administer(stage, f"Bearer {token}")


async def test_where_nothing_can_be_said_an_operator_hears_503() -> None:
    """An expired replica, or a store that is away, is neither yes nor no."""
    store, clock = FickleRedis(), ManualClock()
    async with standing(store, deaf=True, clock=clock) as stage:
        token = await admin_token(stage)
        store.away = True
        with pytest.raises(StoreUnavailable):
            await administer(stage, f"Bearer {token}")
        store.away = False
        clock.advance(901)
        with pytest.raises(ReplicaExpired):
            await administer(stage, f"Bearer {token}")
