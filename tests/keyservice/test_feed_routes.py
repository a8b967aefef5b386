"""The feed over HTTP: what stands in the store, as it stands there, whoever put it there."""

import json
from typing import Any, cast

import pytest
from aiohttp import ClientError

from keyturn import entropy
from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.contract.trust import open_trust
from keyturn.feed.redis import TRUST_KEY, stream_key
from keyturn.process.pinned import read_root
from tests.building import new_access_token
from tests.keyservice import test_routes
from tests.keyservice.test_routes import ISSUER, Desk

desk = test_routes.desk


async def bearer(desk: Desk) -> dict[str, str]:
    """Return the header of an admin token."""
    token, now = new_access_token(), desk.parts.clock.now()
    record = {
        "iss": ISSUER, "sub": "admin", "client_id": "admin", "aud": "keyturn:admin", "scope": "keyturn:admin",
        "iat": int(now), "exp": int(now) + 60, "jti": "j", "grant_id": entropy.uuid7(now),
    }  # fmt: skip
    await desk.records.put(token, record, expires_at=now + 60)
    return {"Authorization": f"Bearer {token}"}


async def lines(desk: Desk, query: str = "") -> list[dict[str, Any]]:
    """Return the keys lane as it is sent."""
    async with desk.http.get(f"/feed/keys{query}", headers=await bearer(desk)) as response:
        assert response.headers["Keyturn-Epoch"] == "1"
        return [json.loads(line) for line in (await response.text()).splitlines()]


async def test_events_behind_a_trimmed_beginning_keep_their_numbers(desk: Desk) -> None:
    """Counted from what was asked for, each would stand under another's number."""
    for _ in range(3):
        await desk.admin("POST", "/keys/rotate")
    newest = desk.parts.replica.place(Lane.KEYS)[1]
    await desk.parts.feed.trim(Lane.KEYS, epoch=1, up_to=newest - 2)
    assert [line["sequence"] for line in await lines(desk)] == [newest - 1, newest]
    assert await lines(desk, f"?after={newest}") == []
    assert await lines(desk, "?epoch=2") == []


async def test_what_somebody_else_put_into_the_stream_is_sent_and_ends_nothing(desk: Desk) -> None:
    """An auditor must see it. Bytes that are no text must not make the answer fail."""
    newest = desk.parts.replica.place(Lane.KEYS)[1]
    for number, stored in ((newest + 1, b"\xff\xfe"), (newest + 2, b"no.statement.this")):
        fields = cast("Any", {"event": stored})
        await desk.parts.redis.xadd(stream_key(Lane.KEYS, 1), fields, id=f"{number}-0")
    told = await lines(desk)
    assert [line["sequence"] for line in told] == list(range(1, newest + 3))
    assert [line["event"] for line in told[-2:]] == ["\\xff\\xfe", "no.statement.this"]


async def test_an_answer_that_the_store_breaks_off_does_not_look_whole(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a dump with an honest end would be a dump with its tail cut off."""
    events, asked = desk.parts.feed.events, 0

    async def once(lane: Lane, *, epoch: int, after: int) -> list[bytes]:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise FeedUnavailable("gone")
        return await events(lane, epoch=epoch, after=after)

    monkeypatch.setattr(desk.parts.feed, "events", once)
    with pytest.raises(ClientError):
        await lines(desk)
    assert asked == 2


async def test_the_trust_document_is_given_to_operators_as_it_stands_in_the_store(desk: Desk) -> None:
    """Who asks holds it against his own root; a store without one is no answer."""
    async with desk.http.get("/feed/trust") as response:
        assert response.status == 401
    async with desk.http.get("/feed/trust", headers=await bearer(desk)) as response:
        told = await response.json()
    root = read_root(desk.directory / "root.jwk")
    assert open_trust(told["trust"].encode(), root=root, allow_dev=True).version == 1
    await desk.parts.redis.delete(TRUST_KEY)
    async with desk.http.get("/feed/trust", headers=await bearer(desk)) as response:
        assert response.status == 503
