"""The store lost at each step of an order: 200 only for what is durable, else 503 in time; and the retry is right."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from keyturn import entropy
from keyturn.clock import SystemClock
from keyturn.contract.inequalities import REQUEST_SECONDS
from keyturn.process.redis import connect
from keyturn.verifier.freshness import Freshness
from stack.server import EmbeddedServer
from tests.building import ADMIN, CLIENT
from tests.contract.statusdecoder import status_in
from tests.revocation.conftest import Office, authorization, office_on
from tests.revocation.receiving.test_receiving import Desk, desk_on
from tests.revocation.test_statuslists import bureau_on, opened
from tests.stumbling import Mishap, Stumbling, done, stumbling_client
from tests.verifier.abroad import URL
from tests.waiting import eventually

Order = Callable[[], Awaitable[tuple[int, str]]]
ONCE = [(how, False) for how in Mishap]
WAYS = [*ONCE, (Mishap.CUT, True), (Mishap.FROZEN, True)]
KINDS = (
    "a JWT",
    "an opaque token",
    "a refresh token",
    "a JWT, waiting",
    "a selector",
    "a selector, waiting",
    "a selector, once",
)


@pytest.fixture
def stumbling() -> Stumbling:
    """Return what counts the steps."""
    return Stumbling()


@pytest.fixture
async def office(valkey_url: str, tmp_path: Path, stumbling: Stumbling) -> AsyncIterator[Office]:
    """Run the whole, and know what is done for its requests."""
    async with (
        stumbling_client(valkey_url, stumbling) as redis,
        office_on(redis, valkey_url, tmp_path, beside=[stumbling]) as one,
    ):
        yield one


async def asked(office: Office, method: str, path: str, headers: dict[str, str], **content: Any) -> tuple[int, str]:
    """Ask, and return status and body: done, done but not seen by all, or not known and when to ask again."""
    async with office.http.request(method, path, headers=headers, **content) as answer:
        told = await answer.text()
        assert answer.status in (200, 202, 503), told
        assert (answer.status == 503) == ("Retry-After" in answer.headers)
        return answer.status, told


async def operator(office: Office) -> dict[str, str]:
    """Return the header of an operator."""
    token = await office.opaque(client_id=ADMIN, scope="keyturn:admin", sub=ADMIN)
    return {"Authorization": f"Bearer {token}"}


async def order_of(office: Office, kind: str, claims: dict[str, Any]) -> Order:
    """Return an order that revokes a token of these claims, to be given again and again."""
    query = "?wait=all&timeout=5" if "waiting" in kind else ""
    if kind.startswith("a selector"):
        headers, selector = await operator(office), {"jti": claims["jti"]}
        headers |= {"Idempotency-Key": claims["jti"]} if "once" in kind else {}
        return lambda: asked(office, "POST", f"/revocations{query}", headers, json={"selector": selector})
    if kind == "a refresh token":
        token = await office.refresh(grant_id=claims["grant_id"])
    else:
        token = await office.opaque(**claims) if kind == "an opaque token" else office.jwt(**claims)
    return lambda: asked(office, "POST", f"/revoke{query}", authorization(CLIENT), data={"token": token})


@pytest.mark.parametrize("kind", KINDS)
async def test_an_order_is_carried_out_or_503_at_whatever_step_the_store_is_lost(
    office: Office, stumbling: Stumbling, kind: str
) -> None:
    """RFC 7009, 2.2.1, and checklist, revocation 4 and 8: 200 means durable; who hears 503 asks again, and is heard.

    The n-th step of order n goes wrong, until an order has no n-th step. What was told as done reaches a verifier that
    follows the feed, and a retry is as right where the first answer got lost as where nothing was done.
    """
    now = office.stage.world.clock.now
    for how, lasting in WAYS:
        statuses = set()
        for at in count(1):
            claims = {"jti": entropy.uuid7(now()), "grant_id": entropy.uuid7(now())}
            order, bearer = await order_of(office, kind, claims), office.jwt(**claims)
            where = f"step {at} {how.name} {lasting}"
            stumbling.set_out(at=at, how=how, lasting=lasting)
            status, _ = await order()
            reached, waited = stumbling.steps >= at, stumbling.waited_seconds
            stumbling.set_out()
            assert waited < REQUEST_SECONDS, where
            statuses.add(status)
            if status != 503:
                await refused(office, bearer, where)
            assert (await order())[0] == 200, f"the retry after {where}"
            if "once" in kind:
                place = office.position
                assert (await order())[0] == 200, f"the third after {where}"
                assert office.position == place, f"twice after {where}"
            await refused(office, bearer, f"the retry after {where}")
            if not reached:
                break
        assert at > 1
        assert statuses >= {200, 503}, f"{how.name} {lasting}: {at} steps"


async def refused(office: Office, token: str, saying: str) -> None:
    """Return once the verifier far away refuses a token."""
    await eventually(lambda: not office.passes(token), saying=saying)


async def test_a_dry_run_counts_all_or_is_503_at_whatever_step_the_store_is_lost(
    office: Office, stumbling: Stumbling
) -> None:
    """Half a count would look like the whole one, and an operator who leaps by it ends more than he saw."""
    headers, grant = await operator(office), entropy.uuid7(office.stage.world.clock.now())
    for _ in range(3):
        await office.opaque(sub="bob", grant_id=grant)
    body = {"selector": {"grant_id": grant}, "dry_run": True}
    for how, lasting in WAYS:
        for at in count(1):
            stumbling.set_out(at=at, how=how, lasting=lasting)
            status, told = await asked(office, "POST", "/revocations", headers, json=body)
            reached = stumbling.steps >= at
            stumbling.set_out()
            if status == 200:
                counted = json.loads(told)
                assert (counted["records"], counted["grants"], counted["complete"]) == (3, 1, True), f"step {at}"
            else:
                assert reached, f"step {at}"
            if not reached:
                break
        assert at > 2  # The operator's token, and the records.


@pytest.mark.parametrize(("how", "lasting"), WAYS)
async def test_adoption_is_told_or_503_at_whatever_step_the_store_is_lost(
    office: Office, stumbling: Stumbling, how: Mishap, lasting: bool
) -> None:
    """An operator who was authenticated before is no stranger because the store is away, and no place is not there."""
    headers = await operator(office)
    _, told = await asked(office, "POST", "/revocations?wait=all", headers, json={"selector": {"jti": "a"}})
    for at in count(1):
        stumbling.set_out(at=at, how=how, lasting=lasting)
        status, now = await asked(office, "GET", f"/revocations/{json.loads(told)['sequence']}", headers)
        reached = stumbling.steps >= at
        stumbling.set_out()
        if status == 200:
            assert json.loads(now)["adopted"] == 1, f"step {at}"
        if not reached:
            break
    assert at > 1


async def test_a_frozen_and_a_killed_store_are_503_in_time_and_readiness_says_why(
    own_valkey: EmbeddedServer, tmp_path: Path
) -> None:
    """Nobody waits without an end, no order is lost that was told as done, and all recovers by itself."""
    client = connect(own_valkey.url(), client_name="tests")
    async with office_on(client, own_valkey.url(), tmp_path) as office:
        office.stage.parts.replica.freshness = Freshness(stale_after_seconds=2.5)
        headers, token = await operator(office), office.jwt()
        selector = {"selector": {"client_id": "somebody"}}
        for lose, find in ((own_valkey.freeze, own_valkey.thaw), (own_valkey.kill, own_valkey.restart)):
            await done(lose)
            began = SystemClock().boottime()
            orders = [
                asked(office, "POST", "/revoke", authorization(CLIENT), data={"token": token}),
                asked(office, "POST", "/revoke", authorization(CLIENT), data={"token": "nonsense"}),
                asked(office, "POST", "/revoke?wait=all", authorization(CLIENT), data={"token": office.jwt()}),
                asked(office, "POST", "/revocations", headers, json=selector),
                asked(office, "GET", "/revocations/1", headers),
            ]
            assert {status for status, _ in await asyncio.gather(*orders)} == {503}
            assert SystemClock().boottime() - began < REQUEST_SECONDS
            await eventually(lambda: office.service.unready() is not None)
            async with office.http.get("/readyz") as answer:
                reasons = (await answer.json())["reasons"]
                assert (answer.status, reasons["revocation"]) == (
                    503,
                    "the store has not accepted a heartbeat for too long",
                )
            await done(find)
            await eventually(lambda: office.service.unready() is None, within_seconds=15, saying=office.service.unready)
            assert (await asked(office, "POST", "/revocations?wait=all", headers, json=selector))[0] == 200
        # What was sent to a frozen server may take effect once it goes on: 503 says that nobody knows.
        assert (await office.revoke(token, query="?wait=all"))[0] == 200
        assert not office.passes(token)
    await client.aclose()


async def test_no_status_list_lacks_a_bit_at_whatever_step_the_store_is_lost(
    valkey_url: str, tmp_path: Path, stumbling: Stumbling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that is told, and kept by caches, shows all that was acknowledged before; else the answer is 503."""
    monkeypatch.setattr("revocation.statuslists.LOOK_AGAIN_SECONDS", 3600.0)  # Nobody else reads for those who ask.
    indices = count(1)
    async with (
        stumbling_client(valkey_url, stumbling) as redis,
        bureau_on(redis, valkey_url, tmp_path, beside=[stumbling]) as bureau,
    ):
        for how, lasting in WAYS:
            statuses = set()
            for at in count(1):
                claims = await bureau.list_token(index=next(indices))
                await bureau.revoke(jti=claims["jti"])
                stumbling.set_out(at=at, how=how, lasting=lasting)
                answer = await bureau.get()
                reached = stumbling.steps >= at
                stumbling.set_out()
                statuses.add(answer.status)
                if answer.status == 200:
                    header, payload = opened(answer.body)
                    assert status_in(claims, header, payload, bureau.office.stage.world.clock.now()) == 1, f"step {at}"
                else:
                    assert (answer.status, answer.headers["Retry-After"]) == (503, "1"), f"step {at}"
                assert await bureau.status(claims) == 1, f"after step {at}"
                if not reached:
                    break
            assert at > 2  # Where the lanes stand, and the rows.
            assert statuses == {200, 503}


@pytest.mark.parametrize("logout", [False, True], ids=["event", "logout token"])
async def test_another_issuers_word_is_taken_or_503_at_whatever_step_the_store_is_lost(
    valkey_url: str, tmp_path: Path, stumbling: Stumbling, logout: bool
) -> None:
    """RFC 8935, 2.2, and Back-Channel Logout 1.0, 2.8: what was taken its sender forgets, so it has to be durable."""
    async with (
        stumbling_client(valkey_url, stumbling) as redis,
        desk_on(redis, valkey_url, tmp_path, beside=[stumbling]) as desk,
    ):
        for how, lasting in WAYS:
            statuses = set()
            for at in count(1):
                where = f"step {at} {how.name} {lasting}"
                name = f"{how.name}-{lasting}-{at}"
                sub_id = {"format": "iss_sub", "iss": URL, "sub": name}
                token = desk.logout(jti=name, sub=name) if logout else desk.event(jti=name, sub_id=sub_id).decode()
                stumbling.set_out(at=at, how=how, lasting=lasting)
                status = await say(desk, token, logout=logout)
                reached = stumbling.steps >= at
                stumbling.set_out()
                statuses.add(status)
                assert status in (200 if logout else 202, 503), where
                if status == 503:  # Its sender says it again; that a logout token was heard already is no accident.
                    assert await say(desk, token, logout=logout) in ((200, 400) if logout else (202,)), where
                assert name in {one.value for one in await desk.revoked()}, where
                if not reached:
                    break
            assert at > 2  # Whether it was taken before, and the lane.
            assert 503 in statuses


async def say(desk: Desk, token: str, *, logout: bool) -> int:
    """Send what another issuer says, and return the status."""
    return (await (desk.send_logout(token) if logout else desk.send(token.encode())))[0]


async def test_a_list_tells_as_settled_what_is_durable_at_whatever_step_the_store_is_lost(
    office: Office, stumbling: Stumbling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever goes on behind the line that he was told has lost nothing, wherever the list broke off."""
    monkeypatch.setattr("revocation.listreading.MOST_IN_A_PART", 2)  # So that five lines are three parts.
    now = office.stage.world.clock.now
    for how, lasting in WAYS:
        ends = set()
        for at in count(1):
            where, headers = f"step {at} {how.name} {lasting}", await operator(office)
            names = [entropy.uuid7(now()) for _ in range(5)]
            bearers = [office.jwt(jti=name) for name in names]
            stumbling.set_out(at=at, how=how, lasting=lasting)
            line, end = await list_of(office, headers, names)
            reached = stumbling.steps >= at
            stumbling.set_out()
            ends.add(end)
            for bearer in bearers[:line]:
                await refused(office, bearer, where)
            if end != "done":
                assert await list_of(office, headers, names[line:], from_line=line + 1) == (5, "done"), where
            for bearer in bearers:
                await refused(office, bearer, where)
            if not reached:
                break
        assert at > 3  # The operator's token, and three parts at least.
        assert ends >= {"503", "stopped", "done"}, f"{how.name} {lasting}"


async def list_of(office: Office, headers: dict[str, str], names: list[str], *, from_line: int = 1) -> tuple[int, str]:
    """Send a list; return up to which line it is settled, and how it ended."""
    content = b"".join(json.dumps({"jti": name}).encode() + b"\n" for name in names)
    headers = {**headers, "Content-Type": "application/x-ndjson"}
    path = f"/revocations/bulk?from_line={from_line}"
    status, told = await asked(office, "POST", path, headers, data=content)
    if status == 503:
        return from_line - 1, "503"
    last = json.loads(told.splitlines()[-1])
    return last["line"], last["status"]
