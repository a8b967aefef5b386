"""Failed authentication is slowed by address and by client, and never whoever authenticates."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.clock import SystemClock
from serving.failures import (
    HOLD_SECONDS,
    MOST_HELD,
    MOST_HELD_OF_ADDRESS,
    MOST_TRACKED,
    OF_ADDRESS,
    OF_CLIENT,
    Allowance,
    Allowances,
    Failures,
)
from tests.clocks import HastyClock, ManualClock


async def fail(failures: Failures, times: int, *, address: str = "192.0.2.1", client_id: str = "shop") -> list[int]:
    """Fail so often, one after another."""
    return [await failures.note(address=address, client_id=client_id) for _ in range(times)]


async def test_the_first_failures_are_answered_at_once_and_the_next_ones_later() -> None:
    """A client with an old secret hears so; a guesser is slowed to one guess a second."""
    clock = HastyClock()
    failures, began = Failures(clock), clock.boottime()
    assert await fail(failures, int(OF_ADDRESS.burst)) == [0] * int(OF_ADDRESS.burst)
    assert clock.boottime() == began
    assert await fail(failures, 1) == [1]
    assert clock.boottime() == began + HOLD_SECONDS
    await fail(failures, 9)
    assert clock.boottime() >= began + 5 * HOLD_SECONDS


async def test_a_flood_from_one_address_slows_nobody_elsewhere() -> None:
    """Neither those who fail for another client, nor those who fail for the same."""
    failures = Failures(ManualClock())
    await fail(failures, int(OF_ADDRESS.burst))
    flood = [asyncio.create_task(failures.note(address="192.0.2.1", client_id="shop")) for _ in range(5000)]
    await SystemClock().sleep(0)
    done = [task for task in flood if task.done()]
    assert len(done) == 5000 - MOST_HELD_OF_ADDRESS
    assert all(task.result() >= 1 for task in done)
    assert await fail(failures, 5, address="198.51.100.7") == [0] * 5
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    assert not failures._held


async def test_a_client_that_many_addresses_fail_for_is_slowed_as_a_whole() -> None:
    """A guesser with a thousand addresses is one guesser."""
    failures = Failures(ManualClock())
    told = [await failures.note(address=f"192.0.2.{n}", client_id="shop") for n in range(int(OF_CLIENT.burst))]
    assert set(told) == {0}
    late = asyncio.create_task(failures.note(address="198.51.100.7", client_id="shop"))
    await SystemClock().sleep(0)
    assert not late.done()
    assert await failures.note(address="198.51.100.7", client_id="other") == 0
    late.cancel()


async def test_no_more_answers_are_held_than_connections_can_be_spared() -> None:
    """A flood from everywhere must not fill the listener with answers that wait."""
    failures = Failures(ManualClock())
    for number in range(int(OF_CLIENT.burst)):
        await failures.note(address=f"192.0.2.{number}", client_id="shop")
    flood = [
        asyncio.create_task(failures.note(address=f"10.0.{n // 250}.{n % 250}", client_id="shop")) for n in range(1000)
    ]
    await SystemClock().sleep(0)
    assert sum(not task.done() for task in flood) == MOST_HELD
    for task in flood:
        task.cancel()
    await asyncio.gather(*flood, return_exceptions=True)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("192.0.2.1", "192.0.2.2", False),
        (None, "", True),
    ],
)
async def test_what_one_subscriber_has_is_one_address(one: str | None, other: str | None, same: bool) -> None:
    """Of IPv6 everybody has 2^64: counting each would limit nobody."""
    failures = Failures(ManualClock())
    for number in range(int(OF_ADDRESS.burst)):
        assert await failures.note(address=one, client_id=f"client-{number}") == 0
    late = asyncio.create_task(failures.note(address=other, client_id="shop"))
    await SystemClock().sleep(0)
    assert late.done() is not same
    late.cancel()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 5)), max_size=200))
def test_no_more_is_allowed_than_burst_and_rate(steps: list[tuple[str, float]]) -> None:
    """Whatever the order and the pauses; and who waits as long as he is told to is let in."""
    allowances, now, taken = Allowances(Allowance(3, 0.5)), 0.0, dict.fromkeys("abc", 0)
    for name, pause in steps:
        now += pause
        wait = allowances.take(name, now)
        if wait == 0:
            taken[name] += 1
        else:
            assert Allowances.take(allowances, name, now + wait + 1e-9) == 0
            now, taken[name] = now + wait + 1e-9, taken[name] + 1
        assert taken[name] <= 3 + 0.5 * now + 1e-6


def test_the_tables_are_bounded() -> None:
    """Whoever changes his name with each attempt fills nothing; who was seen longest ago is forgotten."""
    allowances = Allowances(Allowance(1, 0.001))
    for number in range(MOST_TRACKED + 10):
        assert allowances.take(f"client-{number}", 0.0) == 0
    assert len(allowances) == MOST_TRACKED
    assert allowances.take(f"client-{MOST_TRACKED + 9}", 0.0) > 0
    assert allowances.take("client-0", 0.0) == 0


async def test_who_is_slowed_is_told_whole_seconds_and_no_less_than_he_has_to_wait() -> None:
    """RFC 9110, 10.2.3: whoever comes back when he was told to is answered at once."""
    clock = ManualClock()
    allowances = Allowances(Allowance(2, 0.4))
    assert [allowances.take("a", clock.now()) for _ in range(2)] == [0, 0]  # To the last one.
    wait = allowances.take("a", clock.now())
    assert 2.4 < wait <= 2.5
    assert allowances.take("a", clock.now() - 100) >= wait  # A clock that went back takes nothing away.
    failures = Failures(HastyClock())
    failures._of_address = allowances
    told = await failures.note(address=None, client_id="b")
    assert told == 0
    await failures.note(address=None, client_id="b")
    assert await failures.note(address=None, client_id="b") == 3
