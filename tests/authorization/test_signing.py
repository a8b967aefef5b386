"""The way to the signer: whatever happens there, a caller hears `signer_unavailable`, or gets its own token."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from authorization.app import AuthorizationService
from keyturn.clock import SystemClock
from keyturn.contract.encoding import encode_json
from keyturn.contract.envelope import StatementKey
from keyturn.contract.errors import ConfigurationError, SignerUnavailable, SigningRefused
from keyturn.contract.tokens import parse_token
from serving.listening import listening
from serving.signing import MOST_TOGETHER, SigningClient
from tests.authorization.signer import FakeSigner, unsigned
from tests.building import Standing, write_secret
from tests.world import new_statement_key


@pytest.fixture
async def client(identity: Any, tmp_path: Path) -> AsyncIterator[SigningClient]:
    """Open a client of the signer."""
    socket = tmp_path / "run" / "sign.sock"
    async with SigningClient(socket, StatementKey(identity), SystemClock(), service="authorization") as one:
        yield one


async def test_a_token_comes_back_signed(client: SigningClient, signer: FakeSigner) -> None:
    """The assertion is accepted, and what was asked for is what is signed."""
    token = await client.sign("at+jwt", unsigned(sub="alice"))
    assert parse_token(token.encode()).claims["sub"] == "alice"


@pytest.mark.parametrize("status", [401, 404, 500, 503])
async def test_a_signer_that_cannot_is_unavailable(client: SigningClient, signer: FakeSigner, status: int) -> None:
    """Whatever its trouble is, the client of /token comes back later."""
    signer.status = status
    with pytest.raises(SignerUnavailable):
        await client.sign("at+jwt", unsigned())


async def test_what_the_root_does_not_allow_is_refused(client: SigningClient, signer: FakeSigner) -> None:
    """Another typ than the identity may have signed: no retry helps."""
    with pytest.raises(SigningRefused):
        await client.sign("secevent+jwt", unsigned())


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{}", b'{"tokens":[]}', b'{"tokens":["a","b"]}', b'{"tokens":[7]}', b"\xff"]
)
async def test_an_answer_that_is_not_what_was_asked_for_is_no_token(
    client: SigningClient, signer: FakeSigner, answer: bytes
) -> None:
    """Nothing of it reaches a client."""
    signer.answer = answer
    with pytest.raises(SignerUnavailable):
        await client.sign("at+jwt", unsigned())


async def test_a_signer_that_is_away_or_restarts_is_found_again(
    client: SigningClient, stage: Standing, tmp_path: Path
) -> None:
    """A deploy of the key service costs at most a retry: connections that it closed are replaced."""
    with pytest.raises(SignerUnavailable):
        await client.sign("at+jwt", unsigned())
    for _ in range(2):
        async with listening(FakeSigner(stage).application(), f"unix:{tmp_path}/run/sign.sock"):
            for _ in range(2):
                assert await client.sign("at+jwt", unsigned())


async def test_a_configuration_that_cannot_work_names_setting_and_mend(stage: Standing, tmp_path: Path) -> None:
    """House rule 7: refused at start, in one line."""
    write_secret(tmp_path / "other.jwk", "[]")
    write_secret(tmp_path / "public.jwk", encode_json(new_statement_key().public).decode())
    for own, setting in (
        ({"identity_file": "other.jwk", "signer": "unix:/run/x.sock"}, r"authorization\.identity_file"),
        ({"identity_file": "public.jwk", "signer": "unix:/run/x.sock"}, r"authorization\.identity_file"),
        ({"identity_file": "other.jwk", "signer": "127.0.0.1:1"}, r"authorization\.signer"),
        ({"identity_file": "other.jwk"}, r"authorization\.signer"),
    ):
        with pytest.raises(ConfigurationError, match=setting):
            AuthorizationService(stage.settings(tmp_path, authorization=own), stage.parts)
    signing = {"identity_file": "other.jwk", "signer": "unix:/run/x.sock"}
    for lives in ({"access_token": "6m"}, {"refresh_token": "31d"}):  # Longer than T, than a grant.
        settings = stage.settings(tmp_path, authorization={**signing, **lives})
        with pytest.raises(ConfigurationError, match=r"rotation\.token|grants\.life"):
            AuthorizationService(settings, stage.parts)


async def test_what_is_too_large_for_one_request_goes_in_several(client: SigningClient, signer: FakeSigner) -> None:
    """Many sign-ins with large claims at once must not fail for being together."""
    large = ["x" * 5000 + str(number) for number in range(MOST_TOGETHER)]
    tokens = await asyncio.gather(*(client.sign("at+jwt", unsigned(sub=sub)) for sub in large))
    assert [parse_token(token.encode()).claims["sub"] for token in tokens] == large
    assert sum(signer.batches) == MOST_TOGETHER
    assert len(signer.batches) > 2  # 1.3 MB in requests of at most 512 KiB.


async def test_an_identity_that_the_root_no_longer_names_makes_the_service_unready(
    stage: Standing, session: ClientSession
) -> None:
    """Nothing would be signed for it; whoever balances the load must hear that."""
    async with session.get("/readyz") as answer:
        assert answer.status == 200
    stage.parts.replica.adopt_trust(stage.world.trust(version=2, identities={}))
    async with session.get("/readyz") as answer:
        assert (answer.status, "names no service authorization" in await answer.text()) == (503, True)
