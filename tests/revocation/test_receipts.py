"""Receipts: who has adopted a place, how fast, who lags; and never a yes on behalf of somebody unseen."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp.test_utils import make_mocked_request

from keyturn.contract.errors import MalformedInput
from keyturn.contract.positions import Lane
from keyturn.contract.reports import Report, sign_report
from keyturn.contract.selectors import SelectorKind
from keyturn.feed.presence import PresenceWatch
from serving.receipts import Quorum, read_wait, receipt_of
from tests.clocks import ManualClock
from tests.waiting import eventually
from tests.world import World, new_statement_key

LIVE_SECONDS = 60.0
PLACE = (1, 1)


class Stage:
    """A world with verifiers that the root knows, and a watch over their reports."""

    def __init__(self, *, durable: bool, verifiers: tuple[str, ...] = ("one", "two")) -> None:
        self.clock = ManualClock()
        self.world = World(clock=self.clock, verifiers={name: new_statement_key() for name in verifiers})
        self.watch = PresenceWatch(
            self.world.feed, self.world.trust, self.clock, live_seconds=LIVE_SECONDS, durable=durable  # type: ignore[arg-type]
        )  # fmt: skip
        self._count = 0

    async def report(self, name: str, place: tuple[int, int]) -> None:
        """Let a verifier report that it holds that place of the revocations lane."""
        self._count += 1
        report = Report(
            verifier=name, incarnation="1", count=self._count, at=self.clock.now(), keys=(1, 0), revocations=place,
            state="fresh",
        )  # fmt: skip
        await self.world.feed.report(name, sign_report(self.world.verifiers[name], report), ttl_seconds=60)  # type: ignore[attr-defined]

    async def adopted(self, count: int) -> None:
        """Wait until the watch has seen that many adopt that place."""
        await eventually(lambda: len(self.watch.adopters(Lane.REVOCATIONS, PLACE).adopted) == count)


@asynccontextmanager
async def watching(*, durable: bool = True, verifiers: tuple[str, ...] = ("one", "two")) -> AsyncIterator[Stage]:
    """Watch until all verifiers have been seen at the genesis."""
    stage = Stage(durable=durable, verifiers=verifiers)
    for name in verifiers:
        await stage.report(name, (1, 0))
    task = asyncio.create_task(stage.watch.run())
    await eventually(lambda: len(stage.watch.all()) == len(verifiers))
    yield stage
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_receipt_names_who_lags_and_how_fast_the_others_were() -> None:
    """It is the operator's proof, and the list of what to look after."""
    async with watching() as stage:
        begun = stage.clock.boottime()
        stage.clock.advance(0.0031)
        await stage.report("one", PLACE)
        await eventually(lambda: stage.watch.adopters(Lane.REVOCATIONS, PLACE).adopted)
        told, complete = await receipt_of(
            stage.watch, Lane.REVOCATIONS, PLACE, wait=Quorum.NOBODY, appended_boottime=begun, durability="local"
        )
    assert told == {
        "lane": "revocations", "epoch": 1, "sequence": 1, "durability": "local", "adopted": 1, "live": 2,
        "slowest_ms": 3.1, "laggards": ["two"], "adopted_ms": {"one": 3.1},
    }  # fmt: skip
    assert complete  # Nobody was waited for.


async def test_each_verifiers_own_time_is_told() -> None:
    """An operator sees which one is slow, and not only that one is; without a known beginning there is no figure."""
    async with watching() as stage:
        begun = stage.clock.boottime()
        for count, name in enumerate(("one", "two"), start=1):
            stage.clock.advance(0.002)
            await stage.report(name, PLACE)
            await stage.adopted(count)
        known, unknown = [
            await receipt_of(
                stage.watch, Lane.REVOCATIONS, PLACE, wait=Quorum.NOBODY, appended_boottime=moment, durability="local"
            )
            for moment in (begun, None)
        ]
    assert (known[0]["adopted_ms"], known[0]["slowest_ms"]) == ({"one": 2.0, "two": 4.0}, 4.0)
    assert (unknown[0]["adopted_ms"], unknown[0]["slowest_ms"]) == ({"one": None, "two": None}, None)


@pytest.mark.parametrize(
    ("reporting", "names", "reached"),
    [((), 3, False), (("a",), 3, False), (("a", "b"), 3, True), (("a",), 2, False), (("a", "b"), 4, False)],
)
async def test_a_quorum_is_more_than_half_of_the_live_verifiers(
    reporting: tuple[str, ...], names: int, reached: bool
) -> None:
    """Half is no majority: of four, two that hold it may be the two that nobody asks."""
    async with watching(verifiers=tuple("abcd"[:names])) as stage:
        for name in reporting:
            await stage.report(name, PLACE)
        await stage.adopted(len(reporting))
        told, complete = await receipt_of(
            stage.watch, Lane.REVOCATIONS, PLACE, wait=Quorum.MOST, timeout_seconds=0.02, appended_boottime=None,
            durability="local",
        )  # fmt: skip
    assert (complete, told["live"], len(told["laggards"])) == (reached, names, names - len(reporting))


async def test_a_quorum_of_a_set_that_may_lack_somebody_is_none() -> None:
    """More than half of those that were seen may be less than half of those that are there."""
    async with watching(durable=False) as stage:
        for name in ("one", "two"):
            await stage.report(name, PLACE)
        await stage.adopted(2)
        _, complete = await receipt_of(
            stage.watch, Lane.REVOCATIONS, PLACE, wait=Quorum.MOST, timeout_seconds=0.02, appended_boottime=None,
            durability="local",
        )  # fmt: skip
    assert not complete


async def test_waiting_ends_with_the_last_report() -> None:
    """With wait=all the answer comes when the last verifier has adopted, not before and not much later."""
    async with watching() as stage:
        member = await (await stage.world.begin()).caught_up()
        publisher = stage.world.publisher(Lane.REVOCATIONS, member)
        signed = await publisher.append([stage.world.entry(SelectorKind.JTI, "a")], report=True)
        asked = asyncio.create_task(
            receipt_of(
                stage.watch, Lane.REVOCATIONS, signed.position.place, wait=Quorum.ALL, timeout_seconds=5,
                appended_boottime=stage.clock.boottime(), durability="local",
            )
        )  # fmt: skip
        await stage.report("one", PLACE)
        await eventually(lambda: stage.watch.adopters(Lane.REVOCATIONS, PLACE).adopted)
        assert not asked.done()
        await stage.report("two", PLACE)
        told, complete = await asyncio.wait_for(asked, 2)
    assert complete
    assert (told["adopted"], told["live"], told["laggards"]) == (2, 2, [])


async def test_waiting_ends_at_the_timeout_with_the_laggards() -> None:
    """One dead verifier must not hold the operator for ever, nor be passed over in silence."""
    async with watching() as stage:
        await stage.report("two", PLACE)
        await eventually(lambda: stage.watch.adopters(Lane.REVOCATIONS, PLACE).adopted)
        told, complete = await receipt_of(
            stage.watch, Lane.REVOCATIONS, PLACE, wait=Quorum.ALL, timeout_seconds=0.05, appended_boottime=None,
            durability="local",
        )  # fmt: skip
    assert (complete, told["laggards"], told["slowest_ms"]) == (False, ["one"], None)


async def test_a_set_that_was_not_watched_long_enough_vouches_for_nothing() -> None:
    """Right after a start a live verifier may not have been heard yet: that is not "all have adopted"."""
    async with watching(durable=False) as stage:
        for name in ("one", "two"):
            await stage.report(name, PLACE)
        await stage.adopted(2)
        place = {"wait": Quorum.ALL, "timeout_seconds": 0.05, "appended_boottime": None, "durability": "local"}
        _, complete = await receipt_of(stage.watch, Lane.REVOCATIONS, PLACE, **place)  # type: ignore[arg-type]
        assert not complete
        for _ in range(int(LIVE_SECONDS) - 1):  # Looked at all the while: a watch that was interrupted begins anew.
            stage.clock.advance(1)
            await stage.watch.look()
        for name in ("one", "two"):
            await stage.report(name, PLACE)
        stage.clock.advance(1)
        await stage.adopted(2)
        _, complete = await receipt_of(stage.watch, Lane.REVOCATIONS, PLACE, **place)  # type: ignore[arg-type]
    assert complete


async def test_a_watch_that_has_read_nothing_vouches_for_nothing() -> None:
    """Nobody seen is not the same as nobody there."""
    stage = Stage(durable=True)
    told, complete = await receipt_of(
        stage.watch,
        Lane.REVOCATIONS,
        PLACE,
        wait=Quorum.ALL,
        timeout_seconds=0.05,
        appended_boottime=None,
        durability="local",
    )
    assert (told["live"], complete) == (0, False)


@pytest.mark.parametrize(
    "query", ["wait=some", "wait=all&wait=all", "timeout=x", "timeout=-1", "timeout=nan", "timeout=9"]
)
def test_a_wait_that_is_none_is_refused(query: str) -> None:
    """Who mistypes `all` must not believe that all have adopted."""
    with pytest.raises(MalformedInput):
        read_wait(make_mocked_request("POST", f"/revocations?{query}"))
