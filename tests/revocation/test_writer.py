"""The writer: what arrives together becomes one event, and nobody is told more than what is durable."""

import asyncio
from collections.abc import Sequence

import pytest

from keyturn.contract.errors import FeedUnavailable, PositionTaken
from keyturn.contract.events import SignedEvent
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import Entry, SelectorKind
from keyturn.feed.publisher import Publisher
from revocation import writer as limits
from revocation.orders import Mark, OrderBook, event_id_of
from revocation.writer import RevocationWriter
from tests.clocks import HastyClock, ManualClock
from tests.world import Member, World


class GatedPublisher:
    """A real publisher behind a gate: appends wait until the test lets them through, or fail as it says."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[Exception] = []
        self.batches: list[tuple[int, bool]] = []

    async def append(self, content: Sequence[Entry], *, report: bool, event_id: str | None) -> SignedEvent:
        """Append when the gate is open."""
        await self.gate.wait()
        self.batches.append((len(content), report))
        if self.failures:
            raise self.failures.pop(0)
        return await self._publisher.append(content, report=report, event_id=event_id)


class Bench:
    """A writer over a world in memory."""

    def __init__(self, world: World, member: Member) -> None:
        self.world, self.member = world, member
        self.publisher = GatedPublisher(world.publisher(Lane.REVOCATIONS, member))
        self.catch_ups = 0
        self.book = OrderBook(world.feed, member.replica)
        self.writer = RevocationWriter(self.publisher, self.catch_up, world.clock, book=self.book)

    async def catch_up(self) -> None:
        """Read what others wrote."""
        self.catch_ups += 1
        await self.member.follower._read_all()

    def entry(self, name: str = "a", reason: str = "") -> Entry:
        """Return a revocation of that token."""
        entry = self.world.entry(SelectorKind.JTI, name)
        return Entry(selector=entry.selector, until=entry.until, reason=reason)

    def ask(self, count: int) -> list[asyncio.Task[limits.Written]]:
        """Ask for that many revocations at once."""
        return [asyncio.create_task(self.writer.write(self.entry(str(number)))) for number in range(count)]


@pytest.fixture
async def bench() -> Bench:
    """Begin a world and a writer."""
    world = await World(clock=HastyClock()).begin()
    return Bench(world, await world.caught_up())


async def test_an_idle_writer_appends_at_once(bench: Bench) -> None:
    """A lone revocation must not wait for company."""
    written = await bench.writer.write(bench.entry())
    assert written.place[1] == 1
    assert bench.publisher.batches == [(1, False)]


async def test_what_is_written_is_in_our_own_replica_on_return(bench: Bench) -> None:
    """200 means that the next look-up here already says no."""
    claims = bench.world.claims(jti="a")
    await bench.writer.write(bench.entry("a"))
    replica = bench.member.replica
    assert replica.revokes(replica.names(claims))


async def test_revocations_that_come_during_an_append_share_the_next_event(bench: Bench) -> None:
    """A hundred at once cost two events, not a hundred."""
    bench.publisher.gate.clear()
    first = asyncio.create_task(bench.writer.write(bench.entry("first")))
    await asyncio.wait([first], timeout=0)
    rest = bench.ask(100)
    await asyncio.wait(rest, timeout=0)
    bench.publisher.gate.set()
    sequences = {task.place[1] for task in await asyncio.gather(first, *rest)}
    assert bench.publisher.batches == [(1, False), (100, False)]
    assert sequences == {1, 2}


async def test_an_event_has_a_most_of_entries(bench: Bench) -> None:
    """Subscribers are cut off when their unread output grows too large."""
    results = await asyncio.gather(*bench.ask(1_201))
    assert [count for count, _ in bench.publisher.batches] == [250, 250, 250, 250, 201]
    assert len({result.place for result in results}) == 5


async def test_an_event_has_a_most_of_bytes(bench: Bench) -> None:
    """Five hundred long reasons would make a message of a size that pub/sub does not forgive."""
    long = [asyncio.create_task(bench.writer.write(bench.entry(str(n), "r" * 1_000))) for n in range(300)]
    await asyncio.gather(*long)
    assert len(bench.publisher.batches) == 3
    assert sum(count for count, _ in bench.publisher.batches) == 300


async def test_one_waiter_that_wants_a_report_makes_the_event_ask_for_it(bench: Bench) -> None:
    """Verifiers report at once only where somebody waits for them."""
    await asyncio.gather(
        bench.writer.write(bench.entry("a")), bench.writer.write(bench.entry("b"), report=True)
    )  # fmt: skip
    assert bench.publisher.batches == [(2, True)]


async def test_a_crowd_is_gathered_for_a_moment_and_a_lone_revocation_never_waits(bench: Bench) -> None:
    """Thousands become few events; but a linger without a crowd would only make every revocation slower."""
    clock = bench.world.clock
    assert isinstance(clock, ManualClock)
    for _ in range(3):
        began = clock.boottime()
        await bench.writer.write(bench.entry())
        assert clock.boottime() == began
    await asyncio.gather(*bench.ask(2))  # The first goes alone; the second does, too, for nobody shared with it.
    assert [count for count, _ in bench.publisher.batches] == [1, 1, 1, 2]
    began = clock.boottime()
    await bench.writer.write(bench.entry())
    assert clock.boottime() == began + limits.QUIET_SECONDS
    began = clock.boottime()
    await bench.writer.write(bench.entry())
    assert clock.boottime() == began


async def test_whoever_keeps_coming_is_not_waited_for_longer_than_the_linger(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A steady stream must not put the first of it off for ever."""
    clock = bench.world.clock
    assert isinstance(clock, HastyClock)
    await asyncio.gather(*bench.ask(2))
    came: list[asyncio.Task[limits.Written]] = []
    sleep = clock.sleep

    async def meanwhile_one_more(seconds: float) -> None:
        came.extend(bench.ask(1))
        await sleep(seconds)

    monkeypatch.setattr(clock, "sleep", meanwhile_one_more)
    began = clock.boottime()
    await bench.writer.write(bench.entry())
    assert limits.LONGEST_LINGER_SECONDS <= clock.boottime() - began < 2 * limits.LONGEST_LINGER_SECONDS
    await asyncio.gather(*came)


async def test_a_list_and_single_revocations_take_turns(bench: Bench) -> None:
    """A million of a list must not stand before the one that an incident asks for, nor behind all of a storm."""
    bench.publisher.gate.clear()
    parts = [
        asyncio.create_task(bench.writer.write_list([bench.entry(f"{part}-{n}") for n in range(300)]))
        for part in range(4)
    ]
    await asyncio.wait(parts, timeout=0)
    single = asyncio.create_task(bench.writer.write(bench.entry("urgent")))
    await asyncio.wait([single], timeout=0)
    storm = bench.ask(1_000)
    await asyncio.wait(storm, timeout=0)
    bench.publisher.gate.set()
    await asyncio.gather(*parts, single, *storm)
    assert [count for count, _ in bench.publisher.batches] == [300, 250, 300, 250, 300, 250, 300, 250, 1]
    assert single.result().place == (1, 2)


async def test_lists_have_a_queue_with_an_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory is bounded by it; single ones are still taken."""
    monkeypatch.setattr(limits, "MOST_LISTS_WAITING", 1)
    bench.publisher.gate.clear()
    parts = []
    for number in range(2):
        parts.append(asyncio.create_task(bench.writer.write_list([bench.entry(str(number))])))
        await asyncio.wait(parts, timeout=0.01)
    assert len(bench.writer) == 1
    with pytest.raises(FeedUnavailable):
        await bench.writer.write_list([bench.entry("c")])
    single = asyncio.create_task(bench.writer.write(bench.entry("d")))
    await asyncio.wait([single], timeout=0)
    bench.publisher.gate.set()
    await asyncio.gather(*parts, single)


async def test_a_race_that_is_lost_is_run_again_behind_the_winner(bench: Bench) -> None:
    """A revocation stays due whatever another replica of the publisher wrote first."""
    rival = await bench.world.caught_up()
    await bench.world.publisher(Lane.REVOCATIONS, rival).append([bench.entry("other")])
    written = await bench.writer.write(bench.entry("mine"))
    assert written.place[1] == 2
    assert bench.catch_ups == 1


async def test_whoever_always_loses_is_told_to_come_back(bench: Bench) -> None:
    """Endless retries would hide that two publishers fight."""
    bench.publisher.failures = [PositionTaken("again") for _ in range(limits.MOST_RACES)]
    with pytest.raises(PositionTaken):
        await bench.writer.write(bench.entry())
    assert bench.catch_ups == limits.MOST_RACES - 1


async def test_an_unknown_outcome_fails_each_waiter_and_not_the_next_batch(bench: Bench) -> None:
    """A frozen batch must fail all who wait in it: nobody may hear 200, nobody may hang."""
    bench.publisher.failures = [FeedUnavailable("no answer")]
    results = await asyncio.gather(*bench.ask(5), return_exceptions=True)
    assert [type(result) for result in results] == [FeedUnavailable] * 5
    assert (await bench.writer.write(bench.entry())).place[1] == 1


async def test_a_full_queue_refuses(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue without a limit is memory without a limit."""
    monkeypatch.setattr(limits, "MOST_WAITING", 3)
    bench.publisher.gate.clear()
    waiting = bench.ask(1)
    await asyncio.wait(waiting, timeout=0.01)
    waiting += bench.ask(3)
    await asyncio.wait(waiting, timeout=0.01)
    with pytest.raises(FeedUnavailable):
        await bench.writer.write(bench.entry())
    bench.publisher.gate.set()
    await asyncio.gather(*waiting)
    assert len(bench.writer) == 0


async def test_a_caller_that_goes_away_takes_nobody_along(bench: Bench) -> None:
    """A closed connection cancels its own request only."""
    bench.publisher.gate.clear()
    leaving, staying = bench.ask(2)
    await asyncio.wait([leaving, staying], timeout=0.01)
    leaving.cancel()
    bench.publisher.gate.set()
    assert (await staying).place[1] == 1
    assert leaving.cancelled()


async def test_a_caller_that_goes_away_while_another_replica_carries_out_its_order_takes_nobody_along(
    bench: Bench,
) -> None:
    """Those who share the event must not hear of a failure that is nobody's."""
    mark = Mark.of("admin", "key-1", {})
    bench.publisher.gate.clear()
    leaving = asyncio.create_task(bench.writer.write(bench.entry("a"), mark=mark))
    staying = asyncio.create_task(bench.writer.write(bench.entry("b")))
    await asyncio.wait([leaving, staying], timeout=0.01)
    rival = await bench.world.caught_up()
    publisher = bench.world.publisher(Lane.REVOCATIONS, rival)
    await publisher.append([bench.entry("a")], event_id=event_id_of([mark]))
    leaving.cancel()
    bench.publisher.gate.set()
    assert (await staying).place == (1, 2)
    assert leaving.cancelled()


async def test_closing_tells_those_who_wait_that_nothing_is_known(bench: Bench) -> None:
    """At the end of the process an append may or may not have happened."""
    bench.publisher.gate.clear()
    waiting = bench.ask(3)
    await asyncio.wait(waiting, timeout=0.01)
    await bench.writer.close()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [FeedUnavailable] * 3


async def test_the_moment_of_writing_is_remembered_and_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Receipts that are asked for later say how fast adoption was, for the newest places."""
    monkeypatch.setattr(limits, "_MOMENTS_KEPT", 2)
    clock = bench.world.clock
    assert isinstance(clock, ManualClock)
    for name in "abc":
        clock.advance(1)
        await bench.writer.write(bench.entry(name))
    assert [bench.writer.begun_at((1, sequence)) for sequence in (1, 2, 3)] == [None, 1_002.0, 1_003.0]
