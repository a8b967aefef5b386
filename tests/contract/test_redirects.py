"""Redirect URIs: which may be signed for, and which one a request means; an error here is an open redirector."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.contract.errors import MalformedInput
from keyturn.contract.redirects import check_redirect, may_redirect, redirects_of

GOOD = (
    "https://app.example/callback",
    "https://app.example:8443/a/b?x=1",
    "https://[2001:db8::1]/",
    "https://app.example",
    "http://127.0.0.1/callback",
    "http://127.0.0.1:8080/callback?x=1",
    "http://[::1]",
    "com.example.app:/callback",
    "com.example.app:/",
)
BAD = (
    "", "/callback", "//app.example/", "app.example", "https:", "https://", "https:///x", "https://app.example/#part",
    "https://app.example/#", "https://user@app.example/", "https://user:x@app.example/", "https://app.example\\@evil/",
    "https://app.example/ x", "https://app.example/\n", "https://app.example/é", 'https://app.example/"', "HTTP://127.0.0.1/",
    "http://app.example/", "http://localhost/", "http://127.0.0.1.evil.example/", "http://127.0.0.1:80@evil.example/",
    "http://127.0.0.1:x/", "http://127.0.0.1:999999/", "http://127.1/", "javascript:alert(1)", "data:text/html,x",
    "app:/callback", "com.example.app://user@host/", "com.example.app:callback", "file:///etc/passwd", "https://[::1/",
    "https://app.example/?code=x", "https://app.example/?a=1&state=", "https://app.example/" + "a" * 500,
)  # fmt: skip


@pytest.mark.parametrize("uri", GOOD)
def test_a_uri_that_leads_to_the_client_is_taken(uri: str) -> None:
    """Web applications, programs on a loopback port (RFC 8252, 7.3) and apps with a scheme of their own (7.1)."""
    check_redirect(uri)
    assert redirects_of([{"uri": uri}]) == (uri,)
    assert may_redirect(uri, [uri])


@pytest.mark.parametrize("uri", BAD)
def test_one_that_could_lead_elsewhere_is_not(uri: str) -> None:
    """RFC 6749, 3.1.2: absolute, no fragment; in the clear only to this machine; nothing that runs in the browser."""
    with pytest.raises(MalformedInput):
        check_redirect(uri)
    assert redirects_of([{"uri": uri}, {"uri": GOOD[0], "note": "kept"}, {}, {"uri": 7}]) == (GOOD[0],)


@pytest.mark.parametrize(
    "presented",
    [
        "https://app.example/callback/", "https://app.example/callback?x=1", "https://app.example/callbac",
        "https://app.example:443/callback", "https://APP.example/callback", "https://app.example/%63allback",
        "https://app.example/../callback", "https://app.example/callback#x", "http://app.example/callback",
        "https://app.example.evil.example/callback", "https://evil.example/https://app.example/callback", "",
    ],
)  # fmt: skip
def test_a_redirect_is_compared_character_by_character(presented: str) -> None:
    """RFC 9700, 2.1 and 4.1: every pattern that was ever allowed here has been walked around."""
    assert not may_redirect(presented, ["https://app.example/callback"])


def test_the_port_of_a_loopback_address_is_free_and_nothing_else() -> None:
    """RFC 8252, 7.3: an app listens where there is room."""
    registered = ["http://127.0.0.1/callback", "http://[::1]:1/x?y=1"]
    for good in (
        "http://127.0.0.1:49152/callback",
        "http://127.0.0.1/callback",
        "http://[::1]:9/x?y=1",
        "http://[::1]/x?y=1",
    ):
        assert may_redirect(good, registered)
    for bad in (
        "http://127.0.0.1:1/callback/", "http://127.0.0.1:1/", "http://127.0.0.2:1/callback", "http://[::1]:1/callback",
        "http://localhost:1/callback", "https://127.0.0.1:1/callback", "http://127.0.0.1:/callback",
        "http://127.0.0.1:1@evil.example/callback", "http://127.0.0.1:+1/callback", "http://127.0.0.1:1/callback\n",
        "http://127.0.0.1:\u0661/callback", "http://127.0.0.1:1/callback?x=1", "http://[::1]:1/x?y=2",
    ):  # fmt: skip
        assert not may_redirect(bad, registered), bad


@given(st.text(max_size=40) | st.from_regex(r"https?://[a-z.@:\[\]0-9/?#\\]{0,30}", fullmatch=True))
def test_whatever_is_presented_only_what_is_registered_is_taken(presented: str) -> None:
    """It raises nothing either, whatever somebody puts into a link."""
    assert may_redirect(presented, GOOD[:4]) == (presented in GOOD[:4])
    try:
        check_redirect(presented)
    except MalformedInput:
        return
    assert presented.isascii()
    assert presented.isprintable()
    assert not set(' #"<>\\') & set(presented)
