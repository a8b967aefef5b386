"""What this authorization server says of itself (RFC 8414): only what is there now."""

from typing import Any
from urllib.parse import urlsplit

from keyturn.contract.statuslists import PATH
from serving.authentication import AUTHENTICATION_METHODS
from serving.clientassertions import SIGNING_ALGORITHMS

WELL_KNOWN = "/.well-known/oauth-authorization-server"
MAX_AGE_SECONDS = 300
GRANT_TYPES = ("client_credentials",)


def metadata(issuer: str, *, status_lists: bool = False) -> dict[str, Any]:
    """Return the metadata document; with `status_lists` it says where all of them are named.

    `response_types_supported` would be empty while there is no authorization endpoint, and a member without elements
    is left out (RFC 8414, 3.2).
    """
    methods, algorithms = list(AUTHENTICATION_METHODS), list(SIGNING_ALGORITHMS)
    return {
        "issuer": issuer,
        "token_endpoint": issuer + "/token",
        "jwks_uri": issuer + "/.well-known/jwks.json",
        "grant_types_supported": list(GRANT_TYPES),
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint": issuer + "/revoke",
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        "introspection_endpoint": issuer + "/introspect",
        "introspection_endpoint_auth_methods_supported": [*methods, "Bearer"],
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
        # draft-ietf-oauth-status-list, 9.1.
        **({"status_list_aggregation_endpoint": issuer + PATH} if status_lists else {}),
    }


def metadata_path(issuer: str) -> str:
    """Return where the document is: the issuer's own path stands behind the well-known part (RFC 8414, 3.1)."""
    return WELL_KNOWN + urlsplit(issuer).path
