"""The store lost at each step of a sign-in: no wrong no, no second answer for one code, and the retry is right."""

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests.authorization.conftest import signer_of, stage_on
from tests.authorization.door import Door, door_on
from tests.stumbling import Mishap, Stumbling, stumbling_client


@pytest.fixture
def stumbling() -> Stumbling:
    """Return what counts the steps."""
    return Stumbling()


@pytest.fixture
async def door(
    valkey_url: str, valkey: Redis, identity: Any, tmp_path: Path, stumbling: Stumbling
) -> AsyncIterator[Door]:
    """Run the service on a real store, and know what is done for its requests."""
    async with (
        stumbling_client(valkey_url, stumbling) as redis,
        stage_on(redis, identity, pubsub=valkey) as stage,
        signer_of(stage, tmp_path),
        door_on(stage, identity, tmp_path, signer=f"unix:{tmp_path}/run/sign.sock", beside=(stumbling,)) as one,
    ):
        yield one


@pytest.mark.parametrize("how", Mishap)
async def test_a_code_is_redeemed_or_as_good_as_before(door: Door, stumbling: Stumbling, how: Mishap) -> None:
    """RFC 6749, 4.1.2: once. Only where the last step was done and nobody heard of it is the code gone: fail closed."""
    statuses, gone = set(), 0
    for at in count(1):
        code, form = await door.code(), {"token_format": "opaque"}
        stumbling.set_out(at=at, how=how)
        status, content = await door.redeem(code, **form)
        reached = stumbling.steps >= at
        stumbling.set_out()
        statuses.add(status)
        assert status == 200 or (status, content["error"]) == (503, "temporarily_unavailable"), (at, content)
        again, _ = await door.redeem(code, **form)
        gone += status == 503 and again == 400
        assert again == 200 or status == 200 or how is Mishap.UNANSWERED, at
        if not reached:
            break
    assert statuses == {200, 503}
    assert gone == (how is Mishap.UNANSWERED)
    assert at > 4  # Its record, a look, the token's record, the family, the consuming script.


@pytest.mark.parametrize("how", Mishap)
async def test_a_browser_comes_back_with_a_code_or_may_come_again(
    door: Door, stumbling: Stumbling, how: Mishap
) -> None:
    """A person who reads 503 reloads the page; the sign-in is over only where its code was made and got lost."""
    statuses = set()
    for at in count(1):
        browser = door.browser()
        back = await door.let_in(await door.begin(browser))
        stumbling.set_out(at=at, how=how)
        seen = await browser.open(path=back)
        reached = stumbling.steps >= at
        stumbling.set_out()
        statuses.add(seen.status)
        assert seen.status == 303 or (seen.status, seen.headers["Retry-After"]) == (503, "1"), at
        again = await browser.open(path=back)
        assert (again.status == 303) != (seen.status == 303) or how is Mishap.UNANSWERED, at
        if not reached:
            break
    assert statuses == {303, 503}


@pytest.mark.parametrize("how", Mishap)
async def test_the_page_is_believed_or_may_say_it_again(door: Door, stumbling: Stumbling, how: Mishap) -> None:
    """Its word is kept before it hears where to send the browser; what it says twice are two words."""
    statuses = set()
    for at in count(1):
        browser = door.browser()
        challenge = await door.begin(browser)
        await door.page("GET", challenge)
        stumbling.set_out(at=at, how=how)
        status, _ = await door.page("POST", challenge, json={"sub": "alice"})
        reached = stumbling.steps >= at
        stumbling.set_out()
        statuses.add(status)
        assert status in (200, 503), at
        assert (await browser.open(path=await door.let_in(challenge))).status == 303
        if not reached:
            break
    assert statuses == {200, 503}
