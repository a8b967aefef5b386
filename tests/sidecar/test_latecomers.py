"""Tokens whose key the sidecar has not heard of: one look at the feed, and no more than that."""

import asyncio
from typing import Any

import pytest

from keyturn.contract.errors import FeedUnavailable
from keyturn.contract.keys import Retired
from keyturn.contract.positions import Lane
from keyturn.feed.log import Top
from keyturn.sidecar.latecomers import MOST_WAITING
from tests.sidecar.beside import Beside
from tests.waiting import eventually

SOME_KID = "k0000000000000000000000000000000000000000000"


@pytest.fixture
def reads(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> list[Lane]:
    """Note each read of a lane's head from now on."""
    noted: list[Lane] = []
    top = beside.feed.top

    async def noting(lane: Lane) -> Top | None:
        noted.append(lane)
        return await top(lane)

    monkeypatch.setattr(beside.feed, "top", noting)
    return noted


def _of_unknown_key(beside: Beside, **claims: Any) -> bytes:
    return beside.world.mint(header={"kid": SOME_KID}, **claims)


async def _pass_pauses(beside: Beside, replies: "asyncio.Future[list[int]]") -> list[int]:
    """Let the pauses between two looks pass until all is answered."""

    def answered() -> bool:
        beside.clock.advance(0.05)
        return replies.done()

    await eventually(answered)
    return replies.result()


async def test_a_key_that_the_push_missed_is_found(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost message must not make a good token bad."""
    world, keys = beside.world, await beside.publisher(Lane.KEYS)
    old = world.signing_kid
    with monkeypatch.context() as patch:
        patch.setattr(beside.feed, "_ring", lambda _word: None)
        await keys.append([*world.first_key(), Retired(kid=old)])
    token = world.mint()

    replies = asyncio.gather(*(_status(beside, token) for _ in range(3)))

    assert await _pass_pauses(beside, replies) == [200, 200, 200]


async def test_a_key_that_nobody_knows_is_401_after_one_look(beside: Beside, reads: list[Lane]) -> None:
    """Rule 8: absent after it, the token is not ours."""
    assert (await beside.check(_of_unknown_key(beside))).status == 401

    assert reads == list(Lane)


async def test_a_store_that_cannot_say_makes_it_503(beside: Beside) -> None:
    """Not knowing is not "no"."""
    beside.feed.reachable = False

    reply = await beside.check(_of_unknown_key(beside))

    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert (await beside.check(beside.world.mint())).status == 200


async def test_a_token_of_another_issuer_is_not_looked_for(beside: Beside, reads: list[Lane]) -> None:
    """Its keys cannot be in our feed."""
    token = _of_unknown_key(beside, iss="https://other.example")

    assert (await beside.check(token)).status == 401
    assert reads == []


async def test_a_flood_of_invented_keys_shares_its_looks(beside: Beside, reads: list[Lane]) -> None:
    """Otherwise anybody who can reach the gateway could make every sidecar hammer the store."""
    world, good = beside.world, beside.world.mint()
    flood = [world.mint(header={"kid": f"kid-{number}"}) for number in range(200)]

    replies = asyncio.gather(*(_status(beside, token) for token in flood))
    answers = [(await beside.check(good)).status for _ in range(20)]
    refused = await _pass_pauses(beside, replies)

    assert answers == [200] * 20
    assert refused == [401] * 200
    assert len(reads) <= 3 * len(Lane)
    assert (await beside.facts())["cache"]["tokens"] == 1  # None of them took a good token's place.


async def test_only_so_many_may_wait(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store hangs, invented keys must not use up the connections of good tokens."""
    hangs, token, good = asyncio.Event(), _of_unknown_key(beside), beside.world.mint()

    async def hanging(lane: Lane) -> Top | None:
        await hangs.wait()
        raise FeedUnavailable("it hung")

    monkeypatch.setattr(beside.feed, "top", hanging)
    waiting = asyncio.gather(*(_status(beside, token) for _ in range(MOST_WAITING)))
    await eventually(lambda: beside.sidecar.latecomers.ours.waiting == MOST_WAITING)

    assert (await beside.check(token)).status == 503
    assert (await beside.check(good)).status == 200
    hangs.set()
    assert set(await _pass_pauses(beside, waiting)) == {503}
    assert b"keyturn_sidecar_catch_ups_refused_total 1.0" in (await beside.ask("/metrics")).body


async def _status(beside: Beside, token: bytes) -> int:
    return (await beside.check(token)).status
