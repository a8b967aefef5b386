"""The hand-over to the sign-in page: who may ask, what it may say, and that it counts once, in one browser."""

import asyncio
from typing import Any

import pytest
from aiohttp import ClientSession

from authorization.browsers import new_browser
from tests.authorization.conftest import Ask
from tests.authorization.door import APP, BACK, WEB, Browser, Door
from tests.authorization.signer import FakeSigner
from tests.building import ADMIN, CLIENT, FickleRedis, Standing
from tests.clocks import LeapingClock


async def test_the_browser_that_comes_back_is_the_one_that_began(door: Door) -> None:
    """Else who begins a sign-in and sends somebody else the link is signed in as they are (RFC 9700, 4.7)."""
    thief, victim = door.browser(), door.browser()
    back = await door.let_in(await door.begin(thief), "victim")
    await door.begin(victim)
    for browser in (door.browser(), victim, Browser(door.http, f"__Host-keyturn-sign-in={new_browser()}")):
        seen = await browser.open(path=back)
        assert (seen.status, "Location" in seen.headers) == (400, False)
        assert "another browser" in seen.text
    assert (await thief.open(path=back)).status == 303  # Nobody else could use it up either.


@pytest.mark.parametrize("cookie", ["x!", "", "=" * 43, "A" * 43 + ";", "\u00e9" * 43, "A" * 42 + "B"])
async def test_a_cookie_that_is_none_of_ours_is_replaced(door: Door, cookie: str) -> None:
    """Whoever planted it; ours is for this host alone, over TLS alone, and for no script."""
    browser = Browser(door.http, f"__Host-keyturn-sign-in={cookie}")
    async with door.http.get(
        "/authorize", params=door.asked(), headers={"Cookie": browser.cookie}, allow_redirects=False
    ) as answer:
        given, *attributes = answer.headers["Set-Cookie"].split("; ")
    assert cookie == "" or cookie not in given
    assert given.startswith("__Host-keyturn-sign-in=")
    assert set(attributes) == {"HttpOnly", "Max-Age=600", "Path=/", "SameSite=Lax", "Secure"}


async def test_two_sign_ins_in_one_browser_do_not_disturb_each_other(door: Door) -> None:
    """Two tabs: each comes back to its own client."""
    browser = door.browser()
    first = await door.let_in(await door.begin(browser))
    second = await door.let_in(await door.begin(browser, WEB, scope="read"), "bob")
    assert (await browser.open(path=second)).headers["Location"].startswith(BACK[WEB])
    assert (await browser.open(path=first)).location == BACK[APP]


async def test_a_verifier_is_good_once_however_many_come_with_it(door: Door) -> None:
    """Checklist, token endpoint (1) begins here: one sign-in, one code."""
    browser = door.browser()
    back = await door.let_in(await door.begin(browser))
    seen = await asyncio.gather(*(browser.open(path=back) for _ in range(8)))
    assert sorted(one.status for one in seen) == [303] + [400] * 7
    assert (await browser.open(path=back)).status == 400


async def test_whoever_does_not_sign_in_is_told_to_the_client_once(door: Door) -> None:
    """RFC 6749, 4.1.2.1: `access_denied`, with `state` and `iss`."""
    browser = door.browser()
    status, content = await door.page("POST", await door.begin(browser), json={"error": "access_denied"})
    assert status == 200
    back = content["redirect_to"].removeprefix(door.stage.world.issuer)
    seen = await browser.open(path=back)
    assert (seen.status, seen.location) == (303, BACK[APP])
    assert seen.told == {"error": "access_denied", "state": "s t/a=t&e", "iss": door.stage.world.issuer}
    assert (await browser.open(path=back)).status == 400


@pytest.mark.parametrize(
    "said",
    [
        {}, {"sub": ""}, {"sub": 1}, {"sub": None}, {"sub": "a" * 513}, {"sub": "a\nb"}, {"sub": "alice", "scope": "x"},
        {"sub": "alice", "sid": ""}, {"sub": "alice", "sid": 1}, {"error": "server_error"}, {"error": None},
        {"sub": "alice", "error": "access_denied"}, {"sid": "s"}, {"sub": "\ud800"}, {"sub": "alice", "auth_time": 0},
        {"sub": "alice", "auth_time": True}, {"sub": "alice", "auth_time": "1"}, {"sub": "alice", "auth_time": 4e9},
    ],
)  # fmt: skip
async def test_what_the_page_says_is_held_to_what_it_may_say(door: Door, said: dict[str, Any]) -> None:
    """A user has to have a name that a revocation can name; and nobody signs in by mistake."""
    status, content = await door.page("POST", await door.begin(door.browser()), json=said)
    assert (status, content["code"]) == (400, "malformed")


@pytest.mark.parametrize("client_id", [APP, CLIENT, ADMIN])
async def test_no_user_has_the_name_of_a_client(door: Door, client_id: str) -> None:
    """Checklist, token endpoint (7), and RFC 9068, 5: a resource server could take one for the other."""
    status, content = await door.page("POST", await door.begin(door.browser()), json={"sub": client_id})
    assert status == 400
    assert "client's id" in content["detail"]


async def test_only_a_sign_in_page_may_say_who_the_user_is(door: Door, stage: Standing, ask: Ask) -> None:
    """Whoever could say so could be anybody: an opaque token of scope `keyturn:login`, of a client that has it."""
    challenge = await door.begin(door.browser())
    tokens = {
        "": 401,
        "nonsense": 401,
        await stage.put_opaque(client_id=ADMIN, sub=ADMIN, scope="keyturn:admin"): 401,
        await stage.put_opaque(client_id="signin", sub="signin", scope="read"): 403,
        await stage.put_opaque(client_id="signin", sub="alice", scope="keyturn:login"): 401,
        stage.world.mint(client_id="signin", sub="signin", scope="keyturn:login").decode(): 401,
    }
    asked: list[tuple[str, Any]] = [("GET", {}), ("POST", {"json": {"sub": "mallory"}})]
    for token, status in tokens.items():
        for method, content in asked:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with door.http.request(method, f"/logins/{challenge}", headers=headers, **content) as answer:
                assert answer.status == status
                assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    _, told = await ask("signin")
    assert told["access_token"].startswith("kt_at_")  # Opaque, so that no stolen key can make one.


@pytest.mark.parametrize("challenge", ["x", "A" * 200, "a" * 5000, "%2e%2e", "é"])
async def test_a_challenge_that_is_none_of_ours_is_not_found(door: Door, challenge: str) -> None:
    """Nobody can make one: it is sealed."""
    asked: list[tuple[str, Any]] = [("GET", {}), ("POST", {"json": {"sub": "alice"}})]
    for method, content in asked:
        status, told = await door.page(method, challenge, **content)
        assert (status, told["code"]) == (404, "not_found")


async def test_a_changed_challenge_is_not_found_and_none_can_be_read(door: Door) -> None:
    """It is what the user is asked for, in the browser's hands."""
    challenge = await door.begin(door.browser())
    assert (await door.page("GET", challenge[:-2] + ("AA" if challenge[-2:] != "AA" else "AE")))[0] == 404
    assert APP not in challenge
    assert (await door.page("GET", challenge))[0] == 200


async def test_nothing_is_stored_for_who_only_comes_to_the_door(door: Door, store: FickleRedis) -> None:
    """Anybody may come there without a proof; a store that each of them filled a little would soon be full."""
    before = set(await store.keys())
    for _ in range(5):
        await door.begin(door.browser())
    assert set(await store.keys()) == before


async def test_what_asks_for_more_than_a_link_can_hold_is_told_so(door: Door, stage: Standing) -> None:
    """The challenge travels in a URL: it has a limit, and the client hears of it."""
    scopes = " ".join(f"scope-{number:04}" for number in range(180))
    clients = dict(stage.world.clients)
    clients[APP] = type(clients[APP])(
        secret_hash="", grant_types=("authorization_code",), scopes=tuple(scopes.split()),
        audiences=tuple(f"https://api-{number:03}.example/{'a' * 100}" for number in range(16)),
    )  # fmt: skip
    stage.member.replica.adopt_trust(stage.world.trust(version=2, clients=clients))
    pairs = [*door.asked(scope=scopes).items(), *(("resource", one) for one in clients[APP].audiences)]
    seen = await door.browser().open("POST", data=pairs)
    assert (seen.location, seen.told["error"]) == (BACK[APP], "invalid_request")


@pytest.fixture
def clock() -> LeapingClock:
    """Return a clock that a test can set ahead."""
    return LeapingClock()


async def test_a_sign_in_takes_ten_minutes_at_most(door: Door, clock: LeapingClock) -> None:
    """A link that lies about for longer opens nothing: neither as a challenge nor as a verifier."""
    browser = door.browser()
    challenge = await door.begin(browser)
    clock.ahead_seconds = 300
    back = await door.let_in(challenge)
    door.page_token = ""
    clock.ahead_seconds = 601
    assert (await door.page("GET", challenge))[0] == 404
    assert (await browser.open(path=back)).status == 400


async def test_a_client_that_left_meanwhile_gets_nobody_back(door: Door, stage: Standing) -> None:
    """The root's word of now counts, not that of ten minutes ago: else its redirect would stay open."""
    browser = door.browser()
    challenge = await door.begin(browser)
    back = await door.let_in(challenge)
    without = {name: one for name, one in stage.world.clients.items() if name != APP}
    stage.member.replica.adopt_trust(stage.world.trust(version=2, clients=without))
    assert (await browser.open(path=back)).status == 400
    assert (await door.page("GET", challenge))[0] == 404
    elsewhere = {**stage.world.document().roles, f"redirects:{APP}": ({"uri": "https://new.example/"},)}
    stage.member.replica.adopt_trust(stage.world.trust(version=3, roles=elsewhere))
    assert (await browser.open(path=back)).status == 400


async def test_without_a_store_the_person_is_told_to_wait(door: Door, store: FickleRedis) -> None:
    """503 with Retry-After, in words for people; the link is good again when the store is."""
    browser = door.browser()
    back = await door.let_in(await door.begin(browser))
    store.away = True
    seen = await browser.open(path=back)
    assert (seen.status, seen.headers["Retry-After"], seen.text) == (503, "1", "Service Unavailable\n")
    assert seen.headers["Content-Type"].startswith("text/plain")
    store.away = False
    assert (await browser.open(path=back)).status == 303


async def test_without_a_page_there_is_no_door(session: ClientSession, ask: Ask, signer: FakeSigner) -> None:
    """Without `authorization.signin_url` nothing of this is there, and no code is taken."""
    for method, path in (("GET", "/authorize"), ("POST", "/authorize"), ("GET", "/logins/x"), ("POST", "/logins/x")):
        async with session.request(method, path) as answer:
            assert answer.status == 404
    answer, content = await ask(fields=[("grant_type", "authorization_code"), ("code", "x")])
    assert content["error"] == "unsupported_grant_type"
