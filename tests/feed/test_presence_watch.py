"""Who counts as live, what they have adopted, and since when the set of them can be believed."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from keyturn.contract.envelope import StatementKey
from keyturn.contract.positions import Lane
from keyturn.contract.reports import Report, sign_report
from keyturn.contract.trust import IdentityKind
from keyturn.feed.memory import MemoryFeed
from keyturn.feed.presence import PresenceWatch
from tests.clocks import ManualClock
from tests.waiting import eventually
from tests.world import World, new_statement_key

LIVE_SECONDS = 12.0
KEYS, REVOCATIONS = Lane


class Board:
    """A presence board with two verifiers that the root knows, and a watch on it."""

    def __init__(self, *, durable: bool = False) -> None:
        self.clock, self.feed = ManualClock(), MemoryFeed()
        self.identities = {name: new_statement_key() for name in ("sidecar-1", "sidecar-2", "sidecar-3")}
        self.service = new_statement_key()
        world = World(feed=self.feed, clock=self.clock, verifiers=self.identities, services={"worker": self.service})
        self.trust = world.trust()
        self.watch = self.new_watch(durable=durable)
        self.counts = dict.fromkeys(self.identities, 0)

    def new_watch(self, *, durable: bool = False) -> PresenceWatch:
        """Return another watch on the same board."""
        return PresenceWatch(self.feed, lambda: self.trust, self.clock, live_seconds=LIVE_SECONDS, durable=durable)

    def report(self, name: str = "sidecar-1", **changes: object) -> Report:
        """Return a verifier's next report."""
        self.counts[name] = self.counts.get(name, 0) + 1
        members: dict[str, object] = {
            "verifier": name, "incarnation": "018bcfe5-0000-7000-8000-000000000001", "count": self.counts[name],
            "at": self.clock.now(), "keys": (1, 5), "revocations": (1, 7), "state": "fresh",
        } | changes  # fmt: skip
        return Report(**members)  # type: ignore[arg-type]

    async def post(self, report: Report, *, under: str | None = None, by: StatementKey | None = None) -> bytes:
        """Sign a report, leave it on the board, and let the watch look."""
        compact = sign_report(by or self.identities[report.verifier], report)
        await self.feed.report(under or report.verifier, compact, ttl_seconds=LIVE_SECONDS)
        await self.watch.look()
        return compact

    def live(self) -> list[str]:
        """Return the live verifiers."""
        return list(self.watch.adoption().live)


@pytest.fixture
def board() -> Board:
    """Return an empty board."""
    return Board()


@pytest.fixture
async def watched(board: Board) -> AsyncIterator[Board]:
    """Return an empty board on which the watch runs."""
    task = asyncio.create_task(board.watch.run())
    await eventually(lambda: bool(board.feed._watchers))
    yield board
    task.cancel()


async def test_a_signed_report_makes_its_verifier_live_with_what_it_has_adopted(board: Board) -> None:
    """Nothing else does."""
    await board.post(board.report(keys=(2, 9)))
    assert board.watch.adoption().live == {"sidecar-1": (2, 9)}
    (seen,) = board.watch.all()
    assert seen.report.revocations == (1, 7)


async def test_forged_reports_are_not_believed(board: Board) -> None:
    """By a stranger, by another verifier, by a service, for somebody unknown, under another's name, or garbage."""
    await board.post(board.report(), by=new_statement_key())
    await board.post(board.report(), by=board.identities["sidecar-2"])
    await board.post(board.report(), by=board.service)
    await board.post(board.report("worker"), by=board.service)
    await board.post(board.report("sidecar-9"), by=new_statement_key())
    await board.post(board.report("sidecar-2"), under="sidecar-1")
    await board.feed.report("sidecar-1", b"\xff.\xff.\xff", ttl_seconds=1)
    await board.watch.look()
    assert board.live() == []
    assert board.trust.identity("worker", IdentityKind.VERIFIER) == {}


async def test_an_older_report_does_not_replace_a_newer_one(board: Board) -> None:
    """A replayed report would say that a verifier lags, or, after its goodbye, that it lives."""
    old = await board.post(board.report(keys=(1, 4)))
    await board.post(board.report(keys=(1, 6)))
    await board.feed.report("sidecar-1", old, ttl_seconds=1)
    await board.watch.look()
    assert board.watch.adoption().live == {"sidecar-1": (1, 6)}
    await board.post(board.report(goodbye=True))
    assert board.live() == []
    await board.feed.report("sidecar-1", old, ttl_seconds=1)
    await board.watch.look()
    assert board.live() == []


async def test_a_new_incarnation_begins_its_count_anew(board: Board) -> None:
    """A restarted verifier holds less than before, and must be waited for."""
    await board.post(board.report(count=500, keys=(1, 9)))
    await board.post(board.report(count=1, incarnation="018bcfe6-0000-7000-8000-000000000001", keys=(1, 2)))
    assert board.watch.adoption().live == {"sidecar-1": (1, 2)}


async def test_a_verifier_that_came_back_with_an_earlier_clock_is_live_again(board: Board) -> None:
    """Its incarnation sorts before the dead one's; it must not be overlooked for ever."""
    await board.post(board.report(count=9, incarnation="019bcfe5-0000-7000-8000-000000000001"))
    early = board.report(count=1, incarnation="018bcfe5-0000-7000-8000-000000000001")
    await board.post(early)
    assert board.watch.all()[0].report.count == 9
    board.clock.advance(LIVE_SECONDS)
    await board.post(board.report(count=2, incarnation="018bcfe5-0000-7000-8000-000000000001"))
    assert board.watch.all()[0].report.count == 2


async def test_without_a_goodbye_a_verifier_counts_until_it_cannot_serve_any_more(board: Board) -> None:
    """E + S after its last report: until then it may still accept what it should not."""
    await board.post(board.report())
    board.clock.advance(LIVE_SECONDS - 0.1)
    await board.watch.look()
    assert board.live() == ["sidecar-1"]
    board.clock.advance(0.2)
    await board.watch.look()
    assert board.live() == []


async def test_reading_the_same_report_again_does_not_prolong_a_life(board: Board) -> None:
    """The key stays in the store; the verifier may be gone."""
    await board.post(board.report())
    for _ in range(5):
        board.clock.advance(LIVE_SECONDS / 4)
        await board.watch.look()
    assert board.live() == []


async def test_a_report_from_long_ago_makes_nobody_live(board: Board) -> None:
    """Who can write to the store could otherwise hold up every rotation with a dead verifier's words."""
    old = board.report(at=board.clock.now() - LIVE_SECONDS)
    await board.post(old)
    assert board.live() == []


async def test_the_set_is_complete_only_after_it_was_watched_on_one_run(board: Board) -> None:
    """A verifier reports once a second, but its word may have been lost with the server."""
    assert not board.watch.complete
    await board.watch.look()
    assert not board.watch.complete
    await looking(board, LIVE_SECONDS - 0.1)
    assert not board.watch.complete
    board.clock.advance(0.1)
    assert board.watch.complete
    assert board.watch.adoption().complete
    board.feed.run = "run-2"
    await board.watch.look()
    assert not board.watch.complete
    await looking(board, LIVE_SECONDS)
    assert board.watch.complete


async def looking(board: Board, seconds: float) -> None:
    """Let time pass while the watch looks again and again."""
    for _ in range(10):
        board.clock.advance(seconds / 10)
        await board.watch.look()


async def test_who_does_not_look_knows_of_nobody_and_begins_anew(board: Board) -> None:
    """Cut off or stopped for so long, it would take all for dead; and what was taken from the board it never saw."""
    await board.watch.look()
    await board.post(board.report())
    await looking(board, LIVE_SECONDS)
    assert board.watch.complete
    board.clock.advance(LIVE_SECONDS + 1)
    assert board.live() == []
    assert not board.watch.complete
    board.feed._reports.clear()  # By somebody who may write there.
    await board.watch.look()
    assert not board.watch.complete
    await looking(board, LIVE_SECONDS)
    assert board.watch.complete


async def test_who_begins_anew_on_a_durable_server_has_read_everything(board: Board) -> None:
    """There the board is the truth, as soon as it was read again."""
    durable = board.new_watch(durable=True)
    await durable.look()
    board.clock.advance(LIVE_SECONDS)
    assert not durable.complete
    await durable.look()
    assert durable.complete


async def test_on_a_durable_server_the_set_is_complete_once_it_was_read() -> None:
    """One server that loses nothing it acknowledged: what is not there is not live."""
    board = Board(durable=True)
    assert not board.watch.complete
    await board.watch.look()
    assert board.watch.complete
    board.feed.run = "run-2"
    await board.watch.look()
    assert board.watch.complete


async def test_who_began_the_lane_knows_that_nobody_was_there_before(board: Board) -> None:
    """For the run on which it began, and no longer."""
    board.watch.lane_began()
    assert not board.watch.complete
    await board.watch.look()
    assert board.watch.complete
    board.feed.run = "run-2"
    await board.watch.look()
    assert not board.watch.complete


async def test_a_verifier_on_another_branch_has_adopted_nothing(watched: Board) -> None:
    """After a lost tail the same numbers stand on two histories: a receipt must not count who holds the other one."""
    ours = {(KEYS, (1, 5)): "five", (KEYS, (1, 6)): "six", (REVOCATIONS, (1, 7)): "seven"}
    watched.watch = PresenceWatch(
        watched.feed, lambda: watched.trust, watched.clock, live_seconds=LIVE_SECONDS,
        hash_at=lambda lane, place: ours.get((lane, place)),
    )  # fmt: skip
    await watched.post(watched.report("sidecar-1", keys=(1, 6), keys_hash="six", revocations_hash="seven"))
    await watched.post(watched.report("sidecar-2", keys=(1, 6), keys_hash="another", revocations_hash="seven"))
    await watched.post(watched.report("sidecar-3", keys=(1, 9), keys_hash="nine"))  # Beyond what we have heard of.
    adopters = watched.watch.adopters(KEYS, (1, 5))
    assert (adopters.adopted, adopters.laggards) == (("sidecar-1",), ("sidecar-2", "sidecar-3"))
    assert watched.watch.adoption().live == {"sidecar-1": (1, 6), "sidecar-2": (0, 0), "sidecar-3": (0, 0)}
    assert watched.watch.adopters(REVOCATIONS, (1, 7)).laggards == ("sidecar-3",)


async def test_adopters_and_laggards_are_told_for_each_lane_and_place(watched: Board) -> None:
    """What a receipt says."""
    await watched.post(watched.report("sidecar-1", keys=(1, 5), revocations=(1, 7)))
    watched.clock.advance(1)
    await watched.post(watched.report("sidecar-2", keys=(1, 6), revocations=(1, 3)))
    keys = watched.watch.adopters(KEYS, (1, 6))
    assert (keys.adopted, keys.laggards) == (("sidecar-2",), ("sidecar-1",))
    both = watched.watch.adopters(KEYS, (1, 5))
    assert (both.adopted, both.laggards) == (("sidecar-1", "sidecar-2"), ())
    assert both.slowest_boottime == watched.clock.boottime()
    assert watched.watch.adopters(REVOCATIONS, (1, 4)).laggards == ("sidecar-2",)
    assert watched.watch.adopters(KEYS, (2, 0)).adopted == ()


async def test_the_moment_of_adoption_is_the_first_report_of_the_place(board: Board) -> None:
    """Later reports of the same place, or of later ones, do not make it slower."""
    await board.post(board.report(keys=(1, 5)))
    first = board.clock.boottime()
    for place in ((1, 5), (1, 6), (1, 8)):
        board.clock.advance(1)
        await board.post(board.report(keys=place))
    assert board.watch.adopters(KEYS, (1, 5)).slowest_boottime == first
    assert board.watch.adopters(KEYS, (1, 7)).slowest_boottime == board.clock.boottime()


async def test_who_waits_for_adoption_is_woken_by_the_last_report(watched: Board) -> None:
    """And not before, and not much later."""
    await watched.feed.report(
        "sidecar-1", sign_report(watched.identities["sidecar-1"], watched.report()), ttl_seconds=9
    )
    lagging = watched.report("sidecar-2", keys=(1, 1))
    await watched.feed.report("sidecar-2", sign_report(watched.identities["sidecar-2"], lagging), ttl_seconds=9)
    await eventually(lambda: len(watched.live()) == 2)
    waiting = asyncio.ensure_future(watched.watch.adopted(KEYS, (1, 5), within_seconds=30))
    await watched.watch.change(within_seconds=0.05)
    assert not waiting.done()
    caught_up = watched.report("sidecar-2", keys=(1, 5))
    await watched.feed.report("sidecar-2", sign_report(watched.identities["sidecar-2"], caught_up), ttl_seconds=9)
    told = await asyncio.wait_for(waiting, 5)
    assert (told.adopted, told.laggards) == (("sidecar-1", "sidecar-2"), ())


async def test_waiting_for_a_laggard_ends_with_its_name(watched: Board) -> None:
    """A timeout is an answer: 202, and who it is."""
    await watched.post(watched.report(keys=(1, 1)))
    told = await watched.watch.adopted(KEYS, (1, 5), within_seconds=0.05)
    assert (told.adopted, told.laggards) == ((), ("sidecar-1",))


async def test_the_watch_survives_the_loss_of_the_store(watched: Board) -> None:
    """It subscribes again and reads what it missed."""
    watched.feed.reachable = False
    watched.feed.cut()
    await eventually(lambda: not watched.feed._watchers)
    watched.feed.reachable = True
    await watched.feed.report(
        "sidecar-1", sign_report(watched.identities["sidecar-1"], watched.report()), ttl_seconds=9
    )

    def live_again() -> bool:
        watched.clock.advance(0.05)
        return watched.live() == ["sidecar-1"]

    await eventually(live_again)
