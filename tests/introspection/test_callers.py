"""Who may ask: a client that may introspect, by a proof of its own or by a token (RFC 7662, 2.1 and 4)."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import ClientSession

from keyturn import entropy
from keyturn.contract.selectors import SelectorKind
from serving.failures import OF_ADDRESS
from tests.building import CLIENT, RESOURCE, SECRETS, FickleRedis, Standing, basic, new_access_token
from tests.introspection.conftest import Answer
from tests.introspection.test_introspect import INACTIVE

AskBy = Callable[..., Awaitable[Answer]]


@pytest.fixture
def ask_by(session: ClientSession) -> AskBy:
    """Return a function that asks about a token, or tokens, by a bearer token."""

    async def one(bearer: str | bytes, token: Any, *, accept: str = "*/*", **form: str) -> Answer:
        text = bearer.decode() if isinstance(bearer, bytes) else bearer
        headers = {"Authorization": f"Bearer {text}", "Accept": accept}
        path, sent = "/introspect", {"data": {"token": token, **form}}
        if isinstance(token, list):
            path, sent = "/introspect/batch", {"json": {"tokens": token}}
        async with session.post(path, headers=headers, **sent) as answer:  # type: ignore[arg-type]
            return Answer(answer.status, await answer.read(), dict(answer.headers))

    return one


def caller_claims(stage: Standing, **changes: Any) -> dict[str, Any]:
    """Return the claims of a token by which `resource` may introspect."""
    ours = {"client_id": RESOURCE, "sub": RESOURCE, "aud": stage.world.issuer, "scope": "introspection"}
    return stage.world.claims(**(ours | changes))


async def test_a_resource_server_asks_by_a_token_of_its_own(ask_by: AskBy, stage: Standing) -> None:
    """RFC 7662, 2.1: opaque or JWT; it learns what it would learn by its secret, in each form and in batches."""
    asked = stage.world.mint().decode()
    for claims in (
        caller_claims(stage),
        caller_claims(stage, scope="read introspection", aud=["x", stage.world.issuer]),
    ):
        for bearer in (stage.world.mint(**claims), await stage.put_opaque(**claims)):
            answer = await ask_by(bearer, asked)
            assert json.loads(answer.body)["sub"] == "alice"
            assert json.loads((await ask_by(bearer, [asked, "x"])).body)["results"][1] == {"active": False}
            assert (await ask_by(bearer, asked, accept="application/jwt")).body.decode() == asked
            assert (await ask_by(bearer, stage.world.mint(aud="https://other.example").decode())).body == INACTIVE


async def bad_bearers(stage: Standing) -> dict[str, tuple[str, str]]:
    """Return tokens that do not let anybody ask, and the RFC 6750 error for each."""
    now, jti = int(stage.world.clock.now()), entropy.uuid7(3)
    changes: dict[str, dict[str, Any]] = {
        "expired": {"iat": now - 900, "exp": now - 600},
        "not yet valid": {"nbf": now + 600},
        "for an API": {"aud": "https://api.example"},
        "of a client that may not introspect": {"client_id": CLIENT},
        "of a client that is gone": {"client_id": "gone"},
        "bound to a key that nobody proves here": {"cnf": {"jkt": "x"}},
        "revoked": {"jti": jti},
        "without the scope": {"scope": "read"},
        "without any scope": {"scope": None},
        "with a scope that begins like it": {"scope": "introspection:read"},
    }
    bearers = {"unknown": (new_access_token(), "invalid_token"), "nonsense": ("nonsense", "invalid_token")}
    bearers["oversized"] = "x" * 8100, "invalid_token"
    for name, changed in changes.items():
        error = "insufficient_scope" if "scope" in name else "invalid_token"
        claims = caller_claims(stage, **changed)
        bearers[f"JWT {name}"] = stage.world.mint(**claims).decode(), error
        bearers[f"opaque {name}"] = await stage.put_opaque(**claims), error
    await stage.revoke(stage.world.entry(SelectorKind.JTI, jti))
    return bearers


async def test_a_token_that_is_not_good_for_it_lets_nobody_ask(
    ask_by: AskBy, stage: Standing, slept: list[float]
) -> None:
    """RFC 7662, 2.3: 401 as RFC 6750 has it, for too little scope, too; what was asked about makes no difference."""
    for name, (bearer, error) in (await bad_bearers(stage)).items():
        for asked in (stage.world.mint().decode(), "nonsense", [stage.world.mint().decode()]):
            answer = await ask_by(bearer, asked)
            assert (answer.status, json.loads(answer.body)["error"]) == (401, error), name
            assert f'error="{error}"' in answer.headers["WWW-Authenticate"]
            assert ('scope="introspection"' in answer.headers["WWW-Authenticate"]) == (error == "insufficient_scope")
            assert answer.headers["Cache-Control"] == "no-store"
    assert slept  # There were so many.


@pytest.mark.parametrize(
    "proof", [b"Bearer kt_\xff", b"Bearer \xed\xa0\x80.x.y", b"Basic \xff", b"\xff", b"Bearer", b"Bearer  "]
)
async def test_a_proof_of_bytes_that_are_no_text_is_a_proof_of_nothing(session: ClientSession, proof: bytes) -> None:
    """RFC 9110, 5.5: what is not ASCII there is opaque, and comes as it is; 401, never a stack trace."""
    base = session._base_url
    assert base is not None
    reader, writer = await asyncio.open_connection(base.host, base.port)
    head = b"POST /introspect HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: %b\r\n" % proof
    writer.write(head + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\ntoken=x")
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 401 "), answer


async def test_a_token_does_not_authorise_its_own_introspection(ask_by: AskBy, stage: Standing, ask: Any) -> None:
    """Checklist (2), RFC 7662, 2.1: nor among others, nor as the JWT that stands for it."""
    claims = caller_claims(stage)
    opaque = await stage.put_opaque(**claims)
    for bearer in (stage.world.mint(**claims).decode(), opaque):
        for asked in (bearer, [stage.world.mint().decode(), bearer]):
            answer = await ask_by(bearer, asked)
            assert (answer.status, json.loads(answer.body)["error"]) == (401, "invalid_token")
    wide = caller_claims(stage, aud=[stage.world.issuer, "https://api.example"])
    opaque = await stage.put_opaque(**wide)
    phantom = (await ask(opaque, accept="application/jwt")).body
    assert json.loads((await ask(phantom)).body)["jti"] == wide["jti"]
    assert (await ask_by(opaque, phantom.decode())).status == 401
    assert (await ask_by(phantom, opaque)).status == 401


async def test_one_way_only(session: ClientSession, stage: Standing) -> None:
    """RFC 6749, 2.3: a token beside a secret, an assertion or a second header."""
    bearer = {"Authorization": f"Bearer {await stage.put_opaque(**caller_claims(stage))}"}
    twice = [("Authorization", bearer["Authorization"]), ("Authorization", basic(RESOURCE)["Authorization"])]
    for headers, form in (
        (bearer, {"client_secret": "x"}),
        (bearer, {"client_assertion": "x"}),
        (bearer, {"client_assertion_type": "x"}),
        (bearer, {"client_id": CLIENT}),
        (twice, {}),
    ):
        async with session.post("/introspect", data={"token": "x", **form}, headers=headers) as answer:
            assert answer.status == 400
    async with session.post("/introspect", data={"token": "x", "client_id": RESOURCE}, headers=bearer) as answer:
        assert (answer.status, await answer.read()) == (200, INACTIVE)


async def test_without_the_store_a_bearer_is_neither_good_nor_bad(
    ask_by: AskBy, stage: Standing, store: FickleRedis
) -> None:
    """503, and no 401 that would make a client throw its token away."""
    bearers = [stage.world.mint(**caller_claims(stage)), await stage.put_opaque(**caller_claims(stage))]
    store.away = True
    for bearer in bearers:
        answer = await ask_by(bearer, "x")
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


async def test_a_revoked_bearer_is_refused_from_then_on(ask_by: AskBy, stage: Standing) -> None:
    """This replica hears nothing by itself: the position that is read with the token tells it."""
    claims = caller_claims(stage)
    bearer = stage.world.mint(**claims)
    assert (await ask_by(bearer, "x")).body == INACTIVE
    await stage.revoke(stage.world.entry(SelectorKind.JTI, claims["jti"]), elsewhere=True)
    assert (await ask_by(bearer, "x")).status == 401


async def test_a_guesser_is_slowed_and_the_real_client_is_not(
    session: ClientSession, stage: Standing, slept: list[float]
) -> None:
    """Same client, same address: whoever has the secret is let in at once, whatever others try."""
    later = 0
    for number in range(int(OF_ADDRESS.burst) + 10):
        async with session.post(
            "/introspect", data={"token": "x"}, headers=basic(RESOURCE, f"guess-{number}")
        ) as answer:
            assert (answer.status, (await answer.json())["error"]) == (401, "invalid_client")  # RFC 6749, 5.2.
            assert "WWW-Authenticate" in answer.headers
            later += answer.headers.get("Retry-After") == "1"
        async with session.post("/introspect", data={"token": "x"}, headers=basic(RESOURCE)) as answer:
            assert (answer.status, await answer.read()) == (200, INACTIVE)
    assert later == len(slept) == 10


async def test_what_a_client_presents_stays_out_of_answers_and_logs(
    session: ClientSession, capsys: pytest.CaptureFixture[str], stage: Standing
) -> None:
    """Nothing secret in a log or an error, however it is presented."""
    marked = "kt_cs_MARKED-secret"
    sent: list[tuple[dict[str, str], dict[str, str]]] = [
        (basic(RESOURCE, marked), {}),
        ({"Authorization": "Basic " + b64encode(marked.encode()).decode()}, {}),
        ({"Authorization": f"Bearer {marked}"}, {}),
        ({}, {"client_id": RESOURCE, "client_secret": marked}),
        ({}, {"client_assertion": f"{marked}.x.y", "client_assertion_type": marked}),
        (basic(RESOURCE), {"client_assertion": marked}),
        ({"Accept": marked, **basic(RESOURCE)}, {"token": marked}),
    ]
    for headers, form in sent:
        async with session.post("/introspect", data={"token": "x", **form}, headers=headers) as answer:
            assert "MARKED" not in await answer.text() + str(answer.headers)
    written = "".join(capsys.readouterr())
    assert "/introspect" in written
    assert "MARKED" not in written
    assert SECRETS[RESOURCE] not in written
