"""Clients of three other makers, unmodified, ask about tokens and revoke them by what our metadata says."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
import requests
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.jwk import KeySet
from jwskate import JwkSet, SignedJwt
from requests_oauth2client import OAuth2Client

from tests.interop.node_process import NodeProcess, node_process
from tests.interop.system import System

ANSWER = "application/token-introspection+jwt"


class Maker(ABC):
    """One maker's clients: the client that tokens are issued to, and a resource server that asks about them."""

    @abstractmethod
    async def ask(self, token: str) -> dict[str, Any]:
        """Return what introspection says (RFC 7662)."""

    @abstractmethod
    async def ask_signed(self, token: str) -> dict[str, Any]:
        """Return what the signed answer says (RFC 9701), after its signature was checked by the issuer's key set."""

    @abstractmethod
    async def revoke(self, token: str) -> None:
        """Revoke a token (RFC 7009)."""


class Authlib(Maker):
    """Authlib's asynchronous client; it knows RFC 7009 and RFC 7662, and `joserfc` is its author's JWT library."""

    def __init__(self, system: System, metadata: dict[str, Any], jwks: Any) -> None:
        self._system, self._metadata, self._jwks = system, metadata, KeySet.import_key_set(jwks)

    async def ask(self, token: str) -> dict[str, Any]:
        """Ask for JSON."""
        return dict((await self._asked(token, "application/json")).json())

    async def ask_signed(self, token: str) -> dict[str, Any]:
        """Ask for a JWT, and check it."""
        answer = await self._asked(token, ANSWER)
        assert answer.headers["Content-Type"] == ANSWER
        algorithms = self._metadata["introspection_signing_alg_values_supported"]
        told = jwt.decode(answer.text, self._jwks, algorithms=algorithms)
        issuer, (resource, _) = self._system.issuer, self._system.credentials("RESOURCE")
        jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": issuer}, aud={"essential": True, "value": resource}
        ).validate(told.claims)
        assert told.header["typ"] == "token-introspection+jwt"
        return dict(told.claims["token_introspection"])

    async def revoke(self, token: str) -> None:
        """Revoke as the client."""
        async with AsyncOAuth2Client(*self._system.credentials("CLIENT")) as client:
            answer = await client.revoke_token(self._metadata["revocation_endpoint"], token)
        assert answer.status_code == 200, answer.text

    async def _asked(self, token: str, accept: str) -> Any:
        async with AsyncOAuth2Client(*self._system.credentials("RESOURCE")) as resource:
            endpoint = self._metadata["introspection_endpoint"]
            return await resource.introspect_token(endpoint, token=token, headers={"Accept": accept})


class RequestsOAuth2Client(Maker):
    """requests-oauth2client, with its author's `jwskate` for what is signed."""

    def __init__(self, system: System, metadata: dict[str, Any], jwks: Any) -> None:
        self._issuer, self._jwks, self._metadata = system.issuer, jwks, metadata
        self._client, self._resource = (self._made(system.credentials(role)) for role in ("CLIENT", "RESOURCE"))

    def _made(self, auth: tuple[str, str]) -> OAuth2Client:
        # `testing`: the issuer is http on loopback.
        return OAuth2Client.from_discovery_document(self._metadata, issuer=self._issuer, auth=auth, testing=True)

    async def ask(self, token: str) -> dict[str, Any]:
        """Ask for JSON."""
        return dict(await asyncio.to_thread(self._resource.introspect_token, token))

    async def ask_signed(self, token: str) -> dict[str, Any]:
        """Ask for a JWT, and check it."""
        answer = await asyncio.to_thread(self._asked_signed, token)
        assert answer.headers["Content-Type"] == ANSWER
        told = SignedJwt(answer.text)
        assert told.verify_signature(
            JwkSet(self._jwks), algs=self._metadata["introspection_signing_alg_values_supported"]
        )
        assert (told.issuer, told.audiences, told.typ) == (self._issuer, ["resource"], "token-introspection+jwt")
        return dict(told.claims["token_introspection"])

    async def revoke(self, token: str) -> None:
        """Revoke as the client."""
        assert await asyncio.to_thread(self._client.revoke_access_token, token)

    def _asked_signed(self, token: str) -> requests.Response:
        # Its own method always asks for JSON; how it authenticates goes with `requests` as well.
        return requests.post(
            str(self._resource.introspection_endpoint), data={"token": token}, headers={"Accept": ANSWER},
            auth=self._resource.auth, timeout=10,
        )  # fmt: skip


class Oauth4webapi(Maker):
    """oauth4webapi on Node, which finds issuer, key set and algorithms by itself."""

    def __init__(self, process: NodeProcess) -> None:
        self._process = process

    async def ask(self, token: str) -> dict[str, Any]:
        """Ask for JSON."""
        return dict((await self._process.ask(ask="json", token=token))["told"])

    async def ask_signed(self, token: str) -> dict[str, Any]:
        """Ask for a JWT, and check it."""
        told = await self._process.ask(ask="jwt", token=token)
        assert told["type"] == ANSWER, told
        return dict(told["told"])

    async def revoke(self, token: str) -> None:
        """Revoke as the client."""
        assert await self._process.ask(ask="revoke", token=token) == {"told": 200}


MAKERS = ("authlib", "requests-oauth2client", "oauth4webapi", "oauth4webapi, secret in the form")


@pytest.fixture
async def maker(request: pytest.FixtureRequest, system: System) -> AsyncIterator[Maker]:
    """Return one maker's clients, which have read our metadata and key set."""
    metadata = await system.metadata()
    async with AsyncExitStack() as stack:
        if request.param.startswith("oauth4webapi"):
            named = {
                role.lower(): dict(zip(("id", "secret"), system.credentials(role), strict=True))
                for role in ("CLIENT", "RESOURCE")
            }
            method = "client_secret_post" if "form" in request.param else "client_secret_basic"
            options = {"issuer": system.issuer, "method": method, **named}
            yield Oauth4webapi(await stack.enter_async_context(node_process("tokens.mjs", **options)))
            return
        async with httpx2.AsyncClient() as client:
            jwks = (await client.get(metadata["jwks_uri"])).json()
        yield (Authlib if request.param == "authlib" else RequestsOAuth2Client)(system, metadata, jwks)


@pytest.mark.parametrize("maker", MAKERS, indirect=True)
async def test_each_maker_asks_in_both_forms_revokes_and_hears_of_it(maker: Maker, system: System) -> None:
    """RFC 7662, RFC 9701 and RFC 7009 as others read them: discovered, signed by a published key, and at once."""
    token = await system.new_token()
    told = await maker.ask(token)
    assert told["active"] is True
    assert (told["client_id"], told["iss"]) == (system.credentials("CLIENT")[0], system.issuer)
    assert await maker.ask_signed(token) == told
    await maker.revoke(token)
    assert await maker.ask(token) == {"active": False}
    assert await maker.ask_signed(token) == {"active": False}
    await maker.revoke(token)  # RFC 7009, 2.2: a token that is not good any more is revoked well.


@pytest.mark.parametrize("maker", MAKERS[1:3], indirect=True)
async def test_signed_answers_pass_across_rotations_of_their_keys(maker: Maker, system: System) -> None:
    """A resource server that keeps the key set holds the standby already, so no answer is lost by a rotation."""
    token = await system.new_token()
    assert (await maker.ask_signed(token))["active"] is True
    await system.rotate(use="introspection")
    assert (await maker.ask_signed(token))["active"] is True


async def test_a_resource_server_of_another_audience_hears_nothing(system: System) -> None:
    """Whoever asks with a client's credentials learns by nothing but `active: false` (RFC 7662, 4)."""
    token, metadata = await system.new_token("ADMIN"), await system.metadata()
    async with AsyncOAuth2Client(*system.credentials("RESOURCE")) as resource:
        told = await resource.introspect_token(metadata["introspection_endpoint"], token=token)
    assert told.json() == {"active": False}
