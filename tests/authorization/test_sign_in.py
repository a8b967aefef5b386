"""Authorization code with PKCE, from `/authorize` to the tokens: RFC 6749 (4.1), 7636, 9207, 9700."""

from typing import Any

import pytest

from keyturn.contract.selectors import grant_moment
from keyturn.verifier.verdict import Kind
from tests.authorization.door import APP, BACK, OTHER, PAGE, WEB, Door
from tests.building import CLIENT, Standing
from tests.world import AUDIENCE, policy


async def test_a_user_signs_in_and_the_client_gets_a_token_about_them(door: Door, stage: Standing) -> None:
    """The whole way: to the page, back with the verifier, on to the client with a code, and a token for it."""
    browser = door.browser()
    seen = await browser.open(params=door.asked())
    assert (seen.status, seen.headers["Location"].partition("&")[0]) == (303, PAGE)
    challenge = seen.told["login_challenge"]
    assert await door.page("GET", challenge) == (
        200, {"client_id": APP, "scopes": ["read", "write"], "audiences": [AUDIENCE]},
    )  # fmt: skip
    back = await door.let_in(challenge, "alice", sid="session-1", auth_time=1_700_000_000)
    seen = await browser.open(path=back)
    assert (seen.status, seen.location) == (303, BACK[APP])
    assert seen.told == {"code": seen.told["code"], "state": "s t/a=t&e", "iss": stage.world.issuer}
    status, content = await door.redeem(seen.told["code"])
    assert (status, content["token_type"], content["scope"]) == (200, "Bearer", "read write")
    verdict = stage.member.verifier.judge(content["access_token"].encode(), policy(scopes=("read", "write")))
    assert verdict.kind is Kind.ACTIVE
    named = {name: verdict.claims[name] for name in ("iss", "sub", "client_id", "aud", "sid", "auth_time")}
    assert named == {
        "iss": stage.world.issuer, "sub": "alice", "client_id": APP, "aud": AUDIENCE, "sid": "session-1",
        "auth_time": 1_700_000_000,
    }  # fmt: skip
    assert grant_moment(verdict.claims["grant_id"]) == pytest.approx(stage.world.clock.now(), abs=5)


async def test_a_confidential_client_proves_itself_and_its_redirect_keeps_its_query(door: Door) -> None:
    """RFC 6749, 3.1.2: the query of a redirect URI stays; 4.1.3: the client authenticates as at any grant."""
    browser = door.browser()
    back = await door.let_in(await door.begin(browser, WEB, scope="read", state=None), "bob")
    seen = await browser.open(path=back)
    assert seen.headers["Location"].startswith(BACK[WEB] + "&code=kt_ac_")
    assert seen.told.keys() == {"tenant", "code", "iss"}
    assert (await door.redeem(seen.told["code"], WEB))[0] == 200


async def test_a_request_by_form_is_as_good(door: Door) -> None:
    """RFC 6749, 3.1: GET, and POST as well."""
    seen = await door.browser().open("POST", data=door.asked())
    assert (seen.status, seen.location) == (303, PAGE.partition("?")[0])


async def test_an_app_listens_wherever_there_is_room(door: Door) -> None:
    """RFC 8252, 7.3; and the code is bound to the very URI that was asked for."""
    there = "http://127.0.0.1:49152/callback"
    browser = door.browser()
    seen = await browser.open(path=await door.let_in(await door.begin(browser, redirect_uri=there)))
    assert seen.location == there
    assert (await door.redeem(seen.told["code"]))[1]["error"] == "invalid_grant"
    assert (await door.redeem(seen.told["code"], redirect_uri=there))[0] == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": None}, {"client_id": "nobody"}, {"client_id": "a" * 300}, {"client_id": CLIENT},
        {"redirect_uri": None}, {"redirect_uri": "https://evil.example/"}, {"redirect_uri": BACK[WEB]},
        {"redirect_uri": BACK[APP] + "/"}, {"redirect_uri": "http://localhost/callback"},
        {"redirect_uri": "javascript:alert(1)"}, {"redirect_uri": "http://127.0.0.1/callback\r\nX: y"},
    ],
)  # fmt: skip
async def test_nobody_is_sent_anywhere_by_a_wrong_client_or_redirect(door: Door, changes: dict[str, Any]) -> None:
    """RFC 6749, 4.1.2.1 and RFC 9700, 4.11: the person reads it, in plain text that no page can frame."""
    asked = door.asked(**changes)
    for seen in (await door.browser().open(params=asked), await door.browser().open("POST", data=asked)):
        assert seen.status == 400
        assert "Location" not in seen.headers
        assert "Set-Cookie" not in seen.headers
        assert seen.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert seen.headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in seen.headers["Content-Security-Policy"]
        assert seen.headers["Cache-Control"] == "no-store"
        assert "evil" not in seen.text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code token"}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": "read admin"}, "invalid_scope"),
        ({"scope": "read  write"}, "invalid_scope"),
        ({"resource": "https://api.example/#x"}, "invalid_target"),
        ({"resource": "https://other.example"}, "invalid_target"),
        ({"request": "eyJ"}, "request_not_supported"),
        ({"request_uri": "urn:x"}, "request_uri_not_supported"),
        ({"state": "é"}, "invalid_request"),
        ({"state": "s" * 513}, "invalid_request"),
    ],
)
async def test_the_client_is_told_what_is_wrong_with_all_else(door: Door, changes: dict[str, Any], error: str) -> None:
    """RFC 6749, 4.1.2.1; RFC 9207, 2: `iss` on errors, too; RFC 7636, 4.4.1; checklist, token endpoint 3 and 8."""
    seen = await door.browser().open(params=door.asked(**changes))
    assert (seen.status, seen.location) == (303, BACK[APP])
    assert seen.told["error"] == error
    assert seen.told["iss"] == door.stage.world.issuer
    assert seen.told.get("state") == (None if "state" in changes else "s t/a=t&e")
    assert "code" not in seen.told


async def test_a_user_cannot_make_a_client_an_operator(door: Door) -> None:
    """Operators' scopes are for clients' own tokens; a user who could grant one would be an operator."""
    for scope in ("keyturn:admin", None):
        seen = await door.browser().open(params=door.asked(WEB, scope=scope))
        assert seen.told["error"] == "invalid_scope"


@pytest.mark.parametrize(("twice", "status"), [("client_id", 400), ("redirect_uri", 400), ("state", 303), ("x", 303)])
async def test_a_parameter_that_stands_twice_is_refused(door: Door, twice: str, status: int) -> None:
    """RFC 6749, 3.1: of two values nobody can say which one counts."""
    pairs = [*door.asked().items(), (twice, "1"), (twice, "1")]
    seen = await door.browser().open(params=pairs)
    assert seen.status == status
    if status == 303:
        assert seen.told["error"] == "invalid_request"
        assert ("state" in seen.told) is (twice != "state")


async def test_several_resources_may_be_asked_for_and_each_alone_later(door: Door, stage: Standing) -> None:
    """RFC 8707, 2.2: the grant has both, and a token is for the one that the client names."""
    pairs = [*door.asked().items(), ("resource", AUDIENCE), ("resource", OTHER)]
    browser = door.browser()
    seen = await browser.open(params=pairs)
    seen = await browser.open(path=await door.let_in(seen.told["login_challenge"]))
    _, content = await door.redeem(seen.told["code"], resource=OTHER)
    verdict = stage.member.verifier.judge(content["access_token"].encode(), policy(audience=OTHER))
    assert verdict.claims["aud"] == OTHER
    code = await door.code(resource=OTHER)
    assert (await door.redeem(code, resource=AUDIENCE))[1]["error"] == "invalid_target"
    assert (await door.redeem(code))[0] == 200  # Refused before it was consumed.
