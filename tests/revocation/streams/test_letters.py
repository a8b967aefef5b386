"""Dead letters that are told again: the receiver was mended, and the revocation must still reach it."""

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis

from keyturn.contract.errors import StoreUnavailable
from keyturn.contract.positions import Lane
from revocation.streams import letters
from tests.revocation.streams.receiving import Post, another
from tests.waiting import eventually

DEAD, AGAIN = "keyturn:streams:one:dead", "keyturn:streams:one:again"


async def refuse(post: Post, *names: str) -> list[str]:
    """Revoke these subjects and refuse to be told; return the tokens' `jti`, in order."""
    await post.revoke(*names)
    _, answer = await post.poll(maxEvents=100)
    jtis = list(answer["sets"])
    assert len(jtis) == len(names)
    await post.poll(maxEvents=0, setErrs={jti: {"err": "invalid_request"} for jti in jtis})
    return jtis


async def dead(post: Post) -> list[str]:
    """Return the `jti` of the dead letters that an operator sees, the newest first."""
    status, answer = await post.operator("/streams/one/dead-letters")
    assert status == 200
    assert "sealed" not in str(answer), "what is kept of a token is for nobody to see"
    return [one["jti"] for one in answer["dead_letters"]]


async def test_what_was_refused_is_told_again_as_it_was_and_once_it_is_taken_no_more(post: Post) -> None:
    """RFC 8935, 2.3: a receiver refuses for good what it could not read; once it was mended it has to hear of it.

    By the same `jti` (RFC 8417, 2.2), so that one that has taken it after all knows the repetition, and also when the
    feed has long forgotten the event.
    """
    jtis = await refuse(post, "alice", "bob", "carol")
    await post.stage.parts.feed.trim(Lane.REVOCATIONS, epoch=1, up_to=3)
    assert await post.poll() == (200, {"sets": {}})
    assert await post.send_again({"jti": [jtis[1]]}) == (200, {"sent_again": [jtis[1]], "dead": 2})
    await post.revoke("dave")
    _, answer = await post.poll()
    assert next(iter(answer["sets"])) == jtis[1]
    assert await post.subjects() == ["bob", "dave"]
    _, answer = await post.operator("/streams")
    assert (answer["streams"][0]["waiting"], answer["streams"][0]["dead"]) == (2, 2)
    assert await post.subjects(ack=[jtis[1]]) == ["dave"]
    assert await dead(post) == [jtis[2], jtis[0]]
    assert (await post.send_again({}))[1] == {"sent_again": [jtis[0], jtis[2]], "dead": 0}
    assert await post.subjects() == ["alice", "carol", "dave"]


async def test_what_is_refused_again_is_a_dead_letter_again(post: Post) -> None:
    """Nothing is lost by trying, and nothing is told without end."""
    (jti,) = await refuse(post, "alice")
    for _ in range(2):
        assert (await post.send_again({}))[1] == {"sent_again": [jti], "dead": 0}
        assert (await post.send_again({}))[1] == {"sent_again": [], "dead": 0}
        await post.poll(maxEvents=0, setErrs={jti: {"err": "invalid_request"}})
        assert await dead(post) == [jti]
    assert await post.poll() == (200, {"sets": {}})
    figures = post.stage.parts.metrics.render()
    assert b'keyturn_stream_refused_total{stream="one"} 3.0' in figures
    assert b'keyturn_stream_told_total{stream="one"} 0.0' in figures


async def test_it_is_told_again_over_a_restart_and_by_one_of_several_processes(post: Post) -> None:
    """What waits stands in the store, and two operators at once have each told once."""
    jtis = await refuse(post, "alice", "bob")
    async with another(post) as other:
        answers = await asyncio.gather(post.send_again({}), other.send_again({}), post.send_again({"jti": jtis[:1]}))
        assert sorted(jti for status, told in answers for jti in told["sent_again"] if status == 200) == sorted(jtis)
        assert sorted(await other.subjects()) == ["alice", "bob"]
        await other.poll(maxEvents=0, ack=jtis)
    assert await post.poll() == (200, {"sets": {}})


async def test_a_letter_that_somebody_else_wrote_is_not_told(post: Post, valkey: Redis) -> None:
    """Whoever can write the store must not have us say what nobody revoked: nor by a letter of another stream."""
    (jti,) = await refuse(post, "alice")
    raw = (await valkey.lrange(DEAD, 0, -1))[0]  # type: ignore[misc]
    letter = json.loads(raw)
    await valkey.delete(DEAD)
    forged: list[Any] = [
        {**letter, "sealed": letter["sealed"][:-2] + "AA"},
        {**letter, "sealed": 7},
        {name: value for name, value in letter.items() if name != "sealed"},  # Of a version before this one, too.
    ]
    for one in forged:
        await valkey.lpush(DEAD, json.dumps(one))  # type: ignore[misc]
    await valkey.lpush(DEAD, b"\xff")  # type: ignore[misc]
    assert (await post.send_again({}))[1] == {"sent_again": [], "dead": 4}
    for written in (b"{}", b"\xff", json.dumps(["AAAA", "!"]).encode()):
        await valkey.set(AGAIN, written)
        assert await post.poll() == (200, {"sets": {}})
    await valkey.lpush(DEAD.replace("one", "two"), raw)  # type: ignore[misc]
    other = letters.DeadLetters(
        post.streams.by_name["one"].store, post.streams.by_name["one"]._dead._sealer, stream="two"
    )
    assert other._opened(letter["sealed"]) is None
    await valkey.lpush(DEAD, raw)  # type: ignore[misc]
    assert (await post.send_again({}))[1]["sent_again"] == [jti]


async def test_only_so_many_wait_at_a_time(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand letters must not stand before all that is revoked now."""
    monkeypatch.setattr(letters, "MOST_AGAIN", 2)
    jtis = await refuse(post, "alice", "bob", "carol")
    assert (await post.send_again({}))[1] == {"sent_again": jtis[:2], "dead": 1}
    with monkeypatch.context() as patch:
        patch.setattr(letters, "MOST_AGAIN", 1)
        assert await post.subjects() == ["alice"], "whoever can write the store must not have more of them opened"
    assert (await post.send_again({}))[1] == {"sent_again": [], "dead": 1}
    await post.poll(maxEvents=0, ack=jtis[:1])
    assert (await post.send_again({}))[1] == {"sent_again": jtis[2:], "dead": 0}


async def test_who_may_not_or_does_not_say_what_is_refused(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Admin routes refuse by default; a body that is mistyped must not mean all; a lost store is no answer."""
    await refuse(post, "alice")
    assert (await post.send_again({}, scope="read"))[0] == 403
    assert (await post.send_again({}, name="other"))[0] == 404
    wrong: list[Any] = [{"jtis": []}, {"jti": "a"}, {"jti": [1]}, {"jti": None}, {"jti": ["a"] * 101}]
    for body in wrong:
        assert (await post.send_again(body))[0] == 400, body

    async def away(*_: Any) -> Any:
        raise StoreUnavailable("gone")

    async def always_faster(*_: Any) -> bool:
        return False

    for instead in (away, always_faster):
        monkeypatch.setattr(post.streams.by_name["one"].store, "send_again", instead)
        assert (await post.send_again({}))[0] == 503
    assert len(await dead(post)) == 1


async def test_who_waits_hears_at_once_of_what_is_told_again(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator who sends it again looks whether it arrives."""
    (jti,) = await refuse(post, "alice")
    monkeypatch.setattr("revocation.streams.polling.LOOK_AGAIN_SECONDS", 60.0)
    post.stage.parts.follower.on_change.remove(post.streams.bell.ring)  # Nothing else wakes them.
    waiting = asyncio.ensure_future(post.subjects(returnImmediately=False))
    await eventually(lambda: post.routes.waiters["one"].waiting == 1)
    assert (await post.send_again({}))[1]["sent_again"] == [jti]
    assert await asyncio.wait_for(waiting, 5) == ["alice"]
