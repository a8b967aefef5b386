"""`POST /streams/NAME/poll`: RFC 8936, at least once, in order, and nothing lost over a restart."""

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from keyturn.contract.errors import (
    ConfigurationError,
    FeedUnavailable,
    ReplicaExpired,
    SigningRefused,
    StoreUnavailable,
)
from keyturn.contract.positions import Lane, Position
from keyturn.contract.selectors import Entry, Selector, SelectorKind
from revocation.streams import polling
from revocation.streams import stream as streaming
from revocation.streams.letters import PURPOSE
from revocation.streams.settings import StreamSettings
from revocation.streams.store import StreamStore
from revocation.streams.streams import Streams
from serving.sealing import Sealer
from serving.signing import NoSigner
from tests.building import ADMIN, CLIENT, RESOURCE, basic
from tests.revocation.streams.receiving import AUDIENCE, POLLED, Post, another, post_on, told
from tests.waiting import eventually


async def test_each_revocation_is_told_in_order_until_it_is_acknowledged(post: Post) -> None:
    """RFC 8936, 2.4: what was not acknowledged comes again; what was never does."""
    await post.revoke("alice", "bob", "carol")
    assert await post.subjects() == ["alice", "bob", "carol"]
    _, answer = await post.poll(maxEvents=2)
    assert answer["moreAvailable"] is True
    assert await post.subjects(ack=list(answer["sets"])) == ["carol"]
    assert await post.subjects() == ["carol"]
    _, answer = await post.poll()
    assert await post.poll(ack=list(answer["sets"])) == (200, {"sets": {}})


async def test_what_is_acknowledged_out_of_order_leaves_the_rest(post: Post) -> None:
    """A receiver may take the second and be still busy with the first; nothing is passed over."""
    await post.revoke("alice", "bob", "carol")
    _, answer = await post.poll()
    first, second, third = answer["sets"]
    assert await post.subjects(ack=[second]) == ["alice", "carol"]
    assert await post.subjects(ack=[third, second, "unknown"]) == ["alice"]
    assert await post.subjects(ack=[first]) == []


async def test_revocations_of_one_event_are_told_each_by_itself(post: Post) -> None:
    """Those that arrive together share an event of the feed, and each has a `jti` of its own (RFC 8417, 2.2)."""
    world = post.stage.world
    await post.stage.revoke(*(world.entry(SelectorKind.SUBJECT, name) for name in ("alice", "bob", "carol")))
    _, answer = await post.poll()
    assert [told(token)["sub_id"]["sub"] for token in answer["sets"].values()] == ["alice", "bob", "carol"]
    assert all(told(token)["jti"] == jti for jti, token in answer["sets"].items())
    assert await post.subjects(ack=[list(answer["sets"])[1]]) == ["alice", "carol"]


async def test_a_restart_tells_the_same_again_by_the_same_name(post: Post) -> None:
    """RFC 8417, 2.2: by its `jti` a receiver knows what it has seen, whoever sends it."""
    await post.revoke("alice", "bob")
    _, before = await post.poll()
    async with another(post) as later:
        _, after = await later.poll()
        assert list(after["sets"]) == list(before["sets"])
        assert await later.subjects(ack=[next(iter(after["sets"]))]) == ["bob"]
    assert await post.subjects() == ["bob"]


async def test_a_poll_waits_for_a_revocation(post: Post) -> None:
    """RFC 8936, 2.4: `returnImmediately` is false unless it is said; a long poll hears at once."""
    waiting = asyncio.ensure_future(post.subjects(returnImmediately=False))
    await eventually(lambda: post.routes.waiters["one"].waiting == 1)
    await post.revoke("alice")
    assert await asyncio.wait_for(waiting, 5) == ["alice"]
    assert post.routes.waiters["one"].waiting == 0


async def test_a_poll_waits_for_so_long_and_only_so_many_wait(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checklist, every endpoint: a timeout and a limit; each connection that waits is one that others lack."""
    monkeypatch.setattr(polling, "MOST_WAITING", 1)
    waiting = asyncio.ensure_future(post.poll(returnImmediately=False))
    await eventually(lambda: post.routes.waiters["one"].waiting == 1)
    assert await asyncio.wait_for(post.poll(returnImmediately=False), 5) == (200, {"sets": {}})
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await post.revoke("alice")
    await eventually(lambda: post.routes.waiters["one"].waiting == 0)
    _, answer = await post.poll()
    await post.poll(ack=list(answer["sets"]), maxEvents=0)
    monkeypatch.setattr(polling, "LONGEST_WAIT_SECONDS", 0.05)
    assert await asyncio.wait_for(post.poll(returnImmediately=False), 5) == (200, {"sets": {}})


async def test_a_poll_looks_again_where_the_bell_is_lost_and_not_all_the_time(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pub/sub forgets: a revocation must reach who waits for it all the same. A bell that rang is no reason to spin."""
    stream, looks = post.streams.by_name["one"], 0
    open_ = stream.open

    async def counted() -> Any:
        nonlocal looks
        looks += 1
        return await open_()

    monkeypatch.setattr(stream, "open", counted)
    monkeypatch.setattr(polling, "LOOK_AGAIN_SECONDS", 0.05)
    waiting = asyncio.ensure_future(post.subjects(returnImmediately=False))
    await eventually(lambda: post.routes.waiters["one"].waiting == 1)
    post.streams.bell.ring()
    post.stage.parts.follower.on_change.remove(post.streams.bell.ring)
    await asyncio.wait([waiting], timeout=0.3)
    assert looks < 20
    await post.revoke("alice")
    assert await asyncio.wait_for(waiting, 5) == ["alice"]


async def test_no_answer_holds_more_than_the_limit_whatever_is_asked_for(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 8936, 2.4: `maxEvents` is a most; each is a signature that we have made."""
    monkeypatch.setattr(polling, "MOST_AT_A_TIME", 2)
    await post.revoke("alice", "bob", "carol")
    _, answer = await post.poll(maxEvents=1_000)
    assert (len(answer["sets"]), answer["moreAvailable"]) == (2, True)


async def test_a_poll_for_nothing_only_acknowledges(post: Post) -> None:
    """RFC 8936, 2.4: `maxEvents` 0 asks for none, and is not kept waiting."""
    await post.revoke("alice")
    assert await post.poll(maxEvents=0, returnImmediately=False) == (200, {"sets": {}})


async def test_what_a_receiver_refuses_is_a_dead_letter_and_not_told_again(post: Post) -> None:
    """RFC 8936, 2.6: it is no use to repeat it; an operator has to see it."""
    await post.revoke("alice", "bob")
    _, answer = await post.poll()
    first = next(iter(answer["sets"]))
    refused = {first: {"err": "invalid_audience", "description": "not us"}}
    assert await post.subjects(setErrs=refused) == ["bob"]
    status, letters = await post.operator("/streams/one/dead-letters")
    assert status == 200
    assert [(one["jti"], one["err"], one["description"]) for one in letters["dead_letters"]] == [
        (first, "invalid_audience", "not us")
    ]
    render = post.stage.parts.metrics.render
    assert b'keyturn_stream_refused_total{stream="one"} 1.0' in render()
    _, shown = await post.operator("/streams")
    assert shown["streams"] == [
        {"name": "one", "delivery": "poll", "audience": AUDIENCE, "epoch": 1, "sequence": 1, "waiting": 1, "dead": 1}
    ]
    (second,) = (await post.poll())[1]["sets"]
    await post.poll(maxEvents=0, ack=[second])
    assert b'keyturn_stream_told_total{stream="one"} 1.0' in render()


async def test_a_receivers_words_are_kept_in_part(post: Post) -> None:
    """Checklist, every endpoint: whoever may refuse must not fill our store, nor our log, by how he says it."""
    await post.revoke("alice")
    (first,) = (await post.poll())[1]["sets"]
    with capture_logs() as logs:
        await post.poll(setErrs={first: {"err": "e" * 1_000, "description": "d" * 1_000}})
    _, letters = await post.operator("/streams/one/dead-letters")
    words = [letters["dead_letters"][0], *(line for line in logs if line["event"] == "stream_refused")]
    assert [(one["err"], one["description"]) for one in words] == [("e" * 200, "d" * 200)] * 2


NO_POLLS: list[dict[str, Any]] = [
    {"maxEvents": -1}, {"maxEvents": "3"}, {"maxEvents": True}, {"returnImmediately": 1}, {"ack": "x"}, {"ack": [1]},
    {"ack": ["x"] * 1025}, {"setErrs": []}, {"setErrs": {"x": "y"}}, {"setErrs": {"x": {"err": 1}}},
    {"setErrs": {"x": {"err": "a", "description": 1}}},
]  # fmt: skip


async def test_a_poll_that_is_none_is_refused(post: Post) -> None:
    """A receiver with a fault must hear of it, and move nothing."""
    await post.revoke("alice")
    for members in NO_POLLS:
        status, answer = await post.poll(**members)
        assert (status, answer["error"]) == (400, "invalid_request"), members
    assert await post.subjects() == ["alice"]


async def test_a_stream_is_for_its_own_client(post: Post) -> None:
    """Who was revoked is nobody else's business, and neither is which streams there are."""
    await post.revoke("alice")
    for who, name in ((CLIENT, "one"), (ADMIN, "one"), (RESOURCE, "other")):
        assert (await post.poll(who=who, name=name))[0] == 404
    async with post.http.post("/streams/one/poll", json={}) as answer:
        assert answer.status == 401
    for path in ("/streams", "/streams/one/dead-letters"):
        async with post.http.get(path) as answer:
            assert answer.status == 401
        async with post.http.get(path, headers=basic(RESOURCE)) as answer:
            assert answer.status == 401


async def test_only_named_kinds_and_our_own_issuer_are_told(valkey: Redis, valkey_url: str) -> None:
    """What another provider has told us is that provider's to tell: two Keyturns must not echo each other for ever."""
    only = StreamSettings(audience=AUDIENCE, client=RESOURCE, selectors=(SelectorKind.SUBJECT,))
    async with post_on(valkey, valkey_url, one=only) as post:
        assert await post.subjects() == []
        foreign = Selector(iss="https://other.example", kind=SelectorKind.SUBJECT, value="mallory", before=1.0)
        await post.stage.revoke(Entry(selector=foreign, until=post.stage.world.clock.now() + 60))
        await post.revoke("a-jti", kind=SelectorKind.JTI)
        await post.revoke("alice")
        assert await post.subjects() == ["alice"]


async def test_a_stream_begins_where_the_lane_stands_when_the_service_starts(valkey: Redis, valkey_url: str) -> None:
    """A new receiver is told from then on, also of what comes before its first poll; of the past it has to ask."""
    async with post_on(valkey, valkey_url, other=StreamSettings(audience="x", client=RESOURCE)) as post:
        await post.revoke("early")
        async with another(post) as later:
            await eventually(lambda: valkey.get("keyturn:streams:one:progress"))
            await post.revoke("late")
            assert await later.subjects() == ["late"]


async def test_what_was_trimmed_is_said_to_be_lost(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver cannot be told any more; it must not look as if nothing had been."""
    await post.revoke("alice", "bob", "carol")
    await post.stage.parts.feed.trim(Lane.REVOCATIONS, epoch=1, up_to=2)
    settle, races = StreamStore.settle, 2

    async def raced(self: StreamStore, *arguments: Any) -> bool:
        nonlocal races
        races -= 1
        return races < 0 and await settle(self, *arguments)

    monkeypatch.setattr(StreamStore, "settle", raced)
    assert await post.subjects() == ["carol"]
    assert b'keyturn_stream_gaps_total{stream="one"} 1.0' in post.stage.parts.metrics.render(), "once, not at each try"
    _, letters = await post.operator("/streams/one/dead-letters")
    assert [(one["kind"], one["epoch"], one["first"], one["last"]) for one in letters["dead_letters"]] == [
        ("gap", 1, 1, 2)
    ]


async def test_what_was_trimmed_to_the_last_event_is_said_to_be_lost(post: Post) -> None:
    """An empty stream of events looks like one in which nothing happened."""
    await post.revoke("alice", "bob")
    await post.stage.parts.feed.trim(Lane.REVOCATIONS, epoch=1, up_to=2)
    assert await post.subjects() == []
    _, letters = await post.operator("/streams/one/dead-letters")
    assert [(one["first"], one["last"]) for one in letters["dead_letters"]] == [(1, 2)]
    await post.revoke("carol")
    assert await post.subjects() == ["carol"]


async def test_a_new_epoch_is_gone_on_in_once_the_old_one_is_told(post: Post) -> None:
    """After a failover the lane begins anew; what was acknowledged before it must still be told, and first."""
    await post.revoke("alice")
    world, stage = post.stage.world, post.stage
    publisher = world.publisher(Lane.REVOCATIONS, stage.member)
    stands = stage.member.replica.position(Lane.REVOCATIONS)
    assert await publisher.open_epoch(2, after=str(stands))
    await post.revoke("bob")
    assert await post.subjects() == ["alice"]
    _, answer = await post.poll()
    assert await post.subjects(ack=list(answer["sets"])) == ["bob"]
    _, letters = await post.operator("/streams/one/dead-letters")
    (letter,) = letters["dead_letters"]
    assert (letter["kind"], letter["epoch"], letter["first"], letter["last"], letter["reason"]) == (
        "gap", 1, 2, None, "epoch_ended",
    )  # fmt: skip


async def test_what_a_failover_lost_before_it_was_told_is_said_to_be_lost(post: Post, valkey: Redis) -> None:
    """RFC 8936, 1: the receiver counts on being told of every event; who is not has to fetch the state anew.

    The receiver had taken the first; of the second, which the publisher had appended, the store knows nothing any more.
    The union in the new epoch revokes it, and has no name that could be told.
    """
    await post.revoke("alice")
    _, answer = await post.poll()
    await post.poll(ack=list(answer["sets"]))
    await post.revoke("lost")
    await valkey.xdel("keyturn:revocations:1:events", "2-0")
    world, stage = post.stage.world, post.stage
    stands = stage.member.replica.position(Lane.REVOCATIONS)
    assert await world.publisher(Lane.REVOCATIONS, stage.member).open_epoch(2, after=str(stands))
    await post.revoke("bob")
    assert await post.subjects() == ["bob"]
    _, letters = await post.operator("/streams/one/dead-letters")
    assert [(one["epoch"], one["first"], one["reason"]) for one in letters["dead_letters"]] == [(1, 2, "epoch_ended")]
    assert b'keyturn_stream_gaps_total{stream="one"} 1.0' in post.stage.parts.metrics.render()


async def test_an_old_epoch_that_cannot_be_believed_is_left_and_said_to_be_lost(post: Post, valkey: Redis) -> None:
    """After a stolen role key the root drops what it signed: the stream must go on, and not in silence."""
    await post.revoke("alice")
    await valkey.xadd("keyturn:revocations:1:events", {"event": b"e30.e30.e30"}, id="2-0")
    world, stage = post.stage.world, post.stage
    stands = stage.member.replica.position(Lane.REVOCATIONS)
    assert await world.publisher(Lane.REVOCATIONS, stage.member).open_epoch(2, after=str(stands))
    await post.revoke("bob")
    _, answer = await post.poll()
    assert await post.subjects(ack=list(answer["sets"])) == ["bob"]
    _, letters = await post.operator("/streams/one/dead-letters")
    assert [(one["epoch"], one["first"], one["last"]) for one in letters["dead_letters"]] == [(1, 2, None)]


async def test_a_progress_that_somebody_wrote_over_goes_on_from_what_we_know(post: Post, valkey: Redis) -> None:
    """Whoever can write the store must not make a running stream forget what it has still to tell, nor in silence."""
    await post.revoke("alice")
    assert await post.subjects() == ["alice"]
    for damage in (
        b"",
        b"{}",
        b"\xff",
        b'{"epoch":1,"sequence":-1,"hash":""}',
        b'{"epoch":1,"sequence":1,"hash":"","x":1}',
    ):
        await valkey.set("keyturn:streams:one:progress", damage)
        with capture_logs() as logs:
            assert await post.subjects() == ["alice"]
        assert "stream_progress_lost" in [line["event"] for line in logs]
    await valkey.set("keyturn:streams:one:progress", b"{}")
    async with another(post) as later:
        assert await later.subjects() == ["alice"]


async def test_a_forged_event_is_not_told(post: Post, valkey: Redis) -> None:
    """Who can write the store cannot make us tell others what nobody revoked; we wait for the lane to be mended."""
    await post.revoke("alice")
    _, answer = await post.poll()
    await valkey.xadd("keyturn:revocations:1:events", {"event": b"e30.e30.e30"}, id="2-0")
    status, told_then = await post.poll(ack=list(answer["sets"]))
    assert status == 503, told_then
    _, shown = await post.operator("/streams")
    assert shown["streams"][0]["trouble"] == "feed_unavailable"


async def test_a_store_that_is_away_is_503(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8936 leaves no room for "nothing new" where we cannot know."""
    await post.revoke("alice")
    _, answer = await post.poll()

    async def gone(*_arguments: object, **_options: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(post.stage.redis, "execute_command", gone)
    assert (await post.poll(ack=list(answer["sets"])))[0] == 503
    monkeypatch.undo()
    assert await post.subjects() == ["alice"]


async def test_a_replica_that_has_expired_tells_nothing(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds may be by a key that the root has dropped since: a receiver hears of it once that is known."""
    await post.revoke("alice")

    def expired(_self: object) -> None:
        raise ReplicaExpired("silence", silence_seconds=3600.0)

    monkeypatch.setattr("serving.parts.Parts.require_replica", expired)
    assert (await post.poll())[0] == 503
    monkeypatch.undo()
    assert await post.subjects() == ["alice"]


async def test_streams_that_nothing_signs_for_are_refused_at_start(post: Post) -> None:
    """RFC 8417, 2.2: each would be 503 for ever, and who has configured it would learn that from the receiver."""
    sealer = Sealer(post.stage.record_keys, purpose=PURPOSE)
    with pytest.raises(ConfigurationError) as refused:
        Streams({"one": POLLED}, post.stage.parts, signer=NoSigner("revocation"), sealer=sealer)
    assert refused.value.setting == "revocation.signer"


async def test_a_stream_begins_although_the_store_was_away_at_the_start(
    valkey: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nothing would be told of what is revoked until the receiver comes for the first time."""
    monkeypatch.setattr("revocation.streams.streams.LOOK_AGAIN_SECONDS", 0.01)
    progress, failures = StreamStore.progress, 2

    async def flaky(self: StreamStore) -> bytes:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise StoreUnavailable("gone")
        return await progress(self)

    monkeypatch.setattr(StreamStore, "progress", flaky)
    async with post_on(valkey, valkey_url):
        await eventually(lambda: valkey.get("keyturn:streams:one:progress"))


async def test_what_somebody_else_puts_in_our_place_is_503(post: Post, valkey: Redis) -> None:
    """Another type under our names must be no 500, and no "nothing new"."""
    for name in ("progress", "dead"):
        await valkey.delete(f"keyturn:streams:one:{name}")
        await valkey.execute_command("SADD", f"keyturn:streams:one:{name}", "x")  # type: ignore[no-untyped-call]
    assert (await post.poll())[0] == 503
    assert (await post.operator("/streams/one/dead-letters"))[0] == 503
    _, shown = await post.operator("/streams")
    assert shown["streams"][0]["trouble"] == "store_unavailable"


async def test_a_service_that_may_not_sign_is_503(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the root has still to grant is nothing that a receiver could mend."""

    async def refuse(*_arguments: object) -> str:
        raise SigningRefused("not allowed")

    monkeypatch.setattr(post.streams.by_name["one"], "_sign", refuse)
    await post.revoke("alice")
    assert (await post.poll())[0] == 503
    monkeypatch.undo()
    assert await post.subjects() == ["alice"]


async def test_the_feed_keeps_what_a_receiver_has_still_to_be_told(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is told, or for as long, and as many events, as the settings allow."""
    await post.revoke("alice", "bob", "carol")
    told, left = (Position(1, sequence, "") for sequence in (1, 2))
    _, answer = await post.poll()
    await post.poll(ack=[next(iter(answer["sets"]))], maxEvents=0)
    hold = POLLED.hold
    assert [await post.streams.need(told, hold), await post.streams.need(left, hold)] == [False, True]
    assert not await post.streams.need(left, hold + 1)
    monkeypatch.setattr(streaming, "MOST_HELD", 1)
    assert not await post.streams.need(left, hold)


async def test_the_feed_keeps_all_of_a_new_epoch_for_a_receiver_that_is_still_in_the_old_one(post: Post) -> None:
    """RFC 8936, 1: after a failover a receiver that was behind before it has the more to be told, and the same time."""
    await post.revoke("alice")
    world, stage = post.stage.world, post.stage
    stands = stage.member.replica.position(Lane.REVOCATIONS)
    assert await world.publisher(Lane.REVOCATIONS, stage.member).open_epoch(2, after=str(stands))
    await post.revoke("bob")
    assert await post.streams.need(Position(2, 1, ""), POLLED.hold)
    assert not await post.streams.need(Position(2, 1, ""), POLLED.hold + 1)


async def test_what_one_of_several_receivers_has_still_to_be_told_is_kept(
    valkey: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is up to date must not cost another its events."""
    async with post_on(valkey, valkey_url, one=POLLED, two=POLLED) as post:
        for name in ("one", "two"):
            assert await post.poll(name=name) == (200, {"sets": {}})
        await post.revoke("alice")
        _, answer = await post.poll()
        await post.poll(ack=list(answer["sets"]), maxEvents=0)
        assert await post.streams.need(Position(1, 1, ""), 0.0)

        async def away(_self: StreamStore) -> bytes:
            raise StoreUnavailable("gone")

        monkeypatch.setattr(StreamStore, "progress", away)
        with pytest.raises(FeedUnavailable):  # What is not known is kept.
            await post.streams.need(Position(1, 1, ""), 0.0)


async def test_many_at_once_acknowledge_without_losing_one(post: Post) -> None:
    """Several polls of one receiver, at several replicas of the service, change one progress."""
    await post.revoke(*(f"user-{n}" for n in range(12)))
    _, answer = await post.poll()
    async with another(post) as other:
        await asyncio.gather(
            *((post, other)[n % 2].poll(ack=[jti], maxEvents=0) for n, jti in enumerate(answer["sets"]))
        )
        assert await other.subjects() == []
    held = await post.stage.redis.get("keyturn:streams:one:progress")
    assert json.loads(held)["sequence"] == 12
    assert json.loads(held)["done"] == []
