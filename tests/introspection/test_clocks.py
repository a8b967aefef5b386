"""By what time a token is judged, and on what state of the replica: the moments between one answer and the next."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from keyturn.contract.positions import Lane
from serving.parts import Parts
from tests.building import RESOURCE, Standing, new_access_token
from tests.clocks import LeapingClock
from tests.families import begin
from tests.introspection.conftest import Ask
from tests.introspection.test_introspect import INACTIVE

ACTIVE = b'"active":true'
HOUR = 3600.0


async def test_a_clock_that_was_set_back_brings_no_token_back(ask: Ask, stage: Standing, clock: LeapingClock) -> None:
    """Checklist (4), (10), RFC 7662, 4: time is judged by the publishers' word, too, whatever our own clock says."""
    now = int(clock.now())
    gone = [
        stage.world.mint(iat=now - 900, exp=now - 600).decode(),
        await stage.put_opaque(iat=now - 900, exp=now - 600),
        await begin(stage, claims={"client_id": RESOURCE}, expires_at=now - 600),
    ]
    good = [stage.world.mint().decode(), await stage.put_opaque(), await begin(stage, claims={"client_id": RESOURCE})]
    for ahead in (0.0, -HOUR):
        clock.ahead_seconds = ahead
        assert [(await ask(token)).body for token in gone] == [INACTIVE] * 3
        assert all([ACTIVE in (await ask(token)).body for token in good])


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Do what a test writes here while the store is asked, each once."""
    steps: list[Callable[[], object]] = []
    reach = Parts.reach

    async def slow(self: Parts, positions: Mapping[Lane, bytes | None]) -> None:
        await reach(self, positions)
        if steps:
            steps.pop()()

    monkeypatch.setattr(Parts, "reach", slow)
    return steps


Meanwhile = list[Callable[[], object]]


def leap(clock: LeapingClock, seconds: float) -> Callable[[], None]:
    """Return what sets the clock ahead by that much."""
    return lambda: setattr(clock, "ahead_seconds", clock.ahead_seconds + seconds)


async def test_a_replica_that_grew_stale_while_the_store_was_asked_says_so(
    ask: Ask, stage: Standing, clock: LeapingClock, meanwhile: Meanwhile
) -> None:
    """What is remembered may be said still: the positions were reached. That it was said so late, the log tells."""
    token = await stage.put_opaque()
    assert ACTIVE in (await ask(token)).body
    meanwhile.append(leap(clock, 10.0))
    with capture_logs() as logs:
        assert ACTIVE in (await ask(token, accept="application/json")).body  # Another head: not by the short way.
    assert [one["state"] for one in logs if one["event"] == "request"] == ["stale"]


@pytest.mark.parametrize("accept", [None, "application/json"], ids=["short way", "long way"])
@pytest.mark.parametrize("which", ["wall", "boot"])
async def test_what_is_remembered_counts_while_the_replica_is_fresh_by_both_clocks(
    ask: Ask,
    stage: Standing,
    clock: LeapingClock,
    monkeypatch: pytest.MonkeyPatch,
    *,
    which: str,
    accept: str | None,
) -> None:
    """A wall clock that stands still, or a machine that slept, must not make old news fresh: the record is read again.

    It is gone here, as it should never be while the token is remembered; that is how one sees that it was looked for.
    """
    token = await stage.put_opaque()
    assert ACTIVE in (await ask(token)).body
    await stage.records.delete(token)
    assert ACTIVE in (await ask(token, accept=accept)).body
    if which == "wall":
        clock.ahead_seconds = 10.0
    else:
        slept = clock.boottime() + 10.0
        monkeypatch.setattr(clock, "boottime", lambda: slept)
    assert (await ask(token, accept=accept)).body == INACTIVE


async def test_what_was_judged_by_a_stale_replica_is_not_remembered(
    ask: Ask, stage: Standing, clock: LeapingClock, meanwhile: Meanwhile
) -> None:
    """What is remembered is told as the word of a fresh replica."""
    meanwhile.append(leap(clock, 10.0))
    assert ACTIVE in (await ask(await stage.put_opaque())).body
    assert b"keyturn_introspection_memory_tokens 0.0" in stage.parts.metrics.render()


async def test_a_token_that_ends_while_the_store_is_asked_is_inactive(
    ask: Ask, stage: Standing, clock: LeapingClock, meanwhile: Meanwhile
) -> None:
    """RFC 7662, 2.2: the answer holds when it is given, not when it was asked for; remembered or not."""
    exp = int(clock.now()) + 60
    tokens = [await stage.put_opaque(exp=exp), stage.world.mint(exp=exp).decode()]
    for token in tokens:
        assert ACTIVE in (await ask(token)).body
        meanwhile.append(leap(clock, 70.0))
        assert (await ask(token)).body == INACTIVE
        clock.ahead_seconds = 0.0


async def test_a_replica_that_expires_while_the_store_is_asked_says_nothing(
    ask: Ask, stage: Standing, clock: LeapingClock, meanwhile: Meanwhile
) -> None:
    """Checklist (6): unknown is 503, never inactive, also for what no record is of."""
    long: dict[str, Any] = {"exp": int(clock.now()) + 7200}
    for token in (await stage.put_opaque(**long), stage.world.mint(**long).decode(), new_access_token()):
        meanwhile.append(leap(clock, HOUR))
        assert (await ask(token)).status == 503
        clock.ahead_seconds = 0.0


async def test_a_client_that_is_dropped_while_the_store_is_asked_has_no_active_token(
    ask: Ask, stage: Standing, meanwhile: Meanwhile
) -> None:
    """Checklist (4): a deleted client; the newest trust document is the one that counts, also for its own question."""
    world, replica = stage.world, stage.parts.replica
    clients = world.document().clients
    cases = [
        ("shop", world.mint().decode()),
        ("shop", await stage.put_opaque()),
        (RESOURCE, await begin(stage, claims={"client_id": RESOURCE})),
    ]
    for number, (client_id, token) in enumerate(cases, start=1):
        assert ACTIVE in (await ask(token)).body
        kept = {name: client for name, client in clients.items() if name != client_id}
        meanwhile.append(partial(replica.adopt_trust, world.trust(version=2 * number, clients=kept)))
        assert (await ask(token)).body == INACTIVE
        replica.adopt_trust(world.trust(version=2 * number + 1))


async def test_a_refresh_token_ends_at_its_moment(
    ask: Ask, stage: Standing, clock: LeapingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checklist (4): no skew is forgiven, since who redeems it forgives none (RFC 7662, 2.2)."""
    exp = int(clock.now()) + 60
    token = await begin(stage, claims={"client_id": RESOURCE}, expires_at=float(exp))
    for now, body in ((exp - 0.001, ACTIVE), (float(exp), INACTIVE)):
        monkeypatch.setattr(clock, "now", lambda now=now: now)
        assert body in (await ask(token)).body
