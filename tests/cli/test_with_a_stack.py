"""The commands against a whole running system, while tokens are signed and verified all the time."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keyturn import entropy
from keyturn.cli.environment import Environment, Role
from keyturn.cli.kekfile import KekFile
from keyturn.cli.origin import bearer, get_token, origin
from keyturn.clock import SystemClock
from keyturn.contract.encoding import b64url, encode_json
from keyturn.contract.jwk import ALGORITHMS
from tests.cli.conftest import Run
from tests.contract.test_weak_keys import jwk_of, pem_of
from tests.stack.upping import Place, up
from tests.waiting import eventually

AUDIENCE = "https://api.example"


@dataclass
class Traffic:
    """Gets a token and shows it to a sidecar, over and over; remembers every answer that was not 200."""

    environment: Environment
    good: int = 0
    bad: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Go on until cancelled."""
        credentials = self.environment.credentials(Role.CLIENT)
        async with origin(self.environment.issuer) as issuer, origin(self.environment.sidecar) as sidecar:
            while True:
                try:
                    told = await get_token(issuer, credentials, token_format="jwt")
                    token = bearer(told["access_token"])
                    await sidecar.ask("GET", "/nginx/default", authorization=token, accept=(200,))
                    self.good += 1
                except Exception as error:
                    self.bad.append(str(error))


@asynccontextmanager
async def traffic(place: Place) -> AsyncIterator[Traffic]:
    """Run traffic for as long as the block lasts."""
    going = Traffic(Environment.read(place.directory / "dev.env", variables={}))
    task = asyncio.create_task(going.run())
    try:
        await eventually(lambda: going.good > 0 or bool(going.bad), within_seconds=10)
        yield going
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Run a stack."""
    chosen = Place.under(tmp_path / "keyturn")
    async with up(chosen):
        yield chosen


def foreign_token(place: Place, key: entropy.PrivateKey, kid: str, alg: str) -> str:
    """Sign an access token as the issuer did that came before ours under this name."""
    now = SystemClock().now()
    claims = {
        "iss": place.env["KEYTURN_ISSUER"], "sub": "alice", "client_id": "shop", "aud": AUDIENCE, "scope": "read",
        "iat": int(now), "exp": int(now) + 60, "jti": entropy.uuid7(now), "grant_id": entropy.uuid7(now),
    }  # fmt: skip
    header = {"alg": alg, "kid": kid, "typ": "at+jwt"}
    signing_input = f"{b64url(encode_json(header))}.{b64url(encode_json(claims))}"
    return f"{signing_input}.{b64url(ALGORITHMS[alg].sign(signing_input.encode(), key))}"


def write_private(path: Path, text: str) -> str:
    """Write a file that only its owner may read; return its path."""
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


async def test_the_kek_is_rotated_and_the_old_one_dropped_while_tokens_are_signed(
    run: Run, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token fails, and after the old KEK has gone every key still opens: also for the worker's next ones."""
    monkeypatch.setattr("keyturn.cli.kek.SETTLE_SECONDS", 0.2)
    env, file = ["--env", str(place.directory / "dev.env")], place.directory / "kek.json"
    (old,) = KekFile(file).read()
    async with traffic(place) as going:
        ran = await run(
            "kek", "rotate", "--config", str(place.directory / "keyturn.toml"), "--drop-old", "--json", *env
        )
        assert ran.status == 0, ran.err
        assert (ran.json["dropped"], ran.json["left"]) == ([old["id"]], [])
        assert ran.json["resealed"] >= 6, "two algorithms, each with an active key and two standbys"
        (new,) = KekFile(file).read()
        assert new["id"] == ran.json["kek"] != old["id"]
        for alg in ("ES256", "RS256"):
            assert (await run("keys", "rotate", "--alg", alg, "--wait", "all", *env)).status == 0
        before = going.good
        await eventually(lambda: going.good > before + 5 or bool(going.bad), within_seconds=10)
        again = await run("kek", "rotate", "--file", str(file), "--json", *env)
        assert (again.status, again.json["left"]) == (0, [])
    assert going.bad == []


async def test_keys_of_another_issuer_verify_and_one_signs_on_while_tokens_are_signed(
    run: Run, place: Place, tmp_path: Path
) -> None:
    """A migration in two commands: what is out stays good, and the old key signs the next tokens."""
    env = ["--env", str(place.directory / "dev.env")]
    retired, signing = entropy.new_key("RS256"), entropy.new_key("ES256")
    token = foreign_token(place, retired, "public:hydra/1", "RS256")
    assert (await run("verify", "-", *env, stdin=token)).status == 1
    public = tmp_path / "jwks.json"
    jwks = {"keys": [jwk_of(retired, kid="public:hydra/1", alg="RS256", use="sig"),
                     jwk_of(entropy.new_key("RS256"), kid="enc", alg="RSA-OAEP", use="enc")]}  # fmt: skip
    write_private(public, encode_json(jwks).decode())
    async with traffic(place) as going:
        ran = await run("keys", "import", str(public), "--as", "retiring", "--token", "600", "--wait", "all", *env)
        assert ran.status == 0, ran.out + ran.err
        assert "left out, for encryption: enc" in ran.out
        assert (await run("verify", "-", *env, stdin=token)).status == 0
        private = write_private(tmp_path / "signing.pem", pem_of(signing, private=True))
        ran = await run("keys", "import", private, "--as", "active", "--kid", "old/key", "--wait", "all", *env)
        assert ran.status == 0, ran.out + ran.err
        listed = (await run("keys", "list", "--json", *env)).json["keys"]
        phases = {key["kid"]: key["phase"] for key in listed}
        assert (phases["public:hydra/1"], phases["old/key"]) == ("retiring", "active")
        minted = (await run("token", "get", "--format", "jwt", *env)).out
        assert "old/key" in (await run("token", "inspect", "-", *env[:0], stdin=minted)).out
        assert (await run("verify", "-", *env, stdin=minted)).status == 0
        ran = await run("lint", "--config", os.devnull, "--json", *env)
        assert ran.json["begins_with"] == "the issuer's keys"
        assert {"public:hydra/1", "old/key"} <= {one["kid"] for one in ran.json["keys"]}
        before = going.good
        await eventually(lambda: going.good > before + 5 or bool(going.bad), within_seconds=10)
    assert going.bad == []
    ran = await run("keys", "revoke", "old/key", "--wait", "all", *env)
    assert (ran.status, "exposed" in ran.out) == (0, True), ran.out + ran.err
    assert (await run("verify", "-", *env, stdin=minted)).status == 1
