"""Questions asked at the same time go together; each gets its own answer, or its own failure."""

import asyncio
from collections.abc import Sequence

import pytest

from keyturn.contract.errors import StoreUnavailable
from serving.gathering import Gathering
from serving.problems import Busy


class Oracle:
    """Doubles numbers, as slowly as the test wants."""

    def __init__(self) -> None:
        """Begin with an open gate."""
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing = False

    async def ask_all(self, numbers: Sequence[int]) -> list[int]:
        """Answer a batch."""
        self.batches.append(list(numbers))
        await self.gate.wait()
        if self.failing:
            raise StoreUnavailable("gone")
        return [2 * number for number in numbers]


async def test_one_question_alone_does_not_linger() -> None:
    """No timer stands between a lone question and its answer."""
    oracle = Oracle()
    gathering = Gathering(oracle.ask_all, most_together=8)
    assert await gathering.ask(4) == 8
    assert oracle.batches == [[4]]


@pytest.mark.parametrize("at_once", [1, 2])
async def test_who_asks_as_the_last_flight_ends_is_answered(at_once: int) -> None:
    """Between a flight's last step and the moment when the loop calls it done somebody may ask: nobody else would."""
    oracle = Oracle()
    gathering = Gathering(oracle.ask_all, most_together=1, at_once=at_once)

    async def ask_twice() -> tuple[int, int]:
        return await gathering.ask(1), await gathering.ask(2)

    answers = await asyncio.wait_for(asyncio.gather(*(ask_twice() for _ in range(at_once))), 5)
    assert answers == [(2, 4)] * at_once


async def test_what_comes_while_others_fly_goes_together_and_in_order() -> None:
    """Under load batches grow by themselves, up to their limit, at most `at_once` under way."""
    oracle = Oracle()
    gathering = Gathering(oracle.ask_all, most_together=4, at_once=1)
    oracle.gate.clear()
    asked = [asyncio.ensure_future(gathering.ask(0))]
    while not oracle.batches:
        await asyncio.wait(asked, timeout=0.001)
    asked += [asyncio.ensure_future(gathering.ask(number)) for number in range(1, 8)]
    oracle.gate.set()
    assert await asyncio.gather(*asked) == [2 * number for number in range(8)]
    assert oracle.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


async def test_who_asks_again_at_once_comes_along_with_the_next_batch() -> None:
    """Callers ask one question after the other: to leave without them makes batches small, and each costs a trip."""
    oracle = Oracle()
    gathering = Gathering(oracle.ask_all, most_together=8, at_once=1)
    oracle.gate.clear()

    async def ask_twice() -> list[int]:
        return [await gathering.ask(0), await gathering.ask(2)]

    twice = asyncio.ensure_future(ask_twice())
    while not oracle.batches:
        await asyncio.wait([twice], timeout=0.001)
    once = asyncio.ensure_future(gathering.ask(1))
    await asyncio.wait([once], timeout=0.001)
    oracle.gate.set()
    assert (await twice, await once) == ([0, 4], 2)
    assert oracle.batches == [[0], [1, 2]]


async def test_a_failure_reaches_each_who_asked_and_nobody_else() -> None:
    """A frozen or failed batch must fail each waiter, and the next batch goes on."""
    oracle = Oracle()
    oracle.failing = True
    gathering = Gathering(oracle.ask_all, most_together=8)
    failures = await asyncio.gather(*(gathering.ask(number) for number in range(3)), return_exceptions=True)
    assert [type(one) for one in failures] == [StoreUnavailable] * 3
    oracle.failing = False
    assert await gathering.ask(1) == 2


async def test_who_gives_up_waiting_does_not_disturb_the_others() -> None:
    """A request that was cancelled leaves its place; its neighbours keep their own answers."""
    oracle = Oracle()
    gathering = Gathering(oracle.ask_all, most_together=8, at_once=1)
    oracle.gate.clear()
    asked = [asyncio.ensure_future(gathering.ask(number)) for number in range(4)]
    while not oracle.batches:
        await asyncio.wait(asked, timeout=0.001)
    asked[1].cancel()
    late = asyncio.ensure_future(gathering.ask(9))
    await asyncio.wait([asked[1]])
    oracle.gate.set()
    assert list(await asyncio.gather(asked[0], asked[2], asked[3], late)) == [0, 4, 6, 18]


async def test_a_queue_that_is_full_says_so() -> None:
    """A limit on everything that grows: better a 503 now than a timeout later."""
    oracle = Oracle()
    gathering = Gathering(oracle.ask_all, most_together=1, at_once=1, most_waiting=2)
    oracle.gate.clear()
    asked = [asyncio.ensure_future(gathering.ask(number)) for number in range(2)]
    while not oracle.batches:
        await asyncio.wait(asked, timeout=0.001)
    asked.append(asyncio.ensure_future(gathering.ask(2)))
    await asyncio.wait(asked, timeout=0.001)
    with pytest.raises(Busy):
        await gathering.ask(3)
    oracle.gate.set()
    assert await asyncio.gather(*asked) == [0, 2, 4]


async def test_a_flight_that_is_cancelled_tells_each_who_waits_and_ends() -> None:
    """A service that is told to end must not leave a request hanging, nor fly on."""
    oracle = Oracle()
    gathering = Gathering(oracle.ask_all, most_together=8, at_once=1)
    oracle.gate.clear()
    asked = [asyncio.ensure_future(gathering.ask(number)) for number in range(2)]
    while not oracle.batches:
        await asyncio.wait(asked, timeout=0.001)
    (flight,) = gathering._batches._flights
    flight.cancel()
    outcomes = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
    assert [type(one) for one in outcomes] == [Busy, Busy]
    await asyncio.wait([flight])
    assert flight.cancelled()
    oracle.gate.set()
    assert await gathering.ask(4) == 8


async def test_who_was_asked_for_more_than_he_answers_fails_them_all() -> None:
    """An answer that went to the wrong question would be another token's record."""

    async def short(numbers: Sequence[int]) -> list[int]:
        return list(numbers)[1:]

    gathering = Gathering(short, most_together=8)
    asked = [gathering.ask(number) for number in range(3)]
    outcomes = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)
    assert isinstance(outcomes[2], ValueError)
