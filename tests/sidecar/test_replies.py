"""The prepared replies: what a claim may hold must never become more than a header's value."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyturn.sidecar import replies

CLAIMS = {"sub": "alice", "client_id": "app", "scope": "read write", "iss": "https://issuer.example", "jti": "1"}


def fields(reply: bytes) -> list[tuple[str, str]]:
    """Return the header fields of a reply, as a strict reader splits them."""
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    named = [(name, value) for name, _, value in (line.partition(": ") for line in lines[1:])]
    assert dict(named)["Content-Length"] == str(len(body))
    return named


def test_an_allow_says_who_it_is() -> None:
    """The back end reads its caller from these and from nothing else."""
    assert replies.allow(CLAIMS, state="fresh") == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Auth-Subject: alice\r\nX-Auth-Client: app\r\n"
        b"X-Auth-Scope: read write\r\nX-Auth-Issuer: https://issuer.example\r\nX-Auth-Token-Id: 1\r\n"
        b"X-Auth-State: fresh\r\n\r\n"
    )


def test_every_identity_header_is_there_even_where_nothing_is_known() -> None:
    """A header that is left out would leave the client's own one in place."""
    names = [name for name, value in fields(replies.allow({}, state="stale")) if name != "Content-Length"]
    assert tuple(names) == replies.IDENTITY_HEADERS


@pytest.mark.parametrize("value", [None, 7, True, ["alice"], {"a": "b"}])
def test_a_claim_that_is_not_text_counts_as_unknown(value: object) -> None:
    """A back end compares text; a number that looks like somebody's name is not that name."""
    assert replies.header_value(value) == ""


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("alice", "alice"),
        ("a b", "a b"),
        ("a\r\nX-Auth-Scope: admin", "a%0D%0AX-Auth-Scope: admin"),
        ("a\0", "a%00"),
        (" admin", "%20admin"),
        ("admin ", "admin%20"),
        (" ", "%20"),
        ("admin\t", "admin%09"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("jos\u00e9", "jos%C3%A9"),
        ("a\u0085b\u2028", "a%C2%85b%E2%80%A8"),
        ("\ud800", "%ED%A0%80"),
        ("", ""),
    ],
)
def test_what_could_be_misread_is_percent_encoded(claim: str, value: str) -> None:
    """A token's subject is chosen by people: it must not be able to write a header of its own."""
    assert replies.header_value(claim) == value


@given(st.text())
def test_no_two_subjects_look_alike(subject: str) -> None:
    """Encoding gives back exactly the claim, so that nobody can become somebody else by it."""
    value = replies.header_value(subject)
    assert re.fullmatch(r"[\x20-\x7e]*", value)
    assert value == value.strip()
    assert unquote(value, errors="surrogatepass") == subject
    assert len(fields(replies.allow({"sub": subject}, state="fresh"))) == len(replies.IDENTITY_HEADERS) + 1


def test_a_challenge_without_a_token_names_no_error() -> None:
    """RFC 6750, 3.1: who sent no credentials made no mistake."""
    assert dict(fields(replies.unauthorized(error=None))) == {
        "Content-Length": "0",
        "WWW-Authenticate": 'Bearer realm="keyturn"',
    }


def test_a_refused_token_is_told_why_and_what_is_needed() -> None:
    """RFC 6750, 3: realm, error, error_description, scope."""
    reply = replies.unauthorized(realm="api", description="it has expired", scope="read")
    assert reply.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert dict(fields(reply))["WWW-Authenticate"] == (
        'Bearer realm="api", error="invalid_token", error_description="it has expired", scope="read"'
    )


def test_a_missing_scope_is_403_and_named() -> None:
    """The client can ask for the right token only if it learns which."""
    reply = replies.insufficient_scope(scope="read write")
    assert reply.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    challenge = dict(fields(reply))["WWW-Authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert challenge.endswith('scope="read write"')


@pytest.mark.parametrize(("status", "line"), [(400, b"400 Bad Request"), (401, b"401 Unauthorized")])
def test_two_tokens_are_an_invalid_request(status: int, line: bytes) -> None:
    """Which of the two would count is a question that must not be guessed."""
    reply = replies.two_tokens(status=status)
    assert reply.startswith(b"HTTP/1.1 " + line)
    assert 'error="invalid_request"' in dict(fields(reply))["WWW-Authenticate"]


def test_unavailable_says_when_to_come_back() -> None:
    """An unknown verdict is 503, and never a denial."""
    assert replies.unavailable() == (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n")


def test_nothing_can_leave_the_quotes_of_a_challenge() -> None:
    """A realm comes from configuration, and a description could quote what was sent."""
    value = replies.challenge(realm='a", x="y', description="b\\\r\nc\u00e9")
    assert value == 'Bearer realm="a?, x=?y", error_description="b???c?"'


def test_a_problem_is_json_as_rfc_9457_has_it() -> None:
    """Whoever meets the sidecar with curl should learn what was wrong."""
    reply = replies.problem(404, "no such route")
    assert dict(fields(reply))["Content-Type"] == "application/problem+json"
    assert reply.endswith(b'{"title":"Not Found","status":404,"detail":"no such route"}')


def test_closing_and_head_change_nothing_else() -> None:
    """Both are made from the prepared reply, so they cannot say something different."""
    reply = replies.problem(404, "no such route")
    assert replies.closing(reply).replace(b"Connection: close\r\n", b"") == reply
    assert replies.without_body(reply) == reply[: reply.index(b"{")]
