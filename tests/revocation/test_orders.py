"""Orders that are repeated with an `Idempotency-Key`: carried out once, wherever and whenever the repeat arrives."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from redis.asyncio import Redis

from keyturn.contract.errors import FeedUnavailable, Unconfirmed
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from revocation import orders as limits
from revocation.orders import Mark, OrderBook, event_id_of, marks_in
from revocation.writer import RevocationWriter, Written
from serving.problems import KeyReused
from tests.clocks import HastyClock
from tests.revocation.conftest import OTHER_ADMIN, Office
from tests.waiting import eventually
from tests.world import Member, World

LANE = Lane.REVOCATIONS
ORDER = {"selector": {"sub": "alice"}}
MARK = Mark.of("admin", "key-1", ORDER)


def desk(world: World, member: Member) -> tuple[RevocationWriter, OrderBook]:
    """Return the writer of one replica of the service, and its book."""
    book = OrderBook(world.feed, member.replica)
    writer = RevocationWriter(world.publisher(LANE, member), member.follower._read_all, world.clock, book=book)
    return writer, book


@pytest.fixture
async def world() -> World:
    """Begin a world in memory."""
    return await World(clock=HastyClock()).begin()


def test_a_mark_knows_client_key_and_body_and_nothing_of_them_is_readable() -> None:
    """Another client's key is another order; members in another order are the same one."""
    same = (
        Mark.of("admin", "key-1", {"reason": "left", **ORDER}),
        Mark.of("admin", "key-1", {**ORDER, "reason": "left"}),
    )
    assert same[0] == same[1]
    assert len({MARK.key, Mark.of("other", "key-1", ORDER).key, Mark.of("admin", "key-2", ORDER).key}) == 3
    assert Mark.of("admin", "key-1", {"selector": {"sub": "bob"}}).body != MARK.body
    marks = [Mark.of("admin", f"key-{number}", ORDER) for number in range(3)]
    event_id = event_id_of(marks)
    assert event_id is not None
    assert marks_in(event_id) == marks
    assert "key-1" not in event_id
    assert event_id_of([]) is None
    assert marks_in("0190a8c0-0000-7000-8000-000000000000") == marks_in("orders:x") == []


async def test_what_was_written_here_is_known_by_its_mark(world: World) -> None:
    """The plainest retry: the answer was lost on its way to the client."""
    writer, book = desk(world, await world.caught_up())
    assert book.find(MARK) is None
    written = await writer.write(world.entry(SelectorKind.SUBJECT, "alice", before=1.0), mark=MARK)
    assert book.find(MARK) == written.place == (1, 1)
    with pytest.raises(KeyReused):
        book.find(Mark(MARK.key, "another."))


async def test_an_order_is_known_after_a_restart_and_to_another_replica(world: World) -> None:
    """The lane itself says what was carried out: whoever reads it from the start, from a snapshot or live."""
    live = await world.caught_up()
    live_book = OrderBook(world.feed, live.replica)
    await live_book.read()
    writer, _ = desk(world, first := await world.caught_up())
    await writer.write(world.entry(SelectorKind.JTI, "a"), mark=MARK)
    for name in "bcd":
        await writer.write(world.entry(SelectorKind.JTI, name))
    await live.follower._read_all()
    assert live_book.find(MARK) == (1, 1)
    publisher = world.publisher(LANE, first)
    publisher._snapshot_boottime = float("-inf")
    assert await publisher.keep_snapshot()
    late = await world.caught_up()
    assert late.replica.tails[LANE].after(0) is None, "it began with the snapshot"
    book = OrderBook(world.feed, late.replica)
    assert book.find(MARK) is None
    await book.read()
    assert book.find(MARK) == (1, 1)


async def test_a_book_reads_the_store_again_only_after_a_jump(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each order would otherwise cost a read of the stream."""
    writer, book = desk(world, await world.caught_up())
    await book.read()

    async def unasked(*_arguments: object, **_named: object) -> list[bytes]:
        raise AssertionError("the stream was read again")

    monkeypatch.setattr(world.feed, "events", unasked)
    await writer.write(world.entry(SelectorKind.JTI, "a"), mark=MARK)
    await book.read()
    assert book.find(MARK) == (1, 1)


async def test_what_passed_unseen_while_it_ran_is_read_from_the_store(world: World) -> None:
    """A replica that was cut off for long goes on from a snapshot, in which no order can be recognised."""
    book = OrderBook(world.feed, (member := await world.caught_up()).replica)
    await book.read()
    writer, _ = desk(world, await world.caught_up())
    await writer.write(world.entry(SelectorKind.JTI, "a"), mark=MARK)
    await book_at_the_top(book, world)
    member.replica.tails[LANE].clear()
    await book.read()
    assert book.find(MARK) == (1, 1)


async def test_what_another_replica_wrote_right_before_ours_is_known(world: World) -> None:
    """An order that was repeated to the next replica, which was about to write something else."""
    (ours, book), (theirs, _) = [desk(world, await world.caught_up()) for _ in range(2)]
    await book.read()
    await theirs.write(world.entry(SelectorKind.JTI, "a"), mark=MARK)
    assert (await ours.write(world.entry(SelectorKind.JTI, "b"))).place == (1, 2)
    assert book.find(MARK) == (1, 1)


async def test_what_somebody_else_wrote_among_the_events_hides_none_of_ours(world: World) -> None:
    """Whoever can write the store must not have an order carried out twice by that; it is passed over."""
    writer, _ = desk(world, await world.caught_up())
    await writer.write(world.entry(SelectorKind.JTI, "a"))
    await writer.write(world.entry(SelectorKind.JTI, "b"), mark=MARK)
    events, member = world.feed.events, await world.caught_up()
    member.replica.tails[LANE].clear()

    async def with_rubbish(*arguments: Any, **named: Any) -> list[bytes]:
        return [b"e30.e30.e30", *await events(*arguments, **named)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.feed, "events", with_rubbish)
        book = OrderBook(world.feed, member.replica)
        await asyncio.wait_for(book.read(), 5)
    assert book.find(MARK) == (1, 2)


async def test_an_event_of_another_epoch_carries_out_nothing_in_this_one(world: World) -> None:
    """Who can write the store may put an old event of ours there: what a new epoch lacks was not done in it."""
    member = await world.caught_up()
    writer, _ = desk(world, member)
    for name in "abc":
        await writer.write(world.entry(SelectorKind.JTI, name))
    await writer.write(world.entry(SelectorKind.JTI, "d"), mark=MARK)
    old = await world.feed.events(LANE, epoch=1, after=3)
    assert await world.publisher(LANE, member).open_epoch(2, after=str(member.replica.position(LANE)))
    other, _ = desk(world, await world.caught_up())
    await other.write(world.entry(SelectorKind.JTI, "e"))
    late = await world.caught_up()
    late.replica.tails[LANE].clear()

    async def events(*_arguments: Any, **_named: Any) -> list[bytes]:
        return old

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.feed, "events", events)
        book = OrderBook(world.feed, late.replica)
        await book.read()
    assert book.find(MARK) is None


async def test_a_new_epoch_is_read_from_its_beginning(world: World) -> None:
    """After a failover the lane counts anew: what is behind the old number there was looked at by nobody."""
    member = await world.caught_up()
    writer, book = desk(world, member)
    for name in "abc":
        await writer.write(world.entry(SelectorKind.JTI, name))
    await book.read()
    stands = member.replica.position(LANE)
    assert await world.publisher(LANE, member).open_epoch(2, after=str(stands))
    other, _ = desk(world, await world.caught_up())
    await other.write(world.entry(SelectorKind.JTI, "d"), mark=MARK)
    await member.follower._read_all()
    assert book.find(MARK) == (2, 1)


async def test_a_store_that_cannot_be_read_knows_no_order(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not known is not the same as not carried out."""
    _, book = desk(world, await world.caught_up())
    writer, _ = desk(world, await world.caught_up())
    await writer.write(world.entry(SelectorKind.JTI, "a"))
    book._replica.tails[LANE].clear()

    async def silent(*_arguments: object, **_named: object) -> list[bytes]:
        raise FeedUnavailable("gone")

    await book_at_the_top(book, world)
    monkeypatch.setattr(world.feed, "events", silent)
    with pytest.raises(FeedUnavailable):
        await book.read()


async def book_at_the_top(book: OrderBook, world: World) -> None:
    """Bring the book's replica to the newest event."""
    for compact in await world.feed.events(LANE, epoch=1, after=0):
        book._replica.admit(LANE, compact, now=world.clock.now(), boottime=world.clock.boottime())


async def test_two_replicas_that_are_given_one_order_carry_it_out_once(world: World) -> None:
    """A proxy that repeats a request to the next replica must not make it two: the loser of the race looks again."""
    (one, _), (other, _), (third, _) = [desk(world, await world.caught_up()) for _ in range(3)]
    entry = world.entry(SelectorKind.SUBJECT, "alice", before=1.0)
    first = await one.write(entry, mark=MARK)
    again = await other.write(entry, mark=MARK)
    assert (first.place, again) == ((1, 1), Written((1, 1), None, again=True))
    with pytest.raises(KeyReused):
        await third.write(entry, mark=Mark(MARK.key, "another."))
    assert len(await world.feed.events(LANE, epoch=1, after=0)) == 1, "an event of nothing, or a second one"


async def test_what_the_root_has_dropped_has_to_be_carried_out_again(world: World) -> None:
    """A thief of the role key may have written the event that claims it was."""
    member = await world.caught_up()
    writer, book = desk(world, member)
    await writer.write(world.entry(SelectorKind.JTI, "a"), mark=MARK)
    assert book.find(MARK) == (1, 1)
    member.replica.adopt_trust(world.trust(version=2, lowest_epoch={"keys": 1, "revocations": 2}))
    assert book.find(MARK) is None


async def test_the_book_and_the_marks_of_one_event_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every verifier remembers the ids of a thousand events, and the service its orders."""
    monkeypatch.setattr(limits, "MOST_ORDERS", 100)
    writer, book = desk(world, await world.caught_up())
    marks = [Mark.of("admin", str(number), ORDER) for number in range(150)]
    entry = world.entry(SelectorKind.JTI, "a")
    written = await asyncio.gather(*(writer.write(entry, mark=mark) for mark in marks))
    assert sorted({one.place[1] for one in written}) == [1, 2, 3]
    assert len(book._orders) == 100
    assert (book.find(marks[0]), book.find(marks[-1])) == (None, (1, 3))


async def ordered(
    office: Office, key: str = "incident-4711", body: Mapping[str, Any] = ORDER, query: str = ""
) -> tuple[int, Any]:
    """Give an order with a key."""
    status, told = await office.admin("POST", f"/revocations{query}", body, key=key)
    return status, told


async def test_a_repeated_order_gets_the_receipt_of_the_first(office: Office) -> None:
    """Also with another wait: that is a question about it, and no part of it. A fresh sign-in stays untouched."""
    status, first = await ordered(office)
    assert (status, first["sequence"]) == (200, 1)
    cutoff = office.stage.parts.replica.latest_cutoff(office.stage.world.claims(sub="alice"))
    status, again = await ordered(office, query="?wait=all")
    assert (status, again["sequence"], again["adopted"]) == (200, 1, 1)
    assert again["adopted_ms"]["sidecar-1"] >= 0
    assert office.stage.parts.replica.latest_cutoff(office.stage.world.claims(sub="alice")) == cutoff
    assert (await ordered(office, key="incident-4712"))[1]["sequence"] == 2
    counted = [office.figure("keyturn_revocations_total", outcome=one) for one in ("revoked", "repeated")]
    assert counted == [2, 1]


async def test_a_key_is_its_operators_own(office: Office) -> None:
    """Two who number their incidents alike would else be told that it is done, by an order that says something else."""
    mallory = {"selector": {"sub": "mallory"}}
    assert (await ordered(office))[0] == 200
    status, told = await office.admin(
        "POST", "/revocations", mallory, key="incident-4711", client_id=OTHER_ADMIN, sub=OTHER_ADMIN
    )
    assert (status, told["sequence"]) == (200, 2)


async def test_an_order_is_known_to_a_service_that_has_just_started(office: Office) -> None:
    """Its replica may begin with a snapshot: the store is asked before anything is written."""
    await ordered(office)
    orders, replica = office.service._routes._orders, office.stage.parts.replica
    replica.tails[LANE].clear()
    orders._book = OrderBook(office.stage.parts.feed, replica)
    status, told = await ordered(office)
    assert (status, told["sequence"], office.position) == (200, 1, (1, 1))


async def test_who_gives_up_waiting_takes_nobody_along(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order is under way for whoever else has asked for it, and for the one who comes again."""
    gate, append = asyncio.Event(), office.stage.parts.feed.append

    async def gated(*arguments: object, **named: object) -> None:
        await gate.wait()
        await append(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(office.stage.parts.feed, "append", gated)
    orders, entry = office.service._routes._orders, office.stage.world.entry(SelectorKind.JTI, "a")
    leaving, staying = [asyncio.create_task(orders.carry_out(entry, MARK, report=False)) for _ in range(2)]
    await eventually(lambda: office.service._writer._flight is not None)
    with pytest.raises(KeyReused):  # It says something else, and must not be answered by what this one says.
        await asyncio.wait_for(orders.carry_out(entry, Mark(MARK.key, "another."), report=False), 5)
    leaving.cancel()
    gate.set()
    assert (await staying).place == (1, 1)
    assert leaving.cancelled()
    assert not orders._flights


async def test_a_key_with_another_body_is_422_and_changes_nothing(office: Office) -> None:
    """It would otherwise be answered as done, and mallory would stay signed in."""
    await ordered(office)
    status, told = await ordered(office, body={"selector": {"sub": "mallory"}})
    assert (status, told["code"], office.position) == (422, "idempotency_key_reused", (1, 1))
    for key in ("a b", "k" * 129):
        assert (await ordered(office, key=key))[0] == 400


async def test_one_order_that_arrives_many_times_at_once_is_one(office: Office) -> None:
    """A client that hedges sends it again before the first answer; another order under the key may be first, too."""
    bodies = [ORDER] * 10 + [{"selector": {"sub": "mallory"}}]
    answers = await asyncio.gather(*(ordered(office, body=body) for body in bodies))
    assert sorted(status for status, _ in answers) in ([200] * 10 + [422], [200] + [422] * 10)
    assert office.position == (1, 1)


async def test_a_repeat_is_answered_while_somebody_tries_its_key_with_another_body(office: Office) -> None:
    """The order was carried out: whoever asks after it must not hear that its key belongs to another."""
    await ordered(office)
    bodies = [{"selector": {"sub": "mallory"}}] * 3 + [ORDER] * 3
    answers = await asyncio.gather(*(ordered(office, body=body) for body in bodies))
    assert [status for status, _ in answers] == [422] * 3 + [200] * 3


async def test_an_order_whose_answer_never_came_is_found_in_the_lane(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has it and we do not know: the retry has to look, not to write again."""
    feed, append = office.stage.parts.feed, office.stage.parts.feed.append

    async def deaf(*arguments: object, **named: object) -> None:
        await append(*arguments, **named)  # type: ignore[arg-type]
        raise FeedUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(feed, "append", deaf)
        assert (await ordered(office))[0] == 503
    status, told = await ordered(office)
    assert (status, told["sequence"], office.position) == (200, 1, (1, 1))


async def test_a_repeat_of_what_is_not_durable_enough_is_no_yes(
    office: Office, monkeypatch: pytest.MonkeyPatch, valkey: Redis
) -> None:
    """The first answer said that the event stands and is less durable than required; asking again does not mend it."""

    async def unconfirmed(*_arguments: object) -> None:
        raise Unconfirmed(lane="revocations", place=(1, 1), wanted="replicated", found="local")

    assert (await ordered(office))[0] == 200
    monkeypatch.setattr("serving.receipts.Vouching.require", unconfirmed)
    status, told = await ordered(office)
    assert (status, await valkey.xlen("keyturn:revocations:1")) != (200, 2)
    assert status == 503, told


async def test_a_dry_run_uses_no_key_up(office: Office) -> None:
    """Look first, then do it, under the same key."""
    assert (await ordered(office, body=ORDER | {"dry_run": True}))[0] == 200
    status, told = await ordered(office)
    assert (status, told["sequence"]) == (200, 1)
