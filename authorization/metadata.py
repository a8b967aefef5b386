"""What this authorization server says of itself (RFC 8414): only what is there now."""

from typing import Any
from urllib.parse import urlsplit

from authorization.pkce import METHODS as CHALLENGE_METHODS
from keyturn.contract.keys import Use
from keyturn.contract.purposes import INTROSPECTION_ANSWER
from keyturn.contract.statuslists import PATH
from keyturn.verifier.replica import Replica
from serving.authentication import AUTHENTICATION_METHODS, PUBLIC
from serving.clientassertions import SIGNING_ALGORITHMS

WELL_KNOWN = "/.well-known/oauth-authorization-server"
MAX_AGE_SECONDS = 300
CLIENT_CREDENTIALS = "client_credentials"  # RFC 6749, 4.4.
RESPONSE_TYPES = ("code",)
RESPONSE_MODES = ("query",)
AUTHORIZATION_CODE = "authorization_code"  # RFC 6749, 4.1.
REFRESH_TOKEN = "refresh_token"  # noqa: S105 - a grant type (RFC 6749, 6)
GRANT_TYPES = (CLIENT_CREDENTIALS, AUTHORIZATION_CODE, REFRESH_TOKEN)


def metadata(
    issuer: str, *, status_lists: bool = False, signs_answers: str | None = None, signs_in: bool = False
) -> dict[str, Any]:
    """Return the metadata document; with `status_lists` it says where all of them are named.

    `signs_answers` is the algorithm of introspection answers that are signed, if any is. `signs_in` says whether there
    is an authorization endpoint: without one `response_types_supported` would be empty, and a member without elements
    is left out (RFC 8414, 3.2).
    """
    methods, algorithms = list(AUTHENTICATION_METHODS), list(SIGNING_ALGORITHMS)
    of_clients = [*methods, PUBLIC] if signs_in else methods
    grants = [grant for grant in GRANT_TYPES if signs_in or grant != AUTHORIZATION_CODE]
    signed = {} if signs_answers is None else {"introspection_signing_alg_values_supported": [signs_answers]}
    return {
        "issuer": issuer,
        "token_endpoint": issuer + "/token",
        "jwks_uri": issuer + "/.well-known/jwks.json",
        **(_of_signing_in(issuer) if signs_in else {}),
        "grant_types_supported": grants,
        "token_endpoint_auth_methods_supported": of_clients,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint": issuer + "/revoke",
        "revocation_endpoint_auth_methods_supported": of_clients,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        "introspection_endpoint": issuer + "/introspect",
        "introspection_endpoint_auth_methods_supported": [*methods, "Bearer"],
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
        **signed,  # RFC 9701, 7.
        # draft-ietf-oauth-status-list, 9.1.
        **({"status_list_aggregation_endpoint": issuer + PATH} if status_lists else {}),
    }


def _of_signing_in(issuer: str) -> dict[str, Any]:
    return {
        "authorization_endpoint": issuer + "/authorize",
        "response_types_supported": list(RESPONSE_TYPES),
        "response_modes_supported": list(RESPONSE_MODES),
        "code_challenge_methods_supported": list(CHALLENGE_METHODS),
        "authorization_response_iss_parameter_supported": True,  # RFC 9207, 3.
    }


def algorithm_of_answers(replica: Replica, usual: str) -> str | None:
    """Return the algorithm by which introspection answers are signed now, None if none can be.

    `usual` is what the signer takes unless it is asked for another. There has to be an active key, and the root has to
    let introspection have answers signed.
    """
    identity = replica.trust.document.identities.get("introspection")
    allowed = identity is not None and any(one.typ == INTROSPECTION_ANSWER for one in identity.may_sign)
    return usual if allowed and replica.keys.active(usual, Use.INTROSPECTION) is not None else None


def metadata_path(issuer: str) -> str:
    """Return where the document is: the issuer's own path stands behind the well-known part (RFC 8414, 3.1)."""
    return WELL_KNOWN + urlsplit(issuer).path
