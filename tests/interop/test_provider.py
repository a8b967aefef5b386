"""`oidc-provider`, as people have it already: its tokens pass our sidecar, and die by our revocations."""

from typing import Any

import httpx2

from keyturn.clock import SystemClock
from tests.interop.provider import Provider
from tests.interop.system import AUDIENCE, System


async def check(system: System, token: str) -> httpx2.Response:
    """Ask the sidecar as nginx does."""
    async with httpx2.AsyncClient() as client:
        bearer = {"Authorization": f"Bearer {token}"}
        return await client.get(f"{system.env['KEYTURN_SIDECAR_URL']}/nginx/default", headers=bearer)


async def revoke(system: System, **selector: Any) -> dict[str, Any]:
    """Revoke, and wait until the sidecar has adopted it."""
    return await system.order("/revocations", {"selector": selector})


async def test_a_user_of_another_provider_is_let_in_out_and_in_again(system: System, provider: Provider) -> None:
    """RFC 9068 tokens by discovery (RFC 8414): 200; the push ends them at once; a sign-in a second later works."""
    async with httpx2.AsyncClient() as browser, httpx2.AsyncClient() as another:
        token = (await provider.sign_in(browser, "alice", AUDIENCE))["access_token"]
        bob = (await provider.sign_in(another, "bob", AUDIENCE))["access_token"]
        passed = await check(system, token)
        shown = {name: passed.headers[f"X-Auth-{name}"] for name in ("Subject", "Client", "Scope", "Issuer")}
        assert passed.status_code == 200
        assert shown == {"Subject": "alice", "Client": "shop", "Scope": "read", "Issuer": provider.issuer}
        receipt = await revoke(system, iss=provider.issuer, sub="alice")
        assert (receipt["adopted"], receipt["laggards"]) == (1, [])
        assert [(await check(system, one)).status_code for one in (token, bob)] == [401, 200]
        clock = SystemClock()
        await clock.sleep(1 - clock.now() % 1 + 0.01)  # Their `iat` has whole seconds.
        again = (await provider.sign_in(browser, "alice", AUDIENCE))["access_token"]
        assert [(await check(system, one)).status_code for one in (again, token)] == [200, 401]


async def test_a_single_token_of_another_provider_can_be_revoked(system: System, provider: Provider) -> None:
    """By the `jti` that it carries."""
    tokens = [await provider.client_token(AUDIENCE) for _ in range(2)]
    asked = {"token": tokens[0]}
    async with httpx2.AsyncClient() as client:
        told = (await client.post(f"{system.env['KEYTURN_SIDECAR_URL']}/introspect", data=asked)).json()
        assert (told["active"], told["iss"]) == (True, provider.issuer)
        await revoke(system, iss=provider.issuer, jti=told["jti"])
        assert (await client.post(f"{system.env['KEYTURN_SIDECAR_URL']}/introspect", data=asked)).json() == {
            "active": False
        }
    assert [(await check(system, one)).status_code for one in tokens] == [401, 200]


async def test_what_else_the_provider_signs_is_no_access_token(system: System, provider: Provider) -> None:
    """An ID token by the same key, and a token for another API."""
    async with httpx2.AsyncClient() as browser:
        signed = await provider.sign_in(browser, "carol", "https://other.example")
    assert [(await check(system, signed[name])).status_code for name in ("id_token", "access_token")] == [401, 401]
