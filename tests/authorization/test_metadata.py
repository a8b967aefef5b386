"""RFC 8414: where a client learns the endpoints, true to the byte and never ahead of what is there."""

from aiohttp import ClientSession

from authorization.metadata import metadata, metadata_path
from keyturn.contract.keys import Use
from keyturn.contract.trust import Identity, IdentityKind, MaySign
from tests.building import Standing
from tests.world import new_statement_key


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
        "grant_types_supported": ["client_credentials", "refresh_token"],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint": f"{issuer}/revoke",
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        "introspection_endpoint": f"{issuer}/introspect",
        "introspection_endpoint_auth_methods_supported": [*methods, "Bearer"],
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
    }


async def test_the_algorithm_of_signed_answers_is_told_while_they_can_be_signed(
    session: ClientSession, stage: Standing
) -> None:
    """RFC 9701, 7: a client that reads it asks for a JWT, and must not be sent away with a 503."""
    member, path = "introspection_signing_alg_values_supported", "/.well-known/oauth-authorization-server"
    key = stage.world.new_key(use=Use.INTROSPECTION)
    for changes in ([key], [stage.world.activation(key.kid)]):
        async with session.get(path) as answer:
            assert member not in await answer.json()  # Neither without a key nor by one that does not sign yet.
        await stage.publish(*changes)
    async with session.get(path) as answer:
        assert member not in await answer.json()  # Nor where the root lets nobody have them signed.
    may_sign = (MaySign(typ="token-introspection+jwt", any_audience=True),)
    identity = Identity(kind=IdentityKind.SERVICE, jwk=new_statement_key().public, may_sign=may_sign)
    identities = {**stage.parts.replica.trust.document.identities, "introspection": identity}
    stage.parts.replica.adopt_trust(stage.world.trust(version=2, identities=identities))
    async with session.get(path) as answer:
        assert (await answer.json())[member] == ["ES256"]


def test_no_member_of_the_metadata_is_empty() -> None:
    """RFC 8414, 3.2: a member with zero elements is left out."""
    assert all(metadata("https://issuer.example").values())
    assert all(metadata("https://issuer.example", status_lists=True, signs_answers="ES256", signs_in=True).values())


def test_how_users_sign_in_is_told_where_they_can() -> None:
    """RFC 8414, 2; RFC 7636, 5; RFC 9207, 3: PKCE by S256 alone, `iss` in answers, and clients that prove nothing."""
    told = metadata("https://issuer.example/tenant", signs_in=True)
    plain = metadata("https://issuer.example/tenant")
    assert told["authorization_endpoint"] == "https://issuer.example/tenant/authorize"
    assert (told["response_types_supported"], told["response_modes_supported"]) == (["code"], ["query"])
    assert told["code_challenge_methods_supported"] == ["S256"]
    assert told["authorization_response_iss_parameter_supported"] is True
    for one, public in ((told, True), (plain, False)):
        assert ("authorization_code" in one["grant_types_supported"]) is public
        assert ("none" in one["token_endpoint_auth_methods_supported"]) is public
        assert ("none" in one["revocation_endpoint_auth_methods_supported"]) is public
        assert "none" not in one["introspection_endpoint_auth_methods_supported"]
    assert "authorization_endpoint" not in plain


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
