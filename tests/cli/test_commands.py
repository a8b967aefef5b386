"""Each command: what it asks and as whom, what it prints, and its exit status."""

from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.cli.conftest import ADMIN_TOKEN, SECRETS, SIGNED, FakeOrigin, Run

RECEIPT = {
    "lane": "revocations", "epoch": 1, "sequence": 7, "durability": "local", "adopted": 2, "live": 2,
    "slowest_ms": 3.1, "laggards": [], "adopted_ms": {"sidecar-1": 3.1, "sidecar-3": 2.5},
}  # fmt: skip
LAGGING = RECEIPT | {"adopted": 1, "laggards": ["sidecar-2"]}
KEYS = {
    "keys": [
        {"kid": "kid-one", "alg": "ES256", "phase": "active", "published_at": 1.8e9, "active_at": 1.8e9,
         "retiring_at": None, "removed_at": None},
        {"kid": "kid-two", "alg": "ES256", "phase": "published", "published_at": 1.8e9, "active_at": None,
         "retiring_at": None, "removed_at": None},
    ]
}  # fmt: skip
VERIFIERS = {"verifiers": [{"id": "sidecar-1", "keys": 4, "revocations": 7, "state": "fresh", "seen_ms": 312.5}]}
STATE = {"keys": 4, "revocations": 7, "state": "fresh", "staleness_ms": 120.0}


def basic(role: str) -> str:
    """Return what stands in the client's Basic header, decoded."""
    return f"{role.lower()}:{SECRETS[role].replace('/', '%2F')}"


def decoded(authorization: str) -> str:
    """Return id and secret of a Basic header."""
    scheme, _, value = authorization.partition(" ")
    assert scheme == "Basic"
    return b64decode(value).decode()


async def test_token_get_prints_the_token_alone(keyturn: Run, fake: FakeOrigin) -> None:
    """So that it can be piped into verify, introspect or a header."""
    ran = await keyturn("token", "get", "--scope", "read", "--format", "opaque", "--resource", "https://api.example")
    asked = fake.of("/token")
    assert (ran.status, ran.out) == (0, f"{ADMIN_TOKEN}\n")
    assert decoded(asked.authorization) == basic("CLIENT")
    assert asked.body == (
        b"grant_type=client_credentials&scope=read&resource=https%3A%2F%2Fapi.example&token_format=opaque"
    )
    assert (await keyturn("token", "get", "--json")).json["expires_in"] == 300


async def test_token_inspect_says_that_it_verified_nothing(run: Run) -> None:
    """What is decoded here must not be taken for true; it works without any server."""
    ran = await run("token", "inspect", "-", stdin=SIGNED)
    assert ran.status == 0
    assert ran.out.startswith("NOT VERIFIED")
    assert "alice" in ran.out
    assert "2027-01-15 08:00:00Z" in ran.out
    told = (await run("token", "inspect", "-", "--json", stdin=SIGNED)).json
    assert (told["verified"], told["header"], told["claims"]["sub"]) == (False, {"alg": "ES256"}, "alice")
    assert (await run("token", "inspect", "-", stdin="nonsense")).status == 1
    assert (await run("token", "inspect", "-", stdin=SIGNED + "=.")).status == 1


async def test_verify_asks_the_sidecar_as_a_gateway_would(keyturn: Run, fake: FakeOrigin) -> None:
    """Yes is 0 and shows who it is."""
    fake.answer("GET /nginx/strict", 200, X_Auth_Subject="alice", X_Auth_State="fresh")
    ran = await keyturn("verify", "-", "--policy", "strict", stdin=SIGNED)
    assert ran.status == 0
    assert ran.out.splitlines()[0] == "active"
    assert "alice" in ran.out
    told = (await keyturn("verify", "-", "--policy", "strict", "--json", stdin=SIGNED)).json
    assert (told["active"], told["subject"], told["client"]) == (True, "alice", "")


@pytest.mark.parametrize("status", [401, 403])
async def test_verify_says_no_with_the_challenges_reason(keyturn: Run, fake: FakeOrigin, status: int) -> None:
    """No is 1."""
    challenge = 'Bearer realm="api", error="invalid_token", error_description="revoked"'
    fake.answer("GET /nginx/default", status, WWW_Authenticate=challenge)
    ran = await keyturn("verify", "-", stdin=SIGNED)
    assert (ran.status, ran.out) == (1, "refused: invalid_token: revoked\n")


async def test_a_sidecar_that_cannot_say_is_3_and_never_no(keyturn: Run, fake: FakeOrigin) -> None:
    """An expired replica knows nothing about the token."""
    fake.answer("GET /nginx/default", 503, Retry_After="1")
    ran = await keyturn("verify", "-", stdin=SIGNED)
    assert (ran.status, ran.out) == (3, "")
    assert "ask again in 1 s" in ran.err


@pytest.mark.parametrize(
    ("told", "status"), [({"active": True, "sub": "alice", "exp": 1.8e9}, 0), ({"active": False}, 1)]
)
async def test_introspect_asks_as_the_resource_server(
    keyturn: Run, fake: FakeOrigin, told: dict[str, Any], status: int
) -> None:
    """RFC 7662, with the credentials that may ask."""
    fake.answer("POST /introspect", 200, told)
    ran = await keyturn("introspect", "-", stdin=SIGNED)
    asked = fake.of("/introspect")
    assert (ran.status, decoded(asked.authorization)) == (status, basic("RESOURCE"))
    assert asked.body == f"token={SIGNED}".encode()
    assert (await keyturn("introspect", "-", "--json", stdin=SIGNED)).json == told


@pytest.mark.parametrize(
    ("told", "status", "out"),
    [(SIGNED.encode(), 0, SIGNED), ({"active": False}, 1, "inactive")],
)
async def test_introspect_prints_a_jwt_alone_or_says_that_there_is_none(
    keyturn: Run, fake: FakeOrigin, told: Any, status: int, out: str
) -> None:
    """So that it can be piped into a header; what is no token is never printed as one."""
    fake.answer("POST /introspect", 200, told, **({"Content_Type": "application/jwt"} if status == 0 else {}))
    ran = await keyturn("introspect", "-", "--jwt", stdin=SIGNED)
    assert (ran.status, ran.out) == (status, f"{out}\n")
    assert fake.of("/introspect").headers["Accept"] == "application/jwt, application/json;q=0.5"
    told = (await keyturn("introspect", "-", "--jwt", "--json", stdin=SIGNED)).json
    assert told == ({"active": True, "jwt": SIGNED} if status == 0 else {"active": False})


async def test_revoking_a_token_is_its_clients_right(keyturn: Run, fake: FakeOrigin) -> None:
    """RFC 7009 with the client's own credentials, not the administrator's."""
    fake.answer("POST /revoke", 200)
    ran = await keyturn("revoke", "-", stdin=SIGNED)
    asked = fake.of("/revoke")
    assert (ran.status, decoded(asked.authorization), asked.body) == (0, basic("CLIENT"), f"token={SIGNED}".encode())
    fake.answer("POST /revoke", 200, RECEIPT)
    ran = await keyturn("revoke", "-", "--wait", "all", "--timeout", "2.5", stdin=SIGNED)
    assert fake.of("/revoke").target == "/revoke?wait=all&timeout=2.5"
    assert "2 of 2 live verifiers" in ran.out


async def test_somebody_elses_token_is_a_no(keyturn: Run, fake: FakeOrigin) -> None:
    """The issuer refused it: nothing was revoked, and the status says so."""
    fake.answer("POST /revoke", 400, {"error": "invalid_grant", "error_description": "issued to another client"})
    ran = await keyturn("revoke", "-", stdin=SIGNED)
    assert (ran.status, ran.out) == (1, "not revoked: issued to another client\n")


async def test_a_selector_is_revoked_as_administrator_with_each_figure_shown(keyturn: Run, fake: FakeOrigin) -> None:
    """The receipt is the proof: position, durability, adoption, how fast, who lags."""
    fake.answer("POST /revocations", 202, LAGGING)
    ran = await keyturn("revoke", "--sub", "alice", "--before", "1800000000.25", "--reason", "left", "--wait", "all")
    asked = fake.of("/revocations")
    assert asked.authorization == f"Bearer {ADMIN_TOKEN}"
    assert decoded(fake.of("/token").authorization) == basic("ADMIN")
    assert asked.json == {"selector": {"sub": "alice", "before": 1800000000.25}, "reason": "left"}
    assert ran.status == 1
    for figure in ("revocations 1:7", "local", "1 of 2 live verifiers", "3.1 ms", "sidecar-2"):
        assert figure in ran.out
    assert [line.split() for line in ran.out.splitlines()[-2:]] == [
        ["sidecar-1", "3.1", "ms"],
        ["sidecar-3", "2.5", "ms"],
    ]
    fake.answer("POST /revocations", 200, RECEIPT)
    ran = await keyturn("revoke", "--sub", "alice", "--json")
    assert (ran.status, ran.json) == (0, RECEIPT)


async def test_of_a_large_fleet_the_slowest_are_shown_and_of_one_that_was_not_timed_nothing(
    keyturn: Run, fake: FakeOrigin
) -> None:
    """Five hundred lines would bury the one that matters; a time that is not known is not made up."""
    times = {f"sidecar-{number:03}": float(number) for number in range(500)} | {"unknown": None}
    fake.answer("POST /revocations", 200, RECEIPT | {"adopted_ms": times})
    ran = await keyturn("revoke", "--sub", "alice", "--wait", "quorum")
    assert fake.of("/revocations").target == "/revocations?wait=quorum"
    assert [line.split()[0] for line in ran.out.splitlines()[6:8]] == ["sidecar-499", "sidecar-498"]
    assert ran.out.splitlines()[-1].split() == ["484", "more", "faster", "than", "these"]
    assert "unknown" not in ran.out


@pytest.mark.parametrize("member", ["jti", "grant_id", "sid", "sub", "client_id", "aud"])
async def test_every_selector_has_its_option(keyturn: Run, fake: FakeOrigin, member: str) -> None:
    """Named as in the API, with hyphens."""
    fake.answer("POST /revocations", 200, RECEIPT)
    assert (await keyturn("revoke", f"--{member.replace('_', '-')}", "x")).status == 0
    assert fake.of("/revocations").json == {"selector": {member: "x"}}


async def test_a_selector_may_name_another_issuer(keyturn: Run, fake: FakeOrigin) -> None:
    """Byte for byte: what that issuer writes into its tokens."""
    fake.answer("POST /revocations", 200, RECEIPT)
    assert (await keyturn("revoke", "--sub", "alice", "--iss", "https://login.example/")).status == 0
    assert fake.of("/revocations").json == {"selector": {"sub": "alice", "iss": "https://login.example/"}}


async def test_a_moment_may_be_written_as_a_date(keyturn: Run, fake: FakeOrigin) -> None:
    """People read clocks, not Unix seconds."""
    fake.answer("POST /revocations", 200, {"dry_run": True, "selector": {}, "until": 1})
    ran = await keyturn("revoke", "--before", "2027-01-15T09:00:00+01:00", "--dry-run")
    assert (ran.status, "nothing was revoked" in ran.out) == (0, True)
    assert fake.of("/revocations").json == {"selector": {"before": 1.8e9}, "dry_run": True}


async def test_keys_list_shows_each_key_and_its_phase(keyturn: Run, fake: FakeOrigin) -> None:
    """A table for a person, the answer itself for a program."""
    fake.answer("GET /keys", 200, KEYS)
    lines = (await keyturn("keys", "list")).out.splitlines()
    assert lines[0].split() == ["KID", "ALG", "PHASE", "USE", "PUBLISHED", "ACTIVE", "RETIRING", "REMOVED"]
    assert lines[1].split()[:3] == ["kid-one", "ES256", "active"]
    assert (await keyturn("keys", "list", "--json")).json == KEYS


async def test_keys_rotate_and_revoke_show_the_receipt(keyturn: Run, fake: FakeOrigin) -> None:
    """And the kid that signs next."""
    told = RECEIPT | {"lane": "keys", "kid": "kid-next"}
    fake.answer("POST /keys/rotate", 200, told)
    fake.answer("POST /keys/kid-one/revoke", 202, told)
    ran = await keyturn("keys", "rotate", "--alg", "RS256", "--wait", "all")
    assert (ran.status, "kid-next" in ran.out) == (0, True)
    assert (fake.of("/keys/rotate").json, fake.of("/keys/rotate").target) == ({"alg": "RS256"}, "/keys/rotate?wait=all")
    assert (await keyturn("keys", "revoke", "kid-one", "--reason", "stolen")).status == 1
    assert fake.of("/keys/kid-one/revoke").json == {"reason": "stolen"}
    fake.answer("POST /keys/kid-none/revoke", 404, {"title": "Not Found", "detail": "no key has that kid"})
    ran = await keyturn("keys", "revoke", "kid-none")
    assert (ran.status, ran.out) == (1, "not done: no key has that kid\n")


async def test_a_receipt_that_was_not_waited_for_calls_nobody_a_laggard(keyturn: Run, fake: FakeOrigin) -> None:
    """Milliseconds after an order nobody can have reported yet."""
    told = LAGGING | {"lane": "keys", "kid": "kid-next", "phase": "active"}
    fake.answer("POST /keys/rotate", 200, told)
    ran = await keyturn("keys", "rotate")
    assert (ran.status, "sidecar-2" in ran.out) == (0, False)
    assert "not waited for: --wait all" in ran.out
    fake.answer("POST /keys/rotate", 202, told)
    ran = await keyturn("keys", "rotate", "--wait", "all")
    assert (ran.status, "sidecar-2" in ran.out) == (1, True)


async def test_keys_rotate_can_be_ordered_for_later(keyturn: Run, fake: FakeOrigin) -> None:
    """Accepted is yes, although the key does not sign yet; without a moment it is not yet."""
    fake.answer("POST /keys/rotate", 202, RECEIPT | {"lane": "keys", "kid": "kid-next", "phase": "published"})
    ran = await keyturn("keys", "rotate", "--at", "2027-01-15T09:00:00+01:00")
    assert (ran.status, fake.of("/keys/rotate").json) == (0, {"at": 1.8e9})
    assert ran.out.splitlines()[0] == "ordered: this key signs from 2027-01-15 08:00:00Z on"
    ran = await keyturn("keys", "rotate")
    assert (ran.status, "as soon as the barrier lets it" in ran.out) == (1, True)


async def test_an_order_is_repeated_by_its_key_where_nobody_knows_what_came_of_it(
    keyturn: Run, fake: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 503 may have landed: the same key makes the second try safe, and lets an operator go on by hand."""
    monkeypatch.setattr("keyturn.cli.ordering.PAUSE_SECONDS", 0.01)
    fake.answer("POST /keys/rotate", 503, {"title": "Service Unavailable"}, Retry_After="1")
    ran = await keyturn("keys", "rotate")
    keys = {one.headers["Idempotency-Key"] for one in fake.asked if one.target == "/keys/rotate"}
    assert (ran.status, len(keys)) == (3, 1)
    assert sum(one.target == "/keys/rotate" for one in fake.asked) == 3
    assert f"--idempotency-key {min(keys)}" in ran.err
    fake.answer("POST /keys/rotate", 200, RECEIPT | {"kid": "k"})
    await keyturn("keys", "rotate")
    assert fake.of("/keys/rotate").headers["Idempotency-Key"] not in keys
    await keyturn("keys", "rotate", "--idempotency-key", "change-4711")
    assert fake.of("/keys/rotate").headers["Idempotency-Key"] == "change-4711"


async def test_a_revocation_by_selector_is_repeated_by_its_key_too(
    keyturn: Run, fake: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its moment is the first order's, so that a retry does not end what was granted meanwhile."""
    monkeypatch.setattr("keyturn.cli.ordering.PAUSE_SECONDS", 0.01)
    fake.answer("POST /revocations", 503, {"title": "Service Unavailable"}, Retry_After="1")
    ran = await keyturn("revoke", "--sub", "alice")
    keys = {one.headers["Idempotency-Key"] for one in fake.asked if one.target == "/revocations"}
    assert (ran.status, len(keys), f"--idempotency-key {min(keys)}" in ran.err) == (3, 1, True)
    fake.answer("POST /revocations", 422, {"title": "Unprocessable", "detail": "came with another body before"})
    ran = await keyturn("revoke", "--sub", "bob", "--idempotency-key", "case-7")
    assert (ran.status, ran.out) == (1, "not revoked: came with another body before\n")
    assert fake.of("/revocations").headers["Idempotency-Key"] == "case-7"
    assert (await keyturn("revoke", "-", "--idempotency-key", "case-7", stdin=SIGNED)).status == 2


async def test_an_emergency_says_in_words_who_is_exposed_and_until_when(keyturn: Run, fake: FakeOrigin) -> None:
    """Whoever answers for it reads sentences, not field names; with everybody told, only those who pull remain."""
    told = RECEIPT | {"lane": "keys", "kid": "k", "exposure": {"push_until": 1.8e9, "pull_until": 1.8e9 - 600}}
    fake.answer("POST /keys/kid%2Fone/revoke", 200, told)
    ran = await keyturn("keys", "revoke", "kid/one")
    assert ran.status == 0
    assert "could accept this key's tokens until 2027-01-15 08:00:00Z" in ran.out
    assert "until 2027-01-15 07:50:00Z" in ran.out
    ran = await keyturn("keys", "revoke", "kid/one", "--wait", "all")
    assert "every live verifier has adopted" in ran.out
    fake.answer("POST /keys/kid%2Fone/revoke", 202, told | {"laggards": ["sidecar-2"], "adopted": 1})
    ran = await keyturn("keys", "revoke", "kid/one", "--wait", "all")
    assert (ran.status, "(sidecar-2)" in ran.out) == (1, True)


async def test_verifiers_are_listed(keyturn: Run, fake: FakeOrigin) -> None:
    """Who verifies, what each holds, and when it was last heard."""
    fake.answer("GET /verifiers", 200, VERIFIERS)
    assert (await keyturn("verifiers")).out.splitlines()[1].split() == ["sidecar-1", "4", "7", "fresh", "312.5", "ms"]


async def test_status_is_one_table_of_all_parts(keyturn: Run, fake: FakeOrigin) -> None:
    """The first thing to look at, all in one."""
    fake.answer("GET /readyz", 200, {"status": "ready"})
    fake.answer("GET /keys", 200, KEYS)
    fake.answer("GET /verifiers", 200, VERIFIERS)
    fake.answer("GET /state", 200, STATE)
    ran = await keyturn("status")
    assert ran.status == 0
    for words in ("ready", "1 active, 1 published", "1 live", "all fresh", "keys 4, revocations 7, 120.0 ms old"):
        assert words in ran.out
    fake.answer("GET /state", 503, STATE | {"state": "expired"})
    ran = await keyturn("status", "--json")
    assert (ran.status, [part["well"] for part in ran.json["parts"]]) == (1, [True, True, True, False])


async def test_status_says_for_which_use_nothing_can_be_signed(keyturn: Run, fake: FakeOrigin) -> None:
    """Access tokens may be well while no answer can be signed."""
    other = {"kid": "kid-three", "alg": "ES256", "phase": "revoked", "use": "introspection"}
    fake.answer("GET /readyz", 200, {"status": "ready"})
    fake.answer("GET /keys", 200, {"keys": [*KEYS["keys"], other]})
    fake.answer("GET /verifiers", 200, VERIFIERS)
    fake.answer("GET /state", 200, STATE)
    ran = await keyturn("status")
    assert (ran.status, "none active for introspection" in ran.out) == (1, True)


async def test_a_use_is_asked_for_and_shown_alone(keyturn: Run, fake: FakeOrigin) -> None:
    """One who looks for the key of status lists must not rotate that of access tokens."""
    status = {"kid": "kid-three", "alg": "ES256", "phase": "active", "use": "status"}
    fake.answer("GET /keys", 200, {"keys": [*({**key, "use": "access"} for key in KEYS["keys"]), status]})
    told = (await keyturn("keys", "list", "--use", "status", "--json")).json
    assert [key["kid"] for key in told["keys"]] == ["kid-three"]
    fake.answer("POST /keys/rotate", 200, RECEIPT | {"lane": "keys", "kid": "kid-next"})
    await keyturn("keys", "rotate", "--use", "status")
    assert fake.of("/keys/rotate").json == {"use": "status"}
    assert (await keyturn("keys", "rotate", "--use", "sig")).status == 2


async def test_status_names_why_the_issuer_is_not_ready(keyturn: Run, fake: FakeOrigin) -> None:
    """A reason is worth more than a red light."""
    reasons = {"keyservice": "no snapshot of lane keys has been read"}
    fake.answer("GET /readyz", 503, {"status": "unready", "reasons": reasons})
    ran = await keyturn("status")
    assert reasons["keyservice"] in ran.out


async def test_an_origin_that_is_not_there_is_one_line_and_3(keyturn: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stack trace, and the mend."""
    monkeypatch.setenv("KEYTURN_ISSUER", "http://127.0.0.1:1")
    ran = await keyturn("keys", "list")
    assert (ran.status, ran.out) == (3, "")
    assert ran.err == "keyturn: http://127.0.0.1:1 cannot be reached: connection refused; is it running?\n"


async def test_refused_credentials_are_named_and_not_shown(keyturn: Run, fake: FakeOrigin) -> None:
    """Which ones, so that they can be mended; their values never."""
    fake.answer("POST /token", 401, {"error": "invalid_client", "error_description": "no such client"})
    ran = await keyturn("verifiers")
    assert (ran.status, "KEYTURN_ADMIN_SECRET" in ran.err, ran.err.count("\n")) == (3, True, 1)
    assert SECRETS["ADMIN"] not in ran.err


@pytest.mark.parametrize(
    ("status", "word"), [(403, "does not allow"), (503, "cannot answer now"), (500, "500"), (302, "302")]
)
async def test_an_answer_that_is_neither_yes_nor_no_is_3(
    keyturn: Run, fake: FakeOrigin, status: int, word: str
) -> None:
    """A script must not take an outage, or a redirect to a login page, for an answer."""
    fake.answer("GET /keys", status, {"title": "x"}, Location="http://127.0.0.1:1/")
    ran = await keyturn("keys", "list")
    assert (ran.status, word in ran.err, ran.err.count("\n")) == (3, True, 1)


async def test_an_answer_cannot_steer_the_terminal(keyturn: Run, fake: FakeOrigin) -> None:
    """A subject with escape codes in its name must not rewrite what the operator reads."""
    fake.answer("POST /introspect", 200, {"active": True, "sub": "a\x1b[2Jb\r\nactive: root\u202e"})
    out = (await keyturn("introspect", "-", stdin=SIGNED)).out
    assert "a?[2Jb??active: root?" in out
    assert "\x1b" not in out


async def test_tokens_and_secrets_are_in_no_url(keyturn: Run, fake: FakeOrigin) -> None:
    """URLs are logged by everything on the way."""
    fake.answer("POST /revoke", 200)
    fake.answer("POST /introspect", 200, {"active": False})
    fake.answer("GET /nginx/default", 401)
    for command in ("revoke", "introspect", "verify"):
        await keyturn(command, "-", stdin=SIGNED)
    assert not any(SIGNED in one.target or "kt_" in one.target for one in fake.asked)


async def test_a_sidecar_is_asked_over_a_unix_socket_too(
    keyturn: Run, fake: FakeOrigin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That is how a sidecar stands beside an API on a shared machine; one that is gone is 3."""
    fake.answer("GET /nginx/default", 200)
    runner = web.ServerRunner(web.Server(fake.handle))  # type: ignore[arg-type]
    await runner.setup()
    await web.UnixSite(runner, tmp_path / "here.sock").start()
    monkeypatch.setenv("KEYTURN_SIDECAR_URL", f"unix:{tmp_path / 'here.sock'}")
    assert (await keyturn("verify", "-", stdin=SIGNED)).status == 0
    await runner.cleanup()
    monkeypatch.setenv("KEYTURN_SIDECAR_URL", f"unix:{tmp_path / 'none.sock'}")
    ran = await keyturn("verify", "-", stdin=SIGNED)
    assert (ran.status, "cannot be reached" in ran.err) == (3, True)


async def test_init_makes_a_directory_once(run: Run, tmp_path: Path) -> None:
    """Keys are never written over."""
    ran = await run("init", "fresh", "--issuer", "https://id.example", "--verifier", "edge", "--json")
    assert (ran.status, ran.json["verifiers"]) == (0, ["edge"])
    assert (tmp_path / "fresh" / "keyturn.toml").is_file()
    assert (tmp_path / "fresh" / "root" / "private.jwk").stat().st_mode & 0o077 == 0
    ran = await run("init", "fresh")
    assert (ran.status, ran.err.count("\n")) == (2, 1)
    assert "not empty" in ran.err
