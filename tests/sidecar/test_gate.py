"""What a gateway is answered: every outcome of the contract, and that none is mistaken for another."""

from typing import Any

import pytest

from keyturn import entropy
from keyturn.contract.encoding import b64url, encode_json
from keyturn.contract.keys import Retired
from keyturn.contract.selectors import SelectorKind
from keyturn.sidecar.replies import IDENTITY_HEADERS
from tests.sidecar.beside import Beside
from tests.world import ISSUER


async def test_a_good_token_is_allowed_with_every_identity_header(beside: Beside) -> None:
    """The back end reads who it is from these; one that is missing could be filled in by a client."""
    token = beside.world.mint(jti="0192-token")

    reply = await beside.check(token)

    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")
    told = {name: reply.headers[name.lower()] for name in IDENTITY_HEADERS}
    assert told == {
        "X-Auth-Subject": "alice",
        "X-Auth-Client": "shop",
        "X-Auth-Scope": "read write",
        "X-Auth-Issuer": ISSUER,
        "X-Auth-Token-Id": "0192-token",
        "X-Auth-State": "fresh",
    }


async def test_what_a_token_does_not_say_is_an_empty_header(beside: Beside) -> None:
    """An absent header would let the client's own one through."""
    reply = await beside.check(beside.world.mint(scope=None))

    assert reply.status == 200
    assert reply.headers["x-auth-scope"] == ""


async def test_without_a_token_the_challenge_names_no_error(beside: Beside) -> None:
    """RFC 6750, section 3.1."""
    reply = await beside.ask("/nginx/default")

    assert reply.status == 401
    assert reply.headers["www-authenticate"] == 'Bearer realm="keyturn"'


@pytest.mark.parametrize("value", [b"Basic dXNlcjpwYXNz", b"DPoP abc", b"", b"Bearer", b"Bearer  ", b"Bearer\t"])
async def test_another_scheme_is_no_token(beside: Beside, value: bytes) -> None:
    """A DPoP token, above all, must not pass as Bearer."""
    reply = await beside.ask("/nginx/default", value)

    assert reply.status == 401
    assert "error" not in reply.headers["www-authenticate"]


@pytest.mark.parametrize("start", [b"bearer ", b"BEARER ", b"Bearer  ", b"bEaReR    "])
async def test_the_scheme_is_read_in_any_case_and_with_any_number_of_spaces(beside: Beside, start: bytes) -> None:
    """RFC 9110, section 11.1 and 11.4."""
    token = beside.world.mint()

    assert (await beside.ask("/nginx/default", start + token)).status == 200


@pytest.mark.parametrize(
    ("changes", "description"),
    [
        ({"aud": "https://other.example"}, "the token is for another audience"),
        ({"exp": 1_700_000_000}, "the token has expired"),
        ({"nbf": 1_900_000_000}, "the token is not valid yet"),
        ({"iss": "https://other.example"}, "the token is not valid here"),
        ({"cnf": {"jkt": "x"}}, "the token is bound to a key, and no proof of it came along"),
    ],
)
async def test_a_bad_token_is_401_with_the_reason(beside: Beside, changes: dict[str, Any], description: str) -> None:
    """A developer in front of a 401 must learn why, and nothing of the token itself."""
    reply = await beside.check(beside.world.mint(**changes))

    assert reply.status == 401
    expected = f'Bearer realm="keyturn", error="invalid_token", error_description="{description}"'
    assert reply.headers["www-authenticate"] == expected


async def test_a_token_that_another_key_signed_is_401(beside: Beside) -> None:
    """The kid is ours and the signature is not: forgery itself."""
    world = beside.world
    known = world.signing_kid
    other = world.new_key().kid
    header = encode_json({"alg": "ES256", "kid": known, "typ": "at+jwt"})
    forged = world.sign_raw(header, encode_json(world.claims()), kid=other)

    assert (await beside.check(forged)).status == 401


@pytest.mark.parametrize(
    "token", [b"x", b"a.b", b"a.b.c", b"kt_at_0000", b"\xff\xfe", b"." * 100, b"a" * 8193], ids=lambda token: token[:8]
)
async def test_what_is_no_token_is_401(beside: Beside, token: bytes) -> None:
    """Rubbish is refused at once; it must not crash or hang anything."""
    reply = await beside.check(token)

    assert reply.status == 401
    assert 'error="invalid_token"' in reply.headers["www-authenticate"]


async def test_a_missing_scope_is_403_and_is_named(beside: Beside) -> None:
    """RFC 6750, section 3.1: the client can ask for the scope that it lacks."""
    token = beside.world.mint(scope="read write")

    assert (await beside.check(token)).status == 200
    reply = await beside.check(token, "strict")
    assert reply.status == 403
    assert 'error="insufficient_scope"' in reply.headers["www-authenticate"]
    assert reply.headers["www-authenticate"].endswith('scope="read admin"')
    assert (await beside.check(beside.world.mint(scope="admin read"), "strict")).status == 200


async def test_two_tokens_are_401_behind_nginx(beside: Beside) -> None:
    """Which of them the API would read nobody knows; nginx understands no 400."""
    token = b"Bearer " + beside.world.mint()

    for values in ((token, token), (token, b"Basic dXNlcjpwYXNz"), (token + b", " + token,), (token + b"," + token,)):
        reply = await beside.ask("/nginx/default", *values)
        assert reply.status == 401
        assert 'error="invalid_request"' in reply.headers["www-authenticate"]
    assert (await beside.ask("/nginx/default", token)).status == 200


async def test_a_policy_or_dialect_that_is_not_configured_is_no_route(beside: Beside) -> None:
    """A path that reached another policy than the gateway was given would be a way around it."""
    token = b"Bearer " + beside.world.mint()

    for target in ("/nginx/other", "/nginx/", "/nginx", "/envoy/default", "/nginx/default/", "/nginx/strict/../default",
                   "//nginx/default", "/nginx/%64efault", "/NGINX/default"):  # fmt: skip
        assert (await beside.ask(target, token)).status == 404, target
    assert (await beside.ask("/nginx/default?x=/nginx/strict", token)).status == 200


async def test_a_revoked_token_is_401_at_once_and_others_are_not(beside: Beside) -> None:
    """The point of it all: the cached verdict obeys the push."""
    world = beside.world
    gone, stays = world.mint(jti="gone"), world.mint(jti="stays")
    assert [(await beside.check(token)).status for token in (gone, stays, gone, stays)] == [200] * 4
    assert (await beside.facts())["cache"]["hits"] == 2

    await beside.revoke(SelectorKind.JTI, "gone")

    reply = await beside.check(gone)
    assert reply.status == 401
    assert "the token was revoked" in reply.headers["www-authenticate"]
    assert (await beside.check(stays)).status == 200
    cache = (await beside.facts())["cache"]
    assert cache["rechecks"] == 2
    assert cache["misses"] == 2  # No signature was checked twice.


async def test_a_rotation_rejects_no_token_of_the_retiring_key(beside: Beside) -> None:
    """Without downtime: what the old key signed stays good while it retires."""
    world = beside.world
    old, old_kid = world.mint(), world.signing_kid
    assert (await beside.check(old)).status == 200

    await beside.publish(*world.first_key("RS256"), Retired(kid=old_kid))

    new = world.mint()
    assert [(await beside.check(token)).status for token in (old, new, old, new)] == [200] * 4


async def test_tokens_of_a_revoked_key_are_401_even_from_the_cache(beside: Beside) -> None:
    """A stolen key is rejected by name, whatever was believed of it before."""
    world = beside.world
    token, kid = world.mint(), world.signing_kid
    assert (await beside.check(token)).status == 200

    await beside.revoke_key(kid)

    reply = await beside.check(token)
    assert reply.status == 401
    assert "the key of the token was revoked" in reply.headers["www-authenticate"]


async def test_a_token_expires_in_the_cache_too(beside: Beside) -> None:
    """A hit still looks at the time."""
    world = beside.world
    token = world.mint(exp=int(world.clock.now()) + 2)
    assert (await beside.check(token)).status == 200

    beside.clock.advance(2 + world.freshness.skew_seconds)

    assert (await beside.check(token)).status == 401


async def test_a_stale_replica_serves_and_says_so(beside: Beside) -> None:
    """An outage of the publisher is no outage of every API, and no secret."""
    token = beside.world.mint()
    assert (await beside.check(token)).headers["x-auth-state"] == "fresh"

    beside.clock.advance(5)

    reply = await beside.check(token)
    assert (reply.status, reply.headers["x-auth-state"]) == (200, "stale")
    assert (await beside.facts())["state"] == "stale"
    await beside.beat()
    assert (await beside.check(token)).headers["x-auth-state"] == "fresh"


async def test_an_expired_replica_says_nothing(beside: Beside) -> None:
    """Not knowing is 503: neither a yes, which a revocation may have overtaken, nor a no."""
    token = beside.world.mint(exp=int(beside.world.clock.now()) + 3600)
    assert (await beside.check(token)).status == 200

    beside.clock.advance(900)

    for value in (token, b"rubbish"):
        reply = await beside.check(value)
        assert (reply.status, reply.headers["retry-after"], reply.body) == (503, "1", b"")
    assert (await beside.ask("/readyz")).status == 503
    await beside.beat()
    assert (await beside.check(token)).status == 200


async def test_a_policy_may_want_a_younger_replica(beside: Beside) -> None:
    """Whoever moves money may prefer no answer to one that is three seconds old."""
    token = beside.world.mint()
    beside.clock.advance(3)

    assert (await beside.check(token)).status == 200
    assert (await beside.check(token, "fresh")).status == 503


async def test_hostile_claims_do_not_split_the_reply(beside: Beside) -> None:
    """A subject is what a user once typed somewhere."""
    reply = await beside.check(beside.world.mint(sub="alice\r\nX-Auth-Scope: admin\x00é%"))

    assert reply.status == 200
    assert reply.headers["x-auth-subject"] == "alice%0D%0AX-Auth-Scope: admin%00%C3%A9%25"
    assert reply.headers["x-auth-scope"] == "read write"


async def test_outcomes_are_counted(beside: Beside) -> None:
    """An operator sees refusals rise."""
    token = b"Bearer " + beside.world.mint()
    for values in ((token,), (token,), (), (b"Bearer x",), (token, token)):
        await beside.ask("/nginx/default", *values)
    await beside.ask("/nginx/strict", token)

    text = (await beside.ask("/metrics")).body.decode()

    for policy, outcome, count in (
        ("default", "allowed", 2), ("default", "no_token", 1), ("default", "bad_token", 1),
        ("default", "two_tokens", 1), ("strict", "forbidden", 1), ("default", "unknown", 0),
    ):  # fmt: skip
        labels = f'dialect="nginx",outcome="{outcome}",policy="{policy}"'
        assert f"keyturn_sidecar_answers_total{{{labels}}} {count}.0" in text


async def test_a_random_signature_is_never_in_the_way_of_a_good_one(beside: Beside) -> None:
    """The cache is keyed by the whole token: a changed last byte is another token."""
    token = beside.world.mint()
    assert (await beside.check(token)).status == 200
    head, _, signature = token.rpartition(b".")
    other = head + b"." + b64url(entropy.token_bytes(64)).encode()

    assert len(other) == len(head) + 1 + len(signature)
    assert (await beside.check(other)).status == 401
    assert (await beside.check(token + b"=")).status == 401
    assert (await beside.check(token)).status == 200
