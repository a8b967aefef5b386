"""The key service over HTTP, on a real Valkey, from the very files that `keyturn init` makes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, UnixConnector

from keyservice.app import KeyService
from keyturn import entropy
from keyturn.cli.main import main
from keyturn.cli.provisioning import Plan, provision
from keyturn.clock import SystemClock
from keyturn.contract.assertions import sign_assertion
from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementKey
from keyturn.contract.positions import Lane
from keyturn.feed.publisher import bootstrap
from keyturn.process.pinned import statement_key
from keyturn.process.settings import Settings
from keyturn.process.values import Secret
from serving.parts import Parts, open_parts
from serving.records import RecordStore
from serving.settings import record_store
from tests.building import new_access_token, serving_at
from tests.described import check_described
from tests.waiting import eventually
from tests.world import AUDIENCE

ISSUER = "http://127.0.0.1:8400"


@dataclass
class Desk:
    """A running key service, an operator's client to it, and the socket of its signing listener."""

    service: KeyService
    parts: Parts
    http: ClientSession
    records: RecordStore
    directory: Path

    async def admin(self, method: str, path: str, body: Any = None, *, scope: str = "keyturn:admin") -> Any:
        """Ask as an operator; return status and JSON."""
        clock, token = self.parts.clock, new_access_token()
        now = clock.now()
        record = {
            "iss": ISSUER, "sub": "admin", "client_id": "admin", "aud": "keyturn:admin", "scope": scope,
            "iat": int(now), "exp": int(now) + 60, "jti": entropy.uuid7(now), "grant_id": entropy.uuid7(now),
        }  # fmt: skip
        await self.records.put(token, record, expires_at=now + 60)
        headers = {"Authorization": f"Bearer {token}"}
        async with self.http.request(method, path, json=body, headers=headers) as response:
            told = await response.json()
        check_described(
            await self.description(), (method, path), status=response.status, kind=response.content_type, content=told
        )
        return response.status, told

    async def description(self) -> dict[str, Any]:
        """Return what the service says of its routes: every answer to an operator is held against it."""
        async with self.http.get("/openapi.json") as response:
            return dict(await response.json())

    async def kid(self, use: str = "access") -> str:
        """Return the ES256 key that signs for a use."""
        _, told = await self.admin("GET", "/keys")
        signing = (key for key in told["keys"] if (key["phase"], key["use"]) == ("active", use))
        return next(str(key["kid"]) for key in signing)

    async def sign(self, sent: bytes, *, key: StatementKey, service: str = "authorization", **changes: Any) -> Any:
        """Send a body to the signing listener with an assertion; return status and JSON."""
        now = self.parts.clock.now()
        facts: dict[str, Any] = {"service": service, "method": "POST", "path": "/sign", "body": sent, "now": now}
        assertion = changes.pop("assertion", None) or sign_assertion(key, jti=entropy.uuid7(now), **(facts | changes))
        headers = {"Authorization": f"Keyturn-Assertion {assertion}", "X-Keyturn-Service": service}
        socket = UnixConnector(str(self.directory / "run" / "keyservice.sock"))
        async with (
            ClientSession(connector=socket, timeout=ClientTimeout(total=5)) as http,
            http.post("http://signer/sign", data=sent, headers=headers) as response,
        ):
            return response.status, await response.json()

    def identity(self, name: str) -> StatementKey:
        """Return the private key of a service."""
        return statement_key(Secret.read(self.directory / "identities" / f"{name}.jwk"), setting="test")


@pytest.fixture
async def desk(valkey_url: str, tmp_path: Path) -> AsyncIterator[Desk]:
    """Run the service from a provisioned directory; the other lane has begun too."""
    directory, clock = tmp_path / "keyturn", SystemClock()
    provision(directory, Plan(issuer=ISSUER, redis_url=valkey_url, dev=True), now=clock.now())
    text = (directory / "keyturn.toml").read_text().replace("credentials", "# credentials")
    (directory / "keyturn.toml").write_text(text)
    more = {"KEYTURN_KEYSERVICE__BOOTSTRAP": "true", "KEYTURN_REDIS__DURABLE": "true"}
    more |= {"KEYTURN_ROTATION__BARRIER": "reports", "KEYTURN_ROTATION__CACHE": "0"}
    settings = Settings.read(directory / "keyturn.toml", environ=more)
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_parts(settings, user="keyservice", clock=clock))
        service = KeyService(settings, parts)
        following = asyncio.create_task(parts.follower.run())
        stack.callback(following.cancel)
        http = await stack.enter_async_context(serving_at([service], parts))
        await eventually(lambda: parts.replica.trust.version == 1)
        genesis = (directory / "genesis" / "revocations.jws").read_bytes()
        await bootstrap(parts.feed, genesis, parts.replica.trust, Lane.REVOCATIONS)
        await eventually(lambda: service.unready() is None and parts.unready() is None, saying=service.unready)
        yield Desk(service, parts, http, record_store(settings, parts.redis, clock), directory)


async def test_the_key_set_has_no_private_member_and_a_tag_that_saves_the_body(desk: Desk) -> None:
    """RFC 7517 and RFC 9110, 13.1.2: pollers get 304 until something changed, and never a `d`."""
    async with desk.http.get("/.well-known/jwks.json") as response:
        keys, tag = (await response.json(content_type=None))["keys"], response.headers["ETag"]
        assert response.headers["Cache-Control"] == "public, max-age=0"
    assert {key["alg"] for key in keys} == {"ES256"}
    # Three keys for access tokens, and two for each other use: who checks an answer (RFC 9701) looks here, too.
    assert len({key["kid"] for key in keys}) == len(keys) == 7
    assert {key["use"] for key in keys} == {"sig"}
    assert {name for key in keys for name in key} == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    async with desk.http.get("/.well-known/jwks.json", headers={"If-None-Match": f'"x", W/{tag}'}) as response:
        assert response.status == 304
        assert await response.read() == b""
    async with desk.http.head("/.well-known/jwks.json") as response:
        assert (response.status, response.headers["ETag"]) == (200, tag)
    await desk.admin("POST", "/keys/rotate")
    async with desk.http.get("/.well-known/jwks.json", headers={"If-None-Match": tag}) as response:
        assert response.status == 200
        assert response.headers["ETag"] != tag


async def test_a_key_service_that_heard_nothing_for_too_long_does_not_give_its_key_set(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one may have rotated meanwhile: who pulled the old set would refuse good tokens for C more."""
    expired = desk.parts.replica.freshness.expired_after_seconds
    monkeypatch.setattr(desk.parts.replica, "silence", lambda _lane, _boottime: expired)
    async with desk.http.get("/.well-known/jwks.json") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
    monkeypatch.undo()
    async with desk.http.get("/.well-known/jwks.json") as response:
        assert response.status == 200


async def test_an_order_to_rotate_says_who_signs_next_and_the_old_key_stays_in_the_set(desk: Desk) -> None:
    """The receipt is what an operator's script goes on with."""
    old = await desk.kid()
    status, receipt = await desk.admin("POST", "/keys/rotate", {"alg": "ES256", "reason": "drill"})
    assert status == 200
    assert receipt["kid"] == await desk.kid() != old
    assert receipt | {"lane": "keys", "epoch": 1, "durability": "local", "laggards": []} == receipt
    _, told = await desk.admin("GET", "/keys")
    assert {"kid", "alg", "phase", "published_at", "active_at", "retiring_at", "removed_at"} <= told["keys"][0].keys()
    assert next(key["phase"] for key in told["keys"] if key["kid"] == old) == "retiring"


@pytest.mark.parametrize("use", ["introspection", "status"])
async def test_each_use_is_rotated_and_rescued_by_itself(desk: Desk, use: str) -> None:
    """A status key that leaked is no reason to end every access token."""
    others = {one: await desk.kid(one) for one in ("access", "introspection", "status") if one != use}
    first = await desk.kid(use)
    status, receipt = await desk.admin("POST", "/keys/rotate", {"use": use})
    assert (status, receipt["kid"]) == (200, await desk.kid(use))
    status, receipt = await desk.admin("POST", f"/keys/{receipt['kid']}/revoke", {"reason": "leaked"})
    assert (status, receipt["kid"], receipt["phase"]) == (200, await desk.kid(use), "active")
    _, told = await desk.admin("GET", "/keys")
    assert [key["phase"] for key in told["keys"] if key["use"] == use] == ["retiring", "revoked", "active", "published"]
    assert told["keys"][0]["use"] == "access"
    assert {one: await desk.kid(one) for one in others} == others
    assert first not in others.values()


async def test_a_revoked_key_leaves_the_set_at_once_and_revoking_twice_is_the_same(desk: Desk) -> None:
    """An emergency: the public set must not offer the key for one more second."""
    stolen = await desk.kid()
    status, receipt = await desk.admin("POST", f"/keys/{stolen}/revoke", {"reason": "stolen"})
    assert status == 200
    assert receipt["kid"] != stolen
    async with desk.http.get("/.well-known/jwks.json") as response:
        assert stolen not in {key["kid"] for key in (await response.json(content_type=None))["keys"]}
    again, second = await desk.admin("POST", f"/keys/{stolen}/revoke")
    assert (again, second["sequence"], second["kid"]) == (200, receipt["sequence"], receipt["kid"])


async def test_the_receipt_of_an_emergency_says_what_is_exposed_and_until_when(desk: Desk) -> None:
    """Who answers for it must know when the last verifier that heard nothing stops by itself."""
    began = desk.parts.clock.now()
    _, receipt = await desk.admin("POST", f"/keys/{await desk.kid()}/revoke")
    assert began + 902 <= receipt["exposure"]["push_until"] < began + 910
    assert began + 2 <= receipt["exposure"]["pull_until"] < began + 10


async def test_a_rotation_can_be_ordered_for_a_moment_to_come(desk: Desk) -> None:
    """202 and the key that will sign; the moment is a number or RFC 3339."""
    old = await desk.kid()
    status, receipt = await desk.admin("POST", "/keys/rotate", {"at": desk.parts.clock.now() + 60})
    assert (status, receipt["phase"]) == (202, "published")
    assert receipt["kid"] != old == await desk.kid()
    text = datetime.fromtimestamp(desk.parts.clock.now() + 30, UTC).isoformat()
    assert (await desk.admin("POST", "/keys/rotate", {"at": text}))[0] == 202


@pytest.mark.parametrize("at", [1, "soon", "2026-12-01", "2026-12-01T02:00:00", True, 1e12, None])
async def test_a_moment_that_is_past_or_none_is_refused(desk: Desk, at: Any) -> None:
    """A time without its offset is another time on every machine."""
    status, problem = await desk.admin("POST", "/keys/rotate", {"at": at})
    assert (status, "at is a moment" in problem["detail"]) == (400, True)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/keys/nobody/revoke", None, 404),
        ("POST", "/keys/rotate", {"alg": "HS256"}, 400),
        ("POST", "/keys/rotate", {"algorithm": "ES256"}, 400),
        ("POST", "/keys/rotate", {"use": "sig"}, 400),
        ("POST", "/keys/rotate", {"use": ["status"]}, 400),
        ("POST", "/keys/rotate", {"use": None}, 400),
        ("POST", "/keys/rotate", {"use": "status", "alg": "RS256"}, 400),
        ("POST", "/keys/rotate", {"reason": "x" * 201}, 400),
        ("POST", "/keys/rotate?wait=some", None, 400),
        ("POST", "/keys/rotate?wait=all&timeout=-1", None, 400),
        ("GET", "/feed/nothing", None, 400),
        ("GET", "/feed/keys?after=x", None, 400),
        ("GET", "/feed/keys?after=-1", None, 400),
        ("GET", f"/feed/keys?after={10**25}", None, 400),
        ("PUT", "/keys", None, 405),
    ],
)
async def test_a_wrong_order_is_named_and_changes_nothing(
    desk: Desk, method: str, path: str, body: Any, status: int
) -> None:
    """RFC 9457: an operator at 3 a.m. reads what is wrong, and the key set stands as it stood."""
    before = desk.parts.replica.place(Lane.KEYS)
    told, problem = await desk.admin(method, path, body)
    assert told == status
    assert problem["status"] == status
    assert desk.parts.replica.place(Lane.KEYS) == before


async def test_metrics_tell_phases_what_waits_and_the_lease(desk: Desk) -> None:
    """What an alarm needs: a rotation that hangs, a signer about to stop, a set without standbys."""
    await desk.admin("POST", "/keys/rotate")
    await desk.admin("POST", "/keys/rotate", {"at": desk.parts.clock.now() + 60})
    async with desk.http.get("/metrics") as response:
        text = await response.text()
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for use, standbys in (("access", 2.0), ("introspection", 1.0), ("status", 1.0)):
        labels = f'alg="ES256",phase="{{}}",use="{use}"'
        phases = {phase: float(lines[f"keyturn_keys{{{labels.format(phase)}}}"]) for phase in ("active", "published")}
        assert phases == {"active": 1.0, "published": standbys}
        assert float(lines[f'keyturn_active_key_age_seconds{{alg="ES256",use="{use}"}}']) >= 0
    assert float(lines['keyturn_rotation_waiting_seconds{alg="ES256",use="access"}']) > 0
    assert float(lines['keyturn_rotation_waiting_seconds{alg="ES256",use="status"}']) == 0
    assert 0 < float(lines["keyturn_signer_lease_seconds"]) <= 5
    assert float(lines["keyturn_presence_complete"]) == 1.0
    assert float(lines['keyturn_live_verifiers{keys="lagging"}']) == 0.0


async def test_nobody_but_an_operator_gets_in(desk: Desk) -> None:
    """Deny by default: no token, a token without the scope, and a JWT are all refused."""
    for path in ("/keys", "/verifiers", "/feed/keys", "/feed/revocations", "/feed/trust"):
        async with desk.http.get(path) as response:
            assert response.status == 401
            assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert (await desk.admin("POST", "/keys/rotate", scope="read"))[0] == 403
    async with desk.http.get("/keys", headers={"Authorization": "Bearer eyJ.eyJ.x"}) as response:
        assert response.status == 401


async def test_the_feed_is_told_event_by_event(desk: Desk) -> None:
    """An auditor reads what was signed, and can start where he stopped."""
    await desk.admin("POST", "/keys/rotate")
    token = new_access_token()
    now = desk.parts.clock.now()
    record = {
        "iss": ISSUER, "sub": "admin", "client_id": "admin", "aud": "keyturn:admin", "scope": "keyturn:admin",
        "iat": int(now), "exp": int(now) + 60, "jti": "j", "grant_id": entropy.uuid7(now),
    }  # fmt: skip
    await desk.records.put(token, record, expires_at=now + 60)
    async with desk.http.get("/feed/keys?after=3", headers={"Authorization": f"Bearer {token}"}) as response:
        assert response.content_type == "application/x-ndjson"
        lines = [json.loads(line) for line in (await response.text()).splitlines()]
    assert [line["sequence"] for line in lines] == [4]  # After the first keys of each use.
    assert lines[0]["event"].count(".") == 2


async def test_the_signing_listener_knows_its_services_by_one_assertion_for_each_request(desk: Desk) -> None:
    """A stolen request must not be replayed, moved to another body, or sent by another service."""
    key, claims = desk.identity("authorization"), {"sub": "a", "client_id": "c", "aud": AUDIENCE, "jti": "j"}
    body = encode_json({"tokens": [{"typ": "at+jwt", "claims": claims}]})
    status, told = await desk.sign(body, key=key)
    assert status == 200
    assert told["tokens"][0].count(".") == 2
    now = desk.parts.clock.now()
    once = sign_assertion(
        key, service="authorization", method="POST", path="/sign", body=body, now=now, jti=entropy.uuid7(now)
    )
    answers = await asyncio.gather(*(desk.sign(body, key=key, assertion=once) for _ in range(8)))
    assert sorted(status for status, _ in answers) == [200] + [401] * 7
    for change in ({"body": b"{}"}, {"path": "/other"}, {"method": "GET"}, {"now": now - 60}, {"now": now + 60}):
        assert (await desk.sign(body, key=key, **change))[0] == 401
    assert (await desk.sign(body, key=desk.identity("introspection")))[0] == 401
    revocation = desk.identity("revocation")
    assert (await desk.sign(body, key=revocation, service="revocation"))[0] == 403
    assert (await desk.sign(body, key=desk.identity("sidecar-1"), service="sidecar-1"))[0] == 401
    for broken in (b"", b"[]", b'{"tokens":[]}', b'{"tokens":[{"typ":"at+jwt"}]}', b'{"tokens":[1]}'):
        assert (await desk.sign(broken, key=key))[0] == 400


async def test_each_identity_gets_what_the_root_lets_it_have_signed_and_nothing_else(desk: Desk) -> None:
    """Least rights, each pair tried: a stolen identity is worth no more than its line in the trust document."""
    types = (
        "at+jwt",
        "token-introspection+jwt",
        "statuslist+jwt",
        "secevent+jwt",
        "logout+jwt",
        "JWT",
        "at+JWT",
        "keyturn-event+jws",
        "",
    )
    claims = {"sub": "a", "client_id": "c", "aud": AUDIENCE, "jti": "j"}
    got = {}
    for service in desk.parts.replica.trust.document.identities:
        for typ in types:
            told = {"sub": "a"} if typ == "statuslist+jwt" else claims
            body = encode_json({"tokens": [{"typ": typ, "claims": told}]})
            got[service, typ] = (await desk.sign(body, key=desk.identity(service), service=service))[0]
    signed = {pair for pair, status in got.items() if status == 200}
    assert signed == {
        ("authorization", "at+jwt"), ("introspection", "at+jwt"), ("introspection", "token-introspection+jwt"),
        ("revocation", "statuslist+jwt"), ("revocation", "secevent+jwt"),
    }  # fmt: skip
    assert {status for (service, _), status in got.items() if service == "sidecar-1"} == {401}
    assert {got[service, typ] for service, typ in got.keys() - signed if service != "sidecar-1"} == {403}
    # One that may not be signed takes the others of its request along.
    both = [{"typ": typ, "claims": claims} for typ in ("at+jwt", "JWT")]
    assert (await desk.sign(encode_json({"tokens": both}), key=desk.identity("authorization")))[0] == 403


async def test_an_identity_that_the_root_has_replaced_has_nothing_signed(desk: Desk) -> None:
    """From the moment that the document is in force, with no restart."""
    old = desk.identity("authorization")
    body = encode_json({"tokens": [{"typ": "at+jwt", "claims": {"sub": "a", "aud": AUDIENCE, "jti": "j"}}]})
    assert (await desk.sign(body, key=old))[0] == 200
    argv = ["trust", "rotate-identity", "authorization", "--dir", str(desk.directory)]
    assert await asyncio.to_thread(main, argv) == 0
    await eventually(lambda: desk.parts.replica.trust.version == 2)
    assert (await desk.sign(body, key=old))[0] == 401
    assert (await desk.sign(body, key=desk.identity("authorization")))[0] == 200


async def test_with_the_store_away_orders_are_503_and_the_key_set_is_still_told(desk: Desk) -> None:
    """Pollers must not lose the set because Redis restarts; operators must not be told that something was done."""
    await desk.parts.redis.connection_pool.disconnect()
    desk.parts.feed._redis = _Away()  # type: ignore[assignment]
    async with desk.http.get("/.well-known/jwks.json") as response:
        assert response.status == 200
    status, problem = await desk.admin("POST", "/keys/rotate")
    assert (status, problem["code"]) == (503, "feed_unavailable")


class _Away:
    """A store that cannot be reached."""

    def __getattr__(self, name: str) -> Any:
        async def fail(*_: Any, **__: Any) -> None:
            raise ConnectionError(name)

        return fail


async def test_every_answer_of_the_key_service_has_the_shape_that_its_description_promises(desk: Desk) -> None:
    """OpenAPI 3.1: clients are made from it. `Desk.admin` compares each answer, here those that are asked seldom."""
    for method, path, status in (
        ("GET", "/keys", 200),
        ("GET", "/verifiers", 200),
        ("GET", "/feed/trust", 200),
        ("GET", "/feed/nothing", 400),
        ("POST", "/keys/reseal", 200),
        ("POST", "/keys/import", 400),
        ("POST", "/keys/rotate?timeout=0", 200),
        ("POST", "/keys/nobodys/revoke", 404),
    ):
        assert (await desk.admin(method, path, {} if method == "POST" else None))[0] == status, path
    async with desk.http.get("/.well-known/jwks.json") as response:
        told = json.loads(await response.read())
        kind = response.content_type
    check_described(await desk.description(), ("GET", "/.well-known/jwks.json"), status=200, kind=kind, content=told)
