"""`keyturn keys import`: what leaves the machine, what is refused before it does, and what the answer says."""

import json
from pathlib import Path
from typing import Any

import pytest

from keyturn import entropy
from tests.cli.conftest import FakeOrigin, Run
from tests.cli.test_commands import RECEIPT
from tests.contract.test_weak_keys import KNOWN_ROCA, jwk_of, pem_of, rsa_jwk

KEY = entropy.new_key("ES256")
TOLD = RECEIPT | {"lane": "keys", "kid": "a", "imported": [{"kid": "a", "alg": "ES256", "phase": "retiring"}]}


def written(tmp_path: Path, content: Any, *, mode: int = 0o600) -> str:
    """Write a file of keys; return its path."""
    path = tmp_path / "keys"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(mode)
    return str(path)


async def test_a_private_half_never_leaves_for_a_key_that_only_verifies(
    keyturn: Run, fake: FakeOrigin, tmp_path: Path
) -> None:
    """Hydra exports both halves; the issuer needs the public one."""
    fake.answer("POST /keys/import", 200, TOLD)
    for content in ({"keys": [jwk_of(KEY, private=True, kid="a", x5c=["chain"])]}, pem_of(KEY, private=True).encode()):
        ran = await keyturn("keys", "import", written(tmp_path, content), "--as", "retiring", "--token", "3600")
        assert (ran.status, "retiring" in ran.out) == (0, True)
        sent = fake.of("/keys/import").json
        assert (sent["as"], sent["token"]) == ("retiring", 3600)
        (key,) = sent["keys"]
        assert key.keys() == {"kty", "crv", "x", "y", "kid", "alg"}


async def test_only_the_key_that_is_to_sign_is_sent(keyturn: Run, fake: FakeOrigin, tmp_path: Path) -> None:
    """The other private keys of the set stay where they are."""
    fake.answer("POST /keys/import", 202, TOLD | {"phase": "published"})
    keys = [jwk_of(KEY, private=True, kid="a"), jwk_of(entropy.new_key("ES256"), private=True, kid="b")]
    ran = await keyturn("keys", "import", written(tmp_path, {"keys": keys}), "--as", "active", "--kid", "b")
    assert [key["kid"] for key in fake.of("/keys/import").json["keys"]] == ["b"]
    assert (ran.status, "as soon as the barrier lets it" in ran.out) == (1, True)


async def test_a_private_key_that_lies_open_is_refused_and_a_public_one_is_not(
    keyturn: Run, fake: FakeOrigin, tmp_path: Path
) -> None:
    """Whoever else read it can sign; the operator must hear of it."""
    fake.answer("POST /keys/import", 200, TOLD)
    for content in ({"keys": [jwk_of(KEY, private=True, kid="a")]}, pem_of(KEY, private=True).encode()):
        ran = await keyturn("keys", "import", written(tmp_path, content, mode=0o644), "--as", "active")
        assert (ran.status, "chmod 600" in ran.err, fake.asked) == (2, True, [])
    path = written(tmp_path, jwk_of(KEY, kid="a"), mode=0o644)
    assert (await keyturn("keys", "import", path, "--as", "retiring")).status == 0


async def test_a_weak_key_is_refused_here_and_nothing_is_asked(keyturn: Run, fake: FakeOrigin, tmp_path: Path) -> None:
    """No is 1, in one line, and in JSON too."""
    path = written(tmp_path, {"keys": [rsa_jwk(KNOWN_ROCA)]})
    ran = await keyturn("keys", "import", path, "--as", "retiring")
    assert (ran.status, ran.out.count("\n"), fake.asked) == (1, 1, [])
    assert "ROCA" in ran.out
    assert "ROCA" in (await keyturn("keys", "import", path, "--as", "retiring", "--json")).json["refused"]


async def test_the_issuers_own_refusal_is_told(keyturn: Run, fake: FakeOrigin, tmp_path: Path) -> None:
    """It knows what was revoked."""
    fake.answer("POST /keys/import", 400, {"title": "Bad Request", "detail": "key a was revoked here"})
    ran = await keyturn("keys", "import", written(tmp_path, jwk_of(KEY, kid="a")), "--as", "retiring")
    assert (ran.status, ran.out) == (1, "not imported: key a was revoked here\n")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "neither JSON nor PEM"),
        (b"\x30\x82\x01\xff", "write a DER key as PEM"),
        (b"[]", "no JWK set"),
        (b'{"keys": [1]}', "list of JWKs"),
        (b'{"keys": [{"kty":"EC","kty":"RSA"}]}', "twice"),
        (b"x" * 60_000, "larger than"),
    ],
)
async def test_a_file_that_holds_no_keys_is_wrong_usage(
    keyturn: Run, fake: FakeOrigin, tmp_path: Path, content: bytes, named: str
) -> None:
    """One line that says what to bring."""
    ran = await keyturn("keys", "import", written(tmp_path, content), "--as", "retiring")
    assert (ran.status, named in ran.err, ran.err.count("\n"), fake.asked) == (2, True, 1, [])
