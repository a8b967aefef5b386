"""`jose`, the JWT library of most Node services, verifies our tokens by our JWKS."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.interop.node_process import NodeProcess, node_process
from tests.interop.system import AUDIENCE, System


@asynccontextmanager
async def node_service(system: System, **options: Any) -> AsyncIterator[NodeProcess]:
    """Run a Node service that trusts the system's issuer by its metadata, and keeps one key set of `jose`."""
    metadata = await system.metadata()
    asked = {"jwksUri": metadata["jwks_uri"], "issuer": metadata["issuer"], "audience": AUDIENCE, **options}
    async with node_process("verify.mjs", **asked) as process:
        yield process


async def test_tokens_verify_across_rotations(system: System) -> None:
    """A service that pulls our JWKS must lose no request: old tokens stay good, new keys are found."""
    async with node_service(system, cooldownMs=100) as service:
        tokens, kids = [], []
        for _ in range(4):  # More than the standbys that the first fetch brought along.
            tokens.append(await system.new_token())
            told = await service.ask(token=tokens[-1])
            assert told["payload"]["client_id"] == system.credentials("CLIENT")[0]
            assert told["header"]["typ"] == "at+jwt"
            kids.append(told["header"]["kid"])
            next_kid = await system.rotate()
            assert next_kid not in kids
        assert len(set(kids)) == len(kids)
        for token in tokens:
            assert "error" not in await service.ask(token=token)


async def test_two_rotations_pass_within_the_default_cool_down(system: System) -> None:
    """Unless told otherwise jose asks again only after 30 s: the standbys must have been in the set before."""
    async with node_service(system) as service:
        kids = set()
        for _ in range(3):
            told = await service.ask(token=await system.new_token())
            kids.add(told["header"]["kid"])
            if len(kids) < 3:
                await system.rotate()
        assert len(kids) == 3


async def test_a_revoked_keys_successor_is_found(system: System) -> None:
    """After an emergency the new key must verify at once, and it was a standby already."""
    async with node_service(system) as service:
        first = await service.ask(token=await system.new_token())
        await system.revoke_key(first["header"]["kid"])
        second = await service.ask(token=await system.new_token())
        assert second["header"]["kid"] != first["header"]["kid"]


@pytest.mark.parametrize(
    ("part", "code"),
    [("signature", "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"), ("payload", "ERR_JWS_SIGNATURE_VERIFICATION_FAILED")],
)
async def test_a_changed_token_is_refused(system: System, part: str, code: str) -> None:
    """That the check says yes means something only if it can say no."""
    header, payload, signature = (await system.new_token()).split(".")
    if part == "signature":
        signature = signature[:9] + ("A" if signature[9] != "A" else "B") + signature[10:]
    else:
        payload = payload[:9] + ("A" if payload[9] != "A" else "B") + payload[10:]
    async with node_service(system) as service:
        assert await service.ask(token=f"{header}.{payload}.{signature}") == {"error": code}


async def test_a_token_for_another_audience_is_refused(system: System) -> None:
    """Our `aud` must be what jose compares with."""
    async with node_service(system, audience="https://other.example") as service:
        assert await service.ask(token=await system.new_token()) == {"error": "ERR_JWT_CLAIM_VALIDATION_FAILED"}
