"""Refresh tokens at `POST /introspect` (RFC 7662): active for their own client only, and never an access token."""

import json

import pytest
from aiohttp import ClientSession

from keyturn import entropy
from keyturn.contract.selectors import SelectorKind
from keyturn.process.grants import GrantSettings
from serving.promises import PROMISE_KEY, Promise, Promises
from tests.building import CLIENT, RESOURCE, FickleRedis, Standing, basic
from tests.families import begin, begin_turned, new_refresh_token
from tests.introspection.conftest import Ask
from tests.introspection.test_introspect import INACTIVE

OWN = {"client_id": RESOURCE, "sid": "session-1"}
"""A grant of the client that asks."""


async def test_a_good_refresh_token_is_active_for_its_own_client(ask: Ask, stage: Standing) -> None:
    """RFC 7662, 2.2: what it may be used for and until when; `token_type` is of access tokens (RFC 6749, 7.1)."""
    token = await begin(stage, claims=OWN)
    for hint in ("refresh_token", "access_token", "nonsense"):  # Checklist, introspection (3).
        told = json.loads((await ask(token, token_type_hint=hint)).body)
        assert told["active"] is True
        assert (told["sub"], told["client_id"], told["scope"], told["sid"]) == (
            "alice",
            RESOURCE,
            "read write",
            "session-1",
        )
        assert told.keys() == {"active", "iss", "sub", "client_id", "aud", "scope", "grant_id", "sid", "iat", "exp"}


async def test_what_is_not_good_or_anothers_is_told_by_the_same_bytes(ask: Ask, stage: Standing) -> None:
    """Checklist (1), (5), RFC 7662, 2.2 and 4: a used one is inactive, and nobody learns of another client's."""
    now = stage.world.clock.now()
    used, successor = await begin_turned(stage, ago_seconds=1.0, claims=OWN)
    wrong = {
        "unknown": new_refresh_token(),
        "used, within the grace": used,
        "used long ago": (await begin_turned(stage, ago_seconds=900.0, claims=OWN))[0],
        "of the same family": successor[:30] + new_refresh_token()[30:],
        "expired": await begin(stage, claims=OWN, expires_at=now - 1),
        "past its family's end": await begin(stage, claims=OWN, expires_at=now - 1, ends_at=now - 1),
        "ended": await begin(stage, claims=OWN, ended=True),
        "another client's": await begin(stage, claims={"client_id": CLIENT}),
        "another issuer's": await begin(stage, claims={**OWN, "iss": "https://other.example"}),
        "of a client that is gone": await begin(stage, claims={"client_id": "nobody"}),
    }  # fmt: skip
    answers = {name: await ask(token) for name, token in wrong.items()}
    answers["good, for another"] = await ask(successor, "two-resources")
    assert {name: (answer.status, answer.body) for name, answer in answers.items()} == dict.fromkeys(
        answers, (200, INACTIVE)
    )
    assert b'"active":true' in (await ask(successor)).body


async def test_a_grant_that_is_older_than_any_made_today_may_get_is_over(ask: Ask, stage: Standing) -> None:
    """Where `grants.life` was shortened, what revoked an older grant is forgotten: it must not come back as active."""
    now, life = stage.world.clock.now(), GrantSettings().life
    lasting = {"ends_at": now + 2 * life, "expires_at": now + life}
    younger = await begin(stage, claims={**OWN, "grant_id": entropy.uuid7(now - life + 600)}, **lasting)
    older = await begin(stage, claims={**OWN, "grant_id": entropy.uuid7(now - life - 1)}, **lasting)
    told = json.loads((await ask(younger)).body)
    assert told["active"] is True
    assert told["exp"] <= now + 601
    assert (await ask(older)).body == INACTIVE


async def test_a_grant_lasts_no_longer_than_revocation_keeps_what_names_it(ask: Ask, stage: Standing) -> None:
    """Also where `grants.life` is longer here: authorization lets nothing come of an older one. Unknown is 503."""
    now = stage.world.clock.now()
    older = await begin(stage, claims={**OWN, "grant_id": entropy.uuid7(now - 3601)})
    younger = await begin(stage, claims={**OWN, "grant_id": entropy.uuid7(now - 3600 + 100)})
    await stage.redis.delete(PROMISE_KEY)
    assert (await ask(younger)).status == 503
    promise = Promise(iss=stage.world.issuer, seconds=3600.0, at=now)
    await Promises(stage.redis, stage.record_keys).write(promise)
    assert (await ask(older)).body == INACTIVE
    assert json.loads((await ask(younger)).body)["exp"] <= now + 101


async def test_a_revocation_of_its_grant_is_seen_at_once(ask: Ask, stage: Standing) -> None:
    """Checklist, revocation (10): by whatever names the grant, though this replica has not heard of it yet."""
    for kind, value in ((SelectorKind.SESSION, "session-2"), (SelectorKind.SUBJECT, "bob")):
        token = await begin(stage, claims={**OWN, "sid": "session-2", "sub": "bob"})
        before = stage.world.clock.now() + 1 if kind is SelectorKind.SUBJECT else None
        if kind is SelectorKind.SESSION:
            assert b'"active":true' in (await ask(token)).body
        await stage.revoke(stage.world.entry(kind, value, before=before), elsewhere=True)
        assert (await ask(token)).body == INACTIVE


async def test_a_turn_is_seen_at_once_though_no_push_tells_of_it(ask: Ask, stage: Standing) -> None:
    """A verdict on a refresh token is never remembered."""
    token = await begin(stage, claims=OWN)
    assert b'"active":true' in (await ask(token)).body
    for key in await stage.redis.keys("keyturn:family:*"):
        await stage.redis.delete(key)
    assert (await ask(token)).body == INACTIVE


async def test_a_refresh_token_never_becomes_an_access_token(ask: Ask, stage: Standing, session: ClientSession) -> None:
    """A JWT made of it would open every API of its audience; and it authorises nobody to ask (RFC 7662, 2.1)."""
    token = await begin(stage, claims={**OWN, "scope": "introspection", "aud": stage.world.issuer})
    answer = await ask(token, accept="application/jwt")
    assert (answer.status, answer.body) == (200, INACTIVE)
    async with session.post(
        "/introspect", data={"token": stage.world.mint().decode()}, headers={"Authorization": f"Bearer {token}"}
    ) as response:
        assert response.status == 401


async def test_the_store_is_asked_once_whatever_becomes_of_the_token(
    ask: Ask, stage: Standing, store: FickleRedis
) -> None:
    """Checklist (1), RFC 7662, 4: the time that an answer takes tells nothing."""
    tokens = [await begin(stage, claims=OWN), (await begin_turned(stage, ago_seconds=9.0, claims=OWN))[0],
              new_refresh_token(), await stage.put_opaque()]  # fmt: skip
    for token in tokens:
        trips = store.trips
        await ask(token)
        assert store.trips == trips + 1


async def test_a_batch_shares_one_round_trip(session: ClientSession, stage: Standing, store: FickleRedis) -> None:
    """A hundred refresh tokens must not take a hundred times as long as one."""
    tokens = [await begin(stage, claims=OWN) for _ in range(20)]
    trips = store.trips
    async with session.post("/introspect/batch", json={"tokens": tokens}, headers=basic(RESOURCE)) as answer:
        told = await answer.json()
    assert [one["active"] for one in told["results"]] == [True] * 20
    assert store.trips <= trips + 2


@pytest.mark.parametrize("good", [True, False])
async def test_without_the_store_nothing_is_said(ask: Ask, stage: Standing, store: FickleRedis, good: bool) -> None:
    """Checklist (6), RFC 9110, 15.6.4: 503 and Retry-After, never inactive."""
    token = await begin(stage, claims=OWN) if good else new_refresh_token()
    store.away = True
    answer = await ask(token)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
