"""The one table from errors to HTTP, row by row: what a client reads, what it is kept from, and the headers."""

import json

import pytest
from aiohttp import web

from keyturn.contract import errors
from keyturn.contract.errors import KeyturnError
from serving.problems import (
    BearerError,
    Busy,
    KeyReused,
    NotFound,
    OAuthError,
    Style,
    answer_error,
    answer_status,
)

UNAVAILABLE: dict[str, KeyturnError] = {
    "feed_unavailable": errors.FeedUnavailable("10.0.0.7 refused"),
    "stream_spoiled": errors.StreamSpoiled("10.0.0.7 refused"),
    "position_taken": errors.PositionTaken("10.0.0.7 refused"),
    "store_unavailable": errors.StoreUnavailable("10.0.0.7 refused"),
    "signer_unavailable": errors.SignerUnavailable("10.0.0.7 refused"),
    "key_wrapper_unavailable": errors.WrapperUnavailable("10.0.0.7 refused"),
    "replica_expired": errors.ReplicaExpired("10.0.0.7 refused", silence_seconds=1.0),
    "issuer_keys_unavailable": errors.IssuerKeysUnavailable(issuer="https://10.0.0.7", silence_seconds=1.0),
    "trust_expired": errors.TrustExpired("10.0.0.7 refused"),
    "busy": Busy("10.0.0.7 refused"),
}
REFUSED: dict[str, tuple[KeyturnError, int, str]] = {
    "invalid_selector": (errors.InvalidSelector("why"), 400, "invalid_request"),
    "malformed": (errors.MalformedInput("why"), 400, "invalid_request"),
    "not_found": (NotFound("why"), 404, "invalid_request"),
    "idempotency_key_reused": (KeyReused("why"), 422, "invalid_request"),
    "assertion_refused": (errors.AssertionRefused("why"), 401, "invalid_client"),
    "signing_refused": (errors.SigningRefused("why"), 403, "access_denied"),
    "signer_missing": (errors.SignerMissing(typ="x", service="why"), 501, "server_error"),
}
KINDS = {Style.OAUTH: "application/json", Style.PROBLEM: "application/problem+json", Style.PAGE: "text/plain"}


def read(answer: web.Response) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body; the body goes into no cache, in no style."""
    assert isinstance(answer.body, bytes)
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    return answer.status, dict(answer.headers), answer.body


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("code", UNAVAILABLE)
def test_an_outage_is_503_with_retry_after_and_says_nothing_of_what_is_inside(code: str, style: Style) -> None:
    """Checklist, introspection (6) and revocation (4); RFC 9110, 15.6.4: the reasons are the operator's."""
    status, headers, body = read(answer_error(UNAVAILABLE[code], style))
    assert (status, headers["Retry-After"], headers["Content-Type"].partition(";")[0]) == (503, "1", KINDS[style])
    assert b"10.0.0.7" not in body
    if style is Style.OAUTH:
        assert json.loads(body) == {"error": "temporarily_unavailable"}
    if style is Style.PROBLEM:
        told = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "code": code}
        assert json.loads(body) == told


@pytest.mark.parametrize("code", REFUSED)
def test_what_is_the_caller_s_to_mend_is_told_with_its_reason(code: str) -> None:
    """RFC 6749, 5.2 and RFC 9457, 3: a stable code for programs, a detail for people; and nothing to wait for."""
    error, expected, oauth = REFUSED[code]
    status, headers, body = read(answer_error(error, Style.OAUTH))
    assert (status, json.loads(body)) == (expected, {"error": oauth, "error_description": str(error)})
    assert "Retry-After" not in headers
    status, _, body = read(answer_error(error, Style.PROBLEM))
    told = json.loads(body)
    assert (status, told["status"], told["code"], told["detail"]) == (expected, expected, code, str(error))


def test_an_event_that_stands_but_is_not_as_durable_as_asked_for_is_told_so() -> None:
    """Checklist, revocation (8): who orders it again has to know that it was done, and where it stands."""
    error = errors.Unconfirmed(lane="revocations", place=(1, 7), wanted="replicated", found="local")
    status, headers, body = read(answer_error(error, Style.PROBLEM))
    assert (status, headers["Retry-After"], json.loads(body)["detail"]) == (503, "1", str(error))


@pytest.mark.parametrize("error", [RuntimeError("secret"), KeyturnError("secret"), errors.BrokenChain("secret")])
@pytest.mark.parametrize("style", Style)
def test_what_nobody_foresaw_says_nothing(error: Exception, style: Style) -> None:
    """Checklist, every endpoint: nothing of a secret in an error, and no stack trace."""
    status, headers, body = read(answer_error(error, style))
    assert (status, b"secret" in body, "Retry-After" in headers) == (500, False, False)
    if style is Style.OAUTH:
        assert json.loads(body) == {"error": "server_error"}


def test_basic_is_named_where_it_was_tried_and_only_on_a_401() -> None:
    """Checklist, token endpoint (6), RFC 6749, 5.2 and RFC 7617, 2.1."""
    for error, challenge in (
        (OAuthError("invalid_client", status=401, basic=True), 'Basic realm="keyturn", charset="UTF-8"'),
        (OAuthError("invalid_client", status=401), None),
        (OAuthError("invalid_request", basic=True), None),
    ):
        _, headers, _ = read(answer_error(error, Style.OAUTH))
        assert headers.get("WWW-Authenticate") == challenge


def test_a_challenge_says_what_was_wrong_and_cannot_be_broken_out_of() -> None:
    """RFC 6750, 3: error, description and scope, each quoted; without a token there is no error to name (3.1)."""
    for error, challenge, told in (
        (BearerError(""), 'Bearer realm="keyturn"', {"error": "invalid_token"}),
        (
            BearerError("insufficient_scope", 'a "b" \\ c', status=403, scope="x:y"),
            'Bearer realm="keyturn", error="insufficient_scope", error_description="a \'b\' / c", scope="x:y"',
            {"error": "insufficient_scope", "error_description": "a 'b' / c"},
        ),
    ):
        status, headers, body = read(answer_error(error, Style.OAUTH))
        assert (status, headers["WWW-Authenticate"], json.loads(body)) == (error.status, challenge, told)


def test_who_failed_too_often_is_told_when_to_come_back() -> None:
    """RFC 9110, 10.2.3: by a secret or by a token, and with no word where there is nothing to wait for."""
    for seconds, told in ((7, "7"), (0, None)):
        for error in (
            OAuthError("invalid_client", status=401, retry_after_seconds=seconds),
            BearerError("invalid_token", retry_after_seconds=seconds),
        ):
            assert read(answer_error(error, Style.OAUTH))[1].get("Retry-After") == told


def test_a_description_has_the_characters_that_it_may_have() -> None:
    """RFC 6749, 5.2: %x20-21 / %x23-5B / %x5D-7E; whatever a caller's own words bring in."""
    _, _, body = read(answer_error(OAuthError("invalid_request", 'é"\\\n~ !\x7f'), Style.OAUTH))
    assert json.loads(body)["error_description"] == "?'/?~ !?"


def test_http_s_own_errors_keep_the_headers_that_say_what_to_do() -> None:
    """RFC 9110, 15.5.6 and 10.2.3: `Allow` on 405, `Retry-After` where it is set; no other header comes through."""
    refused = web.HTTPMethodNotAllowed("PATCH", ["GET", "POST"], headers={"X-Inside": "1"})
    status, headers, body = read(answer_error(refused, Style.PROBLEM))
    assert (status, headers["Allow"], json.loads(body)["code"]) == (405, "GET,POST", "method_not_allowed")
    assert "X-Inside" not in headers
    later = web.HTTPTooManyRequests(headers={"Retry-After": "9"})
    assert read(answer_error(later, Style.OAUTH))[1]["Retry-After"] == "9"
    busy = web.HTTPServiceUnavailable(headers={"Retry-After": "9"})
    status, headers, body = read(answer_error(busy, Style.OAUTH))
    assert (headers["Retry-After"], json.loads(body)) == ("9", {"error": "temporarily_unavailable"})
    assert json.loads(read(answer_status(500, Style.OAUTH))[2]) == {"error": "server_error"}
    assert json.loads(read(answer_status(413, Style.OAUTH))[2]) == {"error": "invalid_request"}
    assert json.loads(read(answer_status(203, Style.PROBLEM))[2])["code"] == "non_authoritative_information"


def test_a_page_is_framed_by_nobody_and_runs_nothing() -> None:
    """RFC 9700, 4.16: who frames a page of the sign-in can have it clicked; its address goes to nobody else."""
    _, headers, body = read(answer_error(OAuthError("invalid_request", "<script>"), Style.PAGE))
    assert headers["Content-Security-Policy"] == "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"
    assert (headers["X-Frame-Options"], headers["Referrer-Policy"]) == ("DENY", "no-referrer")
    assert (headers["Content-Type"], body) == ("text/plain; charset=utf-8", b"Bad Request: <script>\n")
    _, headers, body = read(answer_status(503, Style.PAGE))
    assert (headers["Retry-After"], body) == ("1", b"Service Unavailable\n")
