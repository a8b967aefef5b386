"""Security events with programs of other makers: `oidc-provider` logs a user out, and a receiver polls for our own."""

import httpx2
from joserfc import jwt
from joserfc.jwk import KeySet

from revocation.streams.telling import REVOKED, SET_TYPE, TOKEN_REVOKED
from tests.interop.provider import Provider
from tests.interop.system import AUDIENCE, System
from tests.interop.test_provider import check
from tests.waiting import eventually

RECEIVER = "https://receiver.example"


async def test_who_logs_out_at_the_provider_is_out_at_our_sidecar(system: System, provider: Provider) -> None:
    """OpenID Connect Back-Channel Logout 1.0, sent by `oidc-provider`: 200 before, 401 after; others go on."""
    async with httpx2.AsyncClient() as browser, httpx2.AsyncClient() as another:
        signed = await provider.sign_in(browser, "dora", AUDIENCE)
        other = (await provider.sign_in(another, "erin", AUDIENCE))["access_token"]
        assert [(await check(system, one)).status_code for one in (signed["access_token"], other)] == [200, 200]
        await provider.sign_out(browser, signed["id_token"])

        async def out() -> bool:
            return (await check(system, signed["access_token"])).status_code == 401

        await eventually(out)
        assert (await check(system, other)).status_code == 200


async def test_a_receiver_polls_for_what_we_have_revoked(system: System) -> None:
    """RFC 8936 and RFC 8417: signed by a key of our JWKS, for its audience, typed, and without `exp`."""
    async with httpx2.AsyncClient(auth=system.credentials("RESOURCE"), timeout=15) as receiver:
        url = f"{system.issuer}/streams/receiver/poll"
        told = (await receiver.post(url, json={"returnImmediately": True})).json()
        while told["sets"]:
            told = (await receiver.post(url, json={"returnImmediately": True, "ack": list(told["sets"])})).json()
        await system.order("/revocations", {"selector": {"jti": "a-token"}})
        answer = await receiver.post(url, json={})
        assert answer.status_code == 200, answer.text
        ((jti, token),) = answer.json()["sets"].items()
        keys = KeySet.import_key_set((await receiver.get(f"{system.issuer}/.well-known/jwks.json")).json())
        read = jwt.decode(token, keys, algorithms=["ES256"])
        assert read.header["typ"] == SET_TYPE
        claims = read.claims
        assert (claims["iss"], claims["aud"], claims["jti"]) == (system.issuer, RECEIVER, jti)
        assert claims["sub_id"] == {"format": "jwt_id", "iss": system.issuer, "jti": "a-token"}
        assert claims["events"].keys() == {TOKEN_REVOKED, REVOKED}
        assert "exp" not in claims
        done = (await receiver.post(url, json={"returnImmediately": True, "ack": [jti]})).json()
        assert done == {"sets": {}}
