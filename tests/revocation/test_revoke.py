"""`POST /revoke`, RFC 7009: each line of the endpoint checklist, on a real Valkey."""

import asyncio

import pytest
from aiohttp import FormData, encode_basic_auth
from redis.asyncio import Redis
from structlog.testing import capture_logs

from keyturn import entropy
from keyturn.contract.errors import FeedUnavailable, StoreUnavailable, Unconfirmed
from keyturn.contract.keys import Retired, Revoked
from keyturn.contract.positions import Lane
from keyturn.feed.redis import stream_key
from tests.building import ADMIN, CLIENT, RESOURCE, SECRETS
from tests.families import begin_turned, new_refresh_token
from tests.revocation.conftest import APP, VERIFIER, Office, authorization
from tests.waiting import eventually

AUTH = authorization(CLIENT)


async def test_a_revoked_jwt_is_refused_by_a_verifier_far_away(office: Office) -> None:
    """What the whole service is for."""
    token = office.jwt()
    assert office.passes(token)
    assert await office.revoke(token) == (200, None)
    await eventually(lambda: not office.passes(token))


async def test_a_revoked_opaque_token_is_gone_from_the_store_and_on_the_feed(office: Office) -> None:
    """Append first, then delete the record: both must have happened at 200."""
    token = await office.opaque(jti="the-jti")
    assert await office.revoke(token) == (200, None)
    assert await office.records.get(token) is None
    replica = office.stage.parts.replica
    assert replica.revokes(replica.names(office.stage.world.claims(jti="the-jti")))


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "kt_at_short", "eyJhbGciOiJub25lIn0.e30."])
async def test_what_is_no_token_of_ours_is_200_and_changes_nothing(office: Office, token: str) -> None:
    """Checklist 1, RFC 7009, 2.2: the purpose, that it cannot be used, is reached already."""
    assert (await office.revoke(token), office.position) == ((200, None), (1, 0))


async def test_an_unknown_opaque_token_is_200(office: Office) -> None:
    """Checklist 1, RFC 7009, 2.2: one that never was, or whose record ran out."""
    token = await office.opaque()
    await office.records.delete(token)
    assert (await office.revoke(token), office.position) == ((200, None), (1, 0))


async def test_a_token_that_was_revoked_before_is_200_again(office: Office) -> None:
    """Checklist 1, RFC 7009, 2.2: a retry after a lost answer must not fail, nor make the lane grow."""
    for token in (office.jwt(), await office.opaque()):
        assert await office.revoke(token) == (200, None)
        held = office.position
        assert (await office.revoke(token), office.position) == ((200, None), held)


async def test_the_record_of_what_a_selector_has_ended_goes_when_its_client_revokes_it(office: Office) -> None:
    """Checklist 8, RFC 7009, 2.2: it has no use any more, whoever was first; a store keeps no more than it has to."""
    token = await office.opaque(jti="the-jti")
    assert (await office.admin("POST", "/revocations", {"selector": {"jti": "the-jti"}}))[0] == 200
    assert await office.records.get(token) is not None
    assert (await office.revoke(token), office.position) == ((200, None), (1, 1))
    assert await office.records.get(token) is None


async def test_a_jwt_that_has_just_expired_is_revoked_all_the_same(office: Office) -> None:
    """Checklist 9, RFC 7009, 2: a verifier whose clock is a moment behind would still take it."""
    now = int(office.stage.world.clock.now())
    assert await office.revoke(office.jwt(iat=now - 310, exp=now - 10)) == (200, None)
    assert office.position == (1, 1)


async def test_a_long_expired_jwt_is_200_without_an_event(office: Office) -> None:
    """Checklist 1, RFC 7009, 2.2: nothing accepts it any more, so there is nothing to remember."""
    now = int(office.stage.world.clock.now())
    token = office.jwt(iat=now - 4000, exp=now - 3600)
    assert (await office.revoke(token), office.position) == ((200, None), (1, 0))


async def test_a_public_client_revokes_its_own_token_by_its_name_and_no_other(office: Office) -> None:
    """RFC 7009, 2.1: only that the token was issued to it is looked at; an app on a phone has no secret to prove."""
    tokens = [office.jwt(client_id=APP), office.jwt()]
    told = []
    for token in tokens:
        async with office.http.post("/revoke", data={"token": token, "client_id": APP}) as response:
            told.append(response.status)
    assert told == [200, 400]
    await eventually(lambda: not office.passes(tokens[0]))
    assert office.passes(tokens[1])


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "nonsense"])
async def test_a_hint_only_orders_the_search(office: Office, hint: str) -> None:
    """Checklist 2, RFC 7009, 2.1: a wrong hint must not save a token."""
    for sequence, token in enumerate((office.jwt(), await office.opaque()), start=1):
        assert await office.revoke(token, token_type_hint=hint) == (200, None)
        assert office.position == (1, sequence)


async def test_another_clients_token_is_not_revoked(office: Office) -> None:
    """Checklist 3: refused and told (RFC 7009, 2.1; RFC 6749, 5.2)."""
    for token in (office.jwt(client_id="somebody"), await office.opaque(client_id="somebody")):
        status, told = await office.revoke(token)
        assert (status, told["error"], office.position) == (400, "invalid_grant", (1, 0))
    assert office.passes(office.jwt(client_id="somebody"))


async def test_a_dead_store_is_503_whatever_the_token(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checklist 4, RFC 7009, 2.2.1: a 200 would be a promise that nobody keeps, of a token that lives."""
    tokens = [office.jwt(), await office.opaque(), "nonsense"]
    revoked = office.jwt()
    await office.revoke(revoked)

    async def dead(*_arguments: object, **_options: object) -> None:
        raise StoreUnavailable("gone")

    async def silent(*_arguments: object, **_options: object) -> None:
        raise FeedUnavailable("gone")

    monkeypatch.setattr("serving.records.RecordStore.get", dead)
    monkeypatch.setattr("serving.records.RecordStore.positions", dead)
    monkeypatch.setattr("keyturn.feed.redis.RedisFeed.append", silent)
    for token in [*tokens, revoked]:
        async with office.http.post("/revoke", data={"token": token}, headers=AUTH) as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "1")
            assert (await response.json())["error"] == "temporarily_unavailable"


async def test_what_is_not_durable_enough_is_no_200_for_whoever_asks_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist 8, RFC 7009, 2.2.1: an order that finds nothing left to do rests on what nobody could confirm."""
    now = int(office.stage.world.clock.now())
    revoked = office.jwt()
    assert await office.revoke(revoked) == (200, None)

    async def unconfirmed(*_arguments: object) -> None:
        raise Unconfirmed(lane="revocations", place=(1, 1), wanted="replicated", found="local")

    monkeypatch.setattr("serving.receipts.Vouching.require", unconfirmed)
    for token in (revoked, "nonsense", office.jwt(iat=now - 4000, exp=now - 3600)):
        assert (await office.revoke(token))[0] == 503


@pytest.mark.parametrize("left_seconds", [300, -10])
async def test_a_key_that_we_have_not_read_yet_is_looked_for_before_200(
    office: Office, monkeypatch: pytest.MonkeyPatch, left_seconds: int
) -> None:
    """A replica that is a moment behind must not call a live token unknown, nor one that ran out a moment ago."""
    world, verifier = office.stage.world, office.verifier
    before = world.signing_kid
    stood_still = office.stage.parts.replica

    # Keep the service's replica behind: its follower hears nothing until it reads.
    monkeypatch.setattr(office.stage.parts.follower, "_take", _nothing)
    await world.publisher(Lane.KEYS, verifier).append([Retired(kid=before), *world.first_key()])
    token = office.jwt(exp=int(world.clock.now()) + left_seconds)
    assert stood_still.keys.get(world.signing_kid) is None
    assert await office.revoke(token) == (200, None)
    assert office.position == (1, 1)
    await eventually(lambda: not office.passes(token))


async def _nothing(*_arguments: object) -> None:
    return None


async def test_an_unknown_key_and_a_dead_feed_are_503(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the token is ours cannot be told then."""
    published = office.stage.world.new_key()
    token = office.jwt(kid=published.kid)

    async def dead() -> None:
        raise FeedUnavailable("gone")

    monkeypatch.setattr(office.service._routes._finder, "_current", dead)
    assert (await office.revoke(token))[0] == 503


async def test_a_token_that_is_not_valid_yet_can_be_revoked(office: Office) -> None:
    """Checklist 5, RFC 7009, 2.1: it would become valid later."""
    now = office.stage.world.clock.now()
    token = office.jwt(nbf=now + 100)
    assert (await office.revoke(token), office.position) == ((200, None), (1, 1))


async def test_a_token_of_a_retired_key_can_be_revoked(office: Office) -> None:
    """Checklist 5, RFC 7009, 2.1: retiring keys still vouch, so their tokens must be revocable."""
    world, token = office.stage.world, office.jwt()
    await world.publisher(Lane.KEYS, office.verifier).append([Retired(kid=world.signing_kid), *world.first_key()])
    assert office.passes(token)
    assert await office.revoke(token) == (200, None)
    await eventually(lambda: not office.passes(token))


async def test_a_token_of_a_revoked_key_is_200(office: Office) -> None:
    """Everything that the key signed is refused by the key's name already."""
    world, token = office.stage.world, office.jwt()
    await world.publisher(Lane.KEYS, office.verifier).append([Revoked(kid=world.signing_kid), *world.first_key()])
    await eventually(lambda: office.stage.parts.replica.keys.get(world.signing_kid) is not None)
    assert (await office.revoke(token), office.position) == ((200, None), (1, 0))


async def test_a_refresh_token_takes_its_grant_along(office: Office) -> None:
    """Checklist 6, RFC 7009, 2.1: access tokens of the same grant die with it, and no others."""
    grant = entropy.uuid7(office.stage.world.clock.now())
    access, other = office.jwt(grant_id=grant), office.jwt()
    refresh = await office.refresh(grant_id=grant)
    assert await office.revoke(refresh) == (200, None)
    await eventually(lambda: not office.passes(access))
    assert office.passes(other)


async def test_a_used_refresh_token_and_a_hint_that_is_wrong_sign_out_as_well(office: Office) -> None:
    """RFC 7009, 2.1 and 2.2: a client that lost the newest one means the same grant; used or not, it is its own."""
    tokens = []
    for hint in ("refresh_token", "access_token", "nonsense"):
        grant = entropy.uuid7(office.stage.world.clock.now())
        used, _ = await begin_turned(office.stage, ago_seconds=900.0, claims={"client_id": CLIENT, "grant_id": grant})
        tokens.append(office.jwt(grant_id=grant))
        assert await office.revoke(used, token_type_hint=hint) == (200, None)
        assert await office.revoke(used) == (200, None)
    await eventually(lambda: not any(map(office.passes, tokens)))


async def test_another_clients_refresh_token_ends_nothing(office: Office) -> None:
    """Checklist 3, RFC 7009, 2.1: refused, and nothing stands in the lane or waits for it."""
    grant = entropy.uuid7(office.stage.world.clock.now())
    token, access = await office.refresh(grant_id=grant), office.jwt(grant_id=grant)
    place = office.position
    status, content = await office.revoke(token, who=ADMIN)
    assert (status, content["error"]) == (400, "invalid_grant")
    assert (await office.revoke(new_refresh_token(), who=ADMIN)) == (200, None)
    assert office.position == place
    assert office.passes(access)


async def test_the_revocation_of_a_refresh_token_is_kept_for_as_long_as_its_grant(office: Office) -> None:
    """Checklist 9, RFC 7009, 2.1: by the refresh token's own end, access tokens of its grant could outlive it."""
    now = office.stage.world.clock.now()
    token = await office.refresh()
    assert await office.revoke(token) == (200, None)
    rows = list(office.stage.parts.replica.indexes[0].rows())
    assert [until >= now + 30 * 86_400 for _, _, until in rows] == [True]


async def test_an_unverified_jti_is_never_acted_upon(office: Office) -> None:
    """Checklist 7, RFC 7009, 2.1: else anybody with a client could revoke anybody's token by forging its jti."""
    token = office.jwt()
    head, payload, signature = token.split(".")
    forged = office.stage.world.new_key()
    world = office.stage.world
    claims = world.claims(client_id=CLIENT)
    good = world.mint(**claims).decode()
    others_signature = world.mint(kid=forged.kid, header={"kid": world.signing_kid}, **claims).decode()
    for bad in (f"{head}.{payload}.{signature[:-4]}AAAA", f"{head}.{payload}.", others_signature, token + "="):
        assert (await office.revoke(bad), office.position) == ((200, None), (1, 0))
    assert office.passes(token)
    assert office.passes(good)


async def test_at_200_the_event_is_in_the_stream(office: Office, valkey: Redis) -> None:
    """Checklist 8, RFC 7009, 2.2: durable first, then the answer."""
    await office.revoke(office.jwt())
    assert await valkey.xlen(stream_key(Lane.REVOCATIONS, 1)) == 1


async def test_a_record_that_cannot_be_deleted_does_not_undo_the_revocation(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed has it; whoever reads the record asks the replica as well."""
    token = await office.opaque()

    async def dead(*_arguments: object) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr("serving.records.RecordStore.delete", dead)
    with capture_logs() as logs:
        assert (await office.revoke(token), office.position) == ((200, None), (1, 1))
    assert "record_left" in [line["event"] for line in logs]
    assert token not in str(logs)


async def test_a_revocation_outlives_its_token(office: Office) -> None:
    """Checklist 9, RFC 7009, 2: kept at least the remaining life and the skew of both sides."""
    now = office.stage.world.clock.now()
    await office.revoke(office.jwt(exp=int(now + 200)))
    index = office.stage.parts.replica.indexes[0]
    ((_, before, until),) = index.rows()
    assert before is None
    assert until >= int(now + 200) + 2 * office.stage.parts.skew_seconds + 10


async def test_waiting_returns_a_receipt_of_all_live_verifiers(office: Office) -> None:
    """With wait=all the next request at any verifier is refused: no time between."""
    token = office.jwt()
    status, told = await office.revoke(token, query="?wait=all&timeout=5")
    assert not office.passes(token)
    assert (status, told["adopted"], told["live"], told["laggards"]) == (200, 1, 1, [])
    assert told["durability"] == "local"
    assert 0 <= told["slowest_ms"] < 2_000


async def test_a_verifier_that_does_not_follow_is_named_at_the_timeout(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """202 and its name, so that the operator knows where the token may still pass."""
    monkeypatch.setattr(office.verifier.follower, "_take", _nothing)
    token = office.jwt()
    for _ in ("revoked", "revoked before"):
        status, told = await office.revoke(token, query="?wait=all&timeout=0.2")
        assert (status, told["adopted"], told["laggards"]) == (202, 0, [VERIFIER])
    assert office.position == (1, 1)


async def test_waiting_for_nothing_to_revoke_is_answered_too(office: Office) -> None:
    """A retry with wait=all after a lost answer gets the same kind of answer."""
    token = office.jwt()
    await office.revoke(token)
    status, told = await office.revoke(token, query="?wait=all")
    assert (status, told["sequence"], told["laggards"]) == (200, 1, [])


async def test_many_at_once_all_take_effect(office: Office) -> None:
    """A logout storm: every one durable, in far fewer events."""
    tokens = [office.jwt() for _ in range(60)]
    assert {await_status for await_status, _ in await asyncio.gather(*map(office.revoke, tokens))} == {200}
    await eventually(lambda: not any(office.passes(token) for token in tokens))
    assert office.position[1] < 60


async def test_what_came_of_each_request_is_counted_and_what_waits_is_shown(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist, every endpoint: a service that revokes nothing any more, or falls behind, is seen by these alone."""
    now, token = int(office.stage.world.clock.now()), office.jwt()
    for one in (token, token, "nonsense", office.jwt(iat=now - 4000, exp=now - 3600)):
        assert await office.revoke(one) == (200, None)
    for outcome in ("revoked", "revoked_before", "unknown", "expired"):
        assert office.figure("keyturn_revocations_total", outcome=outcome) == 1
    gate, append = asyncio.Event(), office.stage.parts.feed.append

    async def gated(*arguments: object, **named: object) -> None:
        await gate.wait()
        await append(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(office.stage.parts.feed, "append", gated)
    asked = [asyncio.create_task(office.revoke(office.jwt())) for _ in range(3)]
    await eventually(lambda: office.figure("keyturn_revocations_waiting") == 2)
    gate.set()
    await asyncio.gather(*asked)
    assert office.figure("keyturn_revocations_waiting") == 0


async def test_a_bad_client_is_401_and_nothing_is_revoked(office: Office) -> None:
    """RFC 7009, 2.1: credentials are checked before the token is looked at."""
    token = office.jwt()
    headers = {"Authorization": encode_basic_auth(CLIENT, SECRETS[RESOURCE])}
    async with office.http.post("/revoke", data={"token": token}, headers=headers) as response:
        assert (response.status, (await response.json())["error"]) == (401, "invalid_client")
        assert "Basic" in response.headers["WWW-Authenticate"]
    async with office.http.post("/revoke", data={"token": token}) as response:
        assert response.status == 401
    assert office.passes(token)


async def test_each_bad_request_is_told_as_rfc_6749_has_it(office: Office) -> None:
    """Missing or repeated parameters, wrong type, method or size: refused, never guessed."""
    twice = FormData([("token", "a"), ("token", "b")])
    asked = [
        ({"data": {"no": "token"}}, 400),
        ({"data": twice}, 400),
        ({"json": {"token": "a"}}, 415),
        ({"data": {"token": "a" * 70_000}}, 413),
    ]
    for options, status in asked:
        async with office.http.post("/revoke", headers=AUTH, **options) as response:  # type: ignore[arg-type]
            assert (response.status, response.headers["Cache-Control"]) == (status, "no-store")
            assert "error" in await response.json()
    async with office.http.get("/revoke") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    for query in ("?wait=most", "?wait=all&timeout=never"):
        status, told = await office.revoke("a", query=query)
        assert (status, told["error"]) == (400, "invalid_request")
