"""Authlib, unmodified: an OAuth client that gets, checks and revokes tokens by what our metadata says."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2.rfc6749.requests import OAuth2Request
from authlib.oauth2.rfc6750.errors import InvalidTokenError
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc.jwk import KeySet

from tests.interop.system import AUDIENCE, System


class Validator(JWTBearerTokenValidator):  # type: ignore[misc]  # Authlib ships no types.
    """A resource server by Authlib's own rules for RFC 9068."""

    def __init__(self, metadata: dict[str, Any], jwks: Any, audience: str = AUDIENCE) -> None:
        super().__init__(issuer=metadata["issuer"], resource_server=audience)
        self._jwks = KeySet.import_key_set(jwks)

    def get_jwks(self) -> KeySet:
        """Return the issuer's public keys."""
        return self._jwks


@pytest.fixture
async def metadata(system: System) -> dict[str, Any]:
    """Return the metadata from where RFC 8414 says that it is."""
    async with httpx2.AsyncClient() as client:
        answer = await client.get(get_well_known_url(system.issuer, external=True))
    assert answer.headers["Content-Type"].startswith("application/json")
    return dict(answer.json())


@pytest.fixture
async def jwks(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the key set that the metadata names."""
    async with httpx2.AsyncClient() as client:
        return dict((await client.get(metadata["jwks_uri"])).json())


@pytest.fixture
async def client(system: System, request: pytest.FixtureRequest) -> AsyncIterator[AsyncOAuth2Client]:
    """Return Authlib's client with the confidential client's credentials."""
    method = getattr(request, "param", "client_secret_basic")
    client_id, secret = system.credentials("CLIENT")
    async with AsyncOAuth2Client(client_id, secret, token_endpoint_auth_method=method, scope="read") as client:
        yield client


def test_the_metadata_is_what_rfc_8414_asks_for(metadata: dict[str, Any], system: System) -> None:
    """A client library that reads a wrong document finds no endpoint, or refuses the issuer."""
    assert metadata["issuer"] == system.issuer
    assert all(metadata.values()), "a list without elements must be left out (RFC 8414, 3.2)"
    # Authlib wants https, as everywhere but on loopback, and a response type even where no grant has one.
    told = json.loads(json.dumps(metadata).replace("http://", "https://"))
    AuthorizationServerMetadata({"response_types_supported": ["code"]} | told).validate()


@pytest.mark.parametrize("client", ["client_secret_basic", "client_secret_post"], indirect=True)
async def test_it_gets_a_token_that_passes_the_sidecar(
    client: AsyncOAuth2Client, metadata: dict[str, Any], system: System
) -> None:
    """Each way of authenticating that the metadata names works with a client that we did not write."""
    assert client.token_endpoint_auth_method in metadata["token_endpoint_auth_methods_supported"]
    token = await client.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    assert token["token_type"] == "Bearer"
    assert token["scope"] == "read"
    assert not token.is_expired()
    answer = await client.get(f"{system.env['KEYTURN_SIDECAR_URL']}/nginx/default")
    assert answer.status_code == 200
    assert answer.headers["X-Auth-Scope"] == "read"


async def test_its_resource_server_accepts_our_token(
    client: AsyncOAuth2Client, metadata: dict[str, Any], jwks: dict[str, Any]
) -> None:
    """Authlib's validator of RFC 9068 asks for each claim that the RFC requires."""
    token = await client.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    claims = Validator(metadata, jwks).authenticate_token(token["access_token"])
    Validator(metadata, jwks).validate_token(claims, ["read"], OAuth2Request("GET", AUDIENCE))
    assert claims["sub"] == claims["client_id"] == client.client_id


async def test_its_resource_server_refuses_another_audience(
    client: AsyncOAuth2Client, metadata: dict[str, Any], jwks: dict[str, Any]
) -> None:
    """Otherwise one API could replay at another what it was shown."""
    token = await client.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    other = Validator(metadata, jwks, "https://other.example")
    claims = other.authenticate_token(token["access_token"])
    with pytest.raises(InvalidTokenError):
        other.validate_token(claims, [], OAuth2Request("GET", AUDIENCE))


async def test_it_revokes_and_the_resource_server_hears_of_it(
    client: AsyncOAuth2Client, metadata: dict[str, Any], system: System
) -> None:
    """RFC 7009 and RFC 7662 as Authlib speaks them."""
    token = await client.fetch_token(metadata["token_endpoint"], grant_type="client_credentials")
    async with AsyncOAuth2Client(*system.credentials("RESOURCE")) as resource:
        told = await asked(resource, metadata, token["access_token"])
        assert told["active"] is True
        revoked = await client.revoke_token(metadata["revocation_endpoint"], token["access_token"])
        assert revoked.status_code == 200
        assert await asked(resource, metadata, token["access_token"]) == {"active": False}


async def asked(resource: AsyncOAuth2Client, metadata: dict[str, Any], token: str) -> dict[str, Any]:
    """Return the introspection endpoint's answer."""
    answer = await resource.introspect_token(metadata["introspection_endpoint"], token=token)
    return dict(answer.json())


@pytest.mark.parametrize(
    ("changed", "code"),
    [({"scope": "read keyturn:admin"}, "invalid_scope"), ({"grant_type": "password"}, "unsupported_grant_type")],
)
async def test_it_understands_our_refusals(
    client: AsyncOAuth2Client, metadata: dict[str, Any], changed: dict[str, str], code: str
) -> None:
    """An error that a client library cannot read is a crash in somebody's service."""
    with pytest.raises(OAuthError) as refused:
        await client.fetch_token(metadata["token_endpoint"], **({"grant_type": "client_credentials"} | changed))
    assert refused.value.error == code
