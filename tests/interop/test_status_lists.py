"""A verifier of another maker, by the guide's own code: PyJWT and a status list, nothing of ours."""

import asyncio
import re
import subprocess
import sys

import httpx2
import jwt
import pytest

from tests.interop.system import ROOT, System

GUIDE = ROOT / "docs/how-to/verify-by-status-list.md"


@pytest.fixture(scope="module")
def code() -> str:
    """Return the program that the guide shows."""
    found = re.search(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert found
    return found[1]


async def told_of(system: System, code: str, token: str) -> str:
    """Return what the program says of a token."""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, system.issuer], input=token, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_who_has_nothing_of_ours_learns_of_revocations(system: System, code: str) -> None:
    """draft-ietf-oauth-status-list-21, 8.3: once RFC 7009 has answered, the bit of that token is set, and no other."""
    tokens = [await system.new_token() for _ in range(2)]
    assert [await told_of(system, code, token) for token in tokens] == ["good", "good"]
    async with httpx2.AsyncClient() as client:
        answer = await client.post(
            f"{system.issuer}/revoke", data={"token": tokens[0]}, auth=system.credentials("CLIENT")
        )
    assert answer.status_code == 200
    assert [await told_of(system, code, token) for token in tokens] == ["revoked", "good"]


async def test_the_metadata_lead_to_every_list(system: System) -> None:
    """Section 9: what the metadata name names lists, and each of them is there, by a key that signs no token."""
    aggregation = (await system.metadata())["status_list_aggregation_endpoint"]
    await system.new_token()
    bearer = {"Authorization": f"Bearer {await system.new_token('ADMIN')}"}
    async with httpx2.AsyncClient() as client:
        named = (await client.get(aggregation)).raise_for_status().json()["status_lists"]
        answers = [await client.get(uri) for uri in named]
        keys = (await client.get(f"{system.issuer}/keys", headers=bearer)).raise_for_status().json()
    assert named
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["content-encoding"] for answer in answers} == {"gzip"}
    kids = {jwt.get_unverified_header(answer.text)["kid"] for answer in answers}
    assert {key["use"] for key in keys["keys"] if key["kid"] in kids} == {"status"}
