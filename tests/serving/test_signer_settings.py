"""Which way to the signer a service's settings lead, and what is said where there is none."""

from pathlib import Path

import pytest
from aiohttp import ClientSession, web

from keyturn import entropy
from keyturn.clock import SystemClock
from keyturn.contract.encoding import encode_json
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.jwk import ed25519_private_jwk
from keyturn.process.logging import logger
from keyturn.process.values import Listen, Secret
from serving.application import make_application
from serving.listening import listening
from serving.problems import Style
from serving.routing import add_route
from serving.settings import signer_of
from serving.signing import NoSigner, SigningClient

CLOCK = SystemClock()
SOCKET = Listen(path=Path("/run/keyturn/sign.sock"))
IDENTITY = Secret(encode_json(ed25519_private_jwk(entropy.new_statement_key())))


def test_both_settings_lead_to_the_signer_and_none_to_nobody() -> None:
    """Most deployments ask for nothing that is signed, and must run without the socket."""
    both = signer_of("introspection", identity=IDENTITY, signer=SOCKET, clock=CLOCK)
    assert isinstance(both, SigningClient)
    assert isinstance(signer_of("introspection", identity=None, signer=None, clock=CLOCK), NoSigner)


@pytest.mark.parametrize(
    ("identity", "signer", "setting"),
    [
        (IDENTITY, None, r"revocation\.signer:"),
        (None, SOCKET, r"revocation\.identity_file:"),
        (IDENTITY, Listen(host="127.0.0.1", port=1), r"revocation\.signer:"),
        (Secret(b"{}"), SOCKET, r"revocation\.identity_file:"),
    ],
)
def test_half_a_way_is_refused_at_start(identity: Secret | None, signer: Listen | None, setting: str) -> None:
    """House rule 7: the setting that is missing or wrong is named, not found out by the first request."""
    with pytest.raises(ConfigurationError, match=setting):
        signer_of("revocation", identity=identity, signer=signer, clock=CLOCK)


@pytest.mark.parametrize("style", Style)
async def test_what_has_to_be_signed_is_501_where_no_signer_is_set(style: Style) -> None:
    """RFC 9110, 15.6.2: the server lacks the functionality. No retry helps, so it is not a 503; the mend is named."""
    nobody = signer_of("introspection", identity=None, signer=None, clock=CLOCK)

    async def answer(_request: web.Request) -> web.Response:
        async with nobody:
            return web.Response(text=await nobody.sign("token-introspection+jwt", {}))

    app = make_application(logger("test"), clock=CLOCK)
    add_route(app, "GET", "/", answer, style=style, operation={})
    async with (
        listening(app, "127.0.0.1:0") as address,
        ClientSession() as client,
        client.get(f"http://{address}/") as told,
    ):
        assert told.status == 501
        assert "Retry-After" not in told.headers
        assert "introspection.signer and introspection.identity_file are not set" in await told.text()
