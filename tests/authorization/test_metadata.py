"""RFC 8414: where a client learns the endpoints, true to the byte and never ahead of what is there."""

from aiohttp import ClientSession

from authorization.metadata import metadata, metadata_path
from tests.building import Standing


async def test_the_metadata_says_what_is_there_now(session: ClientSession, stage: Standing) -> None:
    """Checklist: issuer byte for byte, no empty arrays, no `none`; response_types would be empty (RFC 8414, 3.2)."""
    async with session.get("/.well-known/oauth-authorization-server") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert answer.headers["Cache-Control"] == "public, max-age=300"
        content = await answer.json()
    issuer, methods = stage.world.issuer, ["client_secret_basic", "client_secret_post", "private_key_jwt"]
    algorithms = ["ES256", "ES384", "RS256", "PS256", "EdDSA"]  # To be told where assertions are taken (RFC 8414, 2).
    assert content == {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint": f"{issuer}/revoke",
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        "introspection_endpoint": f"{issuer}/introspect",
        "introspection_endpoint_auth_methods_supported": [*methods, "Bearer"],
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
    }


def test_no_member_of_the_metadata_is_empty() -> None:
    """RFC 8414, 3.2: a member with zero elements is left out."""
    assert all(metadata("https://issuer.example").values())
    assert all(metadata("https://issuer.example", status_lists=True).values())


def test_the_metadata_say_where_the_status_lists_are() -> None:
    """draft-ietf-oauth-status-list-21, 9.1; only where there are some."""
    told = metadata("https://issuer.example/tenant", status_lists=True)
    assert told["status_list_aggregation_endpoint"] == "https://issuer.example/tenant/statuslists"


def test_an_issuer_with_a_path_has_it_behind_the_well_known_part() -> None:
    """RFC 8414, 3.1: inserted between host and path, not appended."""
    assert metadata_path("https://host.example/tenant/1") == "/.well-known/oauth-authorization-server/tenant/1"
    assert metadata("https://host.example/tenant/1")["issuer"] == "https://host.example/tenant/1"


async def test_the_service_describes_its_routes(session: ClientSession) -> None:
    """`/openapi.json` is what tools and people read first."""
    async with session.get("/openapi.json") as answer:
        paths = (await answer.json())["paths"]
    schema = paths["/token"]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    assert schema["required"] == ["grant_type"]
    assert "get" in paths["/.well-known/oauth-authorization-server"]
