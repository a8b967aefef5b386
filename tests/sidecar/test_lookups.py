"""Introspection, the key set, health and state: what libraries, orchestrators and people ask the sidecar."""

import json
from urllib.parse import urlencode

import pytest

from keyturn.contract.keys import Activated, Retired, Use
from keyturn.contract.positions import Lane
from keyturn.contract.selectors import SelectorKind
from tests.sidecar.beside import NAME, Beside, sidecar_of
from tests.sidecar.wire import Reply
from tests.world import AUDIENCE, ISSUER, World, new_statement_key


async def _introspect(beside: Beside, token: bytes, **more: str) -> Reply:
    return await beside.introspect(urlencode({"token": token.decode(), **more}).encode())


async def test_introspection_tells_the_claims_of_a_good_token(beside: Beside) -> None:
    """RFC 7662, section 2.2; the scopes are the API's to look at."""
    reply = await _introspect(beside, beside.world.mint(scope="read"), token_type_hint="access_token")

    told = json.loads(reply.body)
    assert reply.status == 200
    assert (reply.headers["content-type"], reply.headers["cache-control"]) == ("application/json", "no-store")
    assert (told["active"], told["token_type"], told["sub"], told["scope"]) == (True, "Bearer", "alice", "read")
    assert (told["iss"], told["aud"], told["client_id"]) == (ISSUER, AUDIENCE, "shop")


async def test_introspection_says_nothing_of_a_bad_token(beside: Beside) -> None:
    """RFC 7662, section 2.2: an inactive token is one member and no reason."""
    world = beside.world
    revoked = world.mint(jti="gone")
    await beside.revoke(SelectorKind.JTI, "gone")

    for token in (revoked, world.mint(aud="https://other.example"), world.mint(header={"kid": "x"}), b"kt_at_x"):
        reply = await _introspect(beside, token)
        assert (reply.status, json.loads(reply.body)) == (200, {"active": False})


async def test_introspection_that_cannot_say_is_503(beside: Beside) -> None:
    """`{"active": false}` would be a lie."""
    token = beside.world.mint(exp=int(beside.clock.now()) + 3600)
    beside.feed.reachable = False
    assert (await _introspect(beside, beside.world.mint(header={"kid": "x"}))).status == 503

    beside.clock.advance(900)

    assert (await _introspect(beside, token)).status == 503


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"token":"x"}', b"application/json", 415),
        (b"token=x&token=y", b"application/x-www-form-urlencoded", 400),
        (b"token_type_hint=x", b"application/x-www-form-urlencoded", 400),
        (b"token=", b"application/x-www-form-urlencoded", 400),
        (b"token=%ff", b"application/x-www-form-urlencoded", 400),
        (b"\xff", b"application/x-www-form-urlencoded", 400),
        (b"&".join(b"a%d=1" % n for n in range(20)), b"application/x-www-form-urlencoded", 400),
        (b"token=x", b"application/x-www-form-urlencoded; charset=UTF-8", 200),
    ],
)
async def test_introspection_reads_forms_and_nothing_else(
    beside: Beside, body: bytes, content_type: bytes, status: int
) -> None:
    """What two readers could read in two ways is refused."""
    reply = await beside.introspect(body, content_type)

    assert reply.status == status
    if status == 400:
        assert json.loads(reply.body)["error"] == "invalid_request"


async def test_introspection_is_post(beside: Beside) -> None:
    """A token in a URL ends up in logs."""
    reply = await beside.ask("/introspect?token=x")

    assert (reply.status, reply.headers["allow"]) == (405, "POST")


async def test_the_key_set_is_public_and_has_an_entity_tag(beside: Beside) -> None:
    """A reader that has it already gets no body, and learns of a rotation all the same."""
    world = beside.world
    first = await beside.ask("/jwks.json")
    keys = json.loads(first.body)["keys"]

    assert first.headers["content-type"] == "application/jwk-set+json"
    assert [(key["kid"], key["alg"], key["use"]) for key in keys] == [(world.signing_kid, "ES256", "sig")]
    assert "d" not in keys[0]
    tag = first.headers["etag"]
    client = await beside.connect()
    client.send(b"GET /jwks.json HTTP/1.1\r\nHost: s\r\nIf-None-Match: W/%b, x\r\n\r\n" % tag.encode())
    again = await client.reply(head=True)  # A 304 has no body, whatever its length says.
    assert (again.status, again.headers["etag"]) == (304, tag)
    assert (await client.ask(b"GET /healthz HTTP/1.1\r\nHost: s\r\n\r\n")).status == 200

    await beside.publish(*world.first_key("EdDSA"), Retired(kid=world.signing_kid))

    later = await beside.ask("/jwks.json")
    assert len(json.loads(later.body)["keys"]) == 2
    assert later.headers["etag"] != tag


@pytest.mark.parametrize("use", [Use.INTROSPECTION, Use.STATUS])
async def test_the_key_set_has_keys_of_access_tokens_alone(beside: Beside, use: Use) -> None:
    """RFC 8725, 3.11: a library that overlooks `typ` must find no key here that signs events or status lists."""
    before = (await beside.ask("/jwks.json")).body
    published = beside.world.new_key(use=use)
    await beside.publish(published, Activated(kid=published.kid, sign_until=2e9, verify_until=2e9))
    assert (await beside.ask("/jwks.json")).body == before


async def test_the_key_set_is_never_empty_and_never_old(beside: Beside) -> None:
    """A reader would take an empty set for the end of all tokens."""
    await beside.revoke_key(beside.world.signing_kid)
    assert (await beside.ask("/jwks.json")).status == 503

    await beside.publish(*beside.world.first_key())
    assert (await beside.ask("/jwks.json")).status == 200
    beside.clock.advance(900)
    assert (await beside.ask("/jwks.json")).status == 503


async def test_state_tells_what_the_replica_holds(beside: Beside) -> None:
    """What a dashboard, and the acceptance of this product, read."""
    await beside.revoke(SelectorKind.JTI, "gone")
    beside.clock.advance(1.5)

    facts = await beside.facts()

    assert facts == {
        "verifier": NAME,
        "state": "fresh",
        "staleness_ms": 1500.0,
        "trust_version": 1,
        "trust_expires_at": beside.world.document().expires_at - 1.5,
        "trust_expires_soon": True,
        "keys": 1,
        "revocations": 1,
        "epochs": {"keys": 1, "revocations": 1},
        "issuers": {},
        "cache": {"tokens": 0, "hits": 0, "misses": 0, "rechecks": 0, "evictions": 0},
    }


async def test_ready_live_and_metrics(beside: Beside) -> None:
    """What an orchestrator and Prometheus ask."""
    assert (await beside.facts("/healthz")) == {"status": "live"}
    assert (await beside.facts("/readyz")) == {"status": "ready"}

    reply = await beside.ask("/metrics")

    text = reply.body.decode()
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'keyturn_replica_state{state="fresh"} 1.0', 'keyturn_replica_sequence{lane="keys"} 1.0',
        'keyturn_replica_epoch{lane="revocations"} 1.0', "keyturn_replica_age_seconds 0.0",
        "keyturn_verdict_cache_hits_total 0.0", "keyturn_sidecar_connections 3.0",
    ):  # fmt: skip
        assert line in text


async def test_before_anything_is_trusted_every_check_is_503_and_ready_says_why() -> None:
    """It listens at once, so that a gateway's start does not depend on the store's."""
    world = World(verifiers={NAME: new_statement_key()})
    async with sidecar_of(world) as beside:
        assert (await beside.check(b"x")).status == 503
        reply = await beside.ask("/readyz")
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert json.loads(reply.body)["reasons"] == {"sidecar": "no trust document has been read"}
        assert (await beside.ask("/healthz")).status == 200
        assert (await beside.facts())["staleness_ms"] is None


async def test_a_store_that_cannot_be_reached_is_why_it_is_not_ready() -> None:
    """The reason that helps is the cause, not its effect."""
    world = World(verifiers={NAME: new_statement_key()})
    assert hasattr(world.feed, "reachable")
    world.feed.reachable = False
    async with sidecar_of(world) as beside:
        reasons = (await beside.facts("/readyz"))["reasons"]

    assert reasons == {"sidecar": "the store cannot be reached"}


async def test_the_sidecar_reports_its_presence_and_says_goodbye() -> None:
    """A receipt waits for whoever is live, and for nobody who has left."""
    world = World(verifiers={NAME: new_statement_key()})
    await world.begin()
    async with sidecar_of(world) as beside:
        await beside.sidecar.follower.ready()
        assert beside.feed is world.feed
        assert set(await beside.feed.reports([NAME])) == {NAME}
        running = (await beside.feed.reports([NAME]))[NAME]

    gone = (await beside.feed.reports([NAME]))[NAME]
    assert gone != running
    assert beside.sidecar.replica.place(Lane.KEYS) == (1, 0)


async def test_a_verifier_that_the_root_no_longer_names_is_not_ready(beside: Beside) -> None:
    """Its reports count for nothing, so a receipt does not wait for it: traffic must go where one does."""
    assert beside.sidecar.health.unready() is None
    beside.sidecar.replica.adopt_trust(beside.world.trust(version=2, identities={}))
    reply = await beside.ask("/readyz")
    assert reply.status == 503
    assert f"names no verifier {NAME}" in reply.body.decode()
