"""Private keys at rest: only the right KEK opens them, only under their own name."""

import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from keyservice.sealing import KeySealer, SealedKeyUnreadable
from keyturn import entropy
from keyturn.contract.encoding import b64url
from keyturn.contract.errors import ConfigurationError
from keyturn.contract.jwk import PrivateKey
from keyturn.contract.keys import Use
from keyturn.process.values import Secret

SEALER = KeySealer("kek-1", bytes(32))


def raw(key: PrivateKey) -> bytes:
    """Return a private key's bytes."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize("alg", ["ES256", "ES384", "RS256", "EdDSA"])
def test_a_sealed_key_opens_to_the_same_key(alg: str) -> None:
    """What is sealed is not lost."""
    key = entropy.new_key(alg)
    sealed = SEALER.seal("kid", Use.ACCESS, key)
    assert raw(SEALER.open("kid", Use.ACCESS, sealed)) == raw(key)
    assert raw(key) not in sealed


def test_a_sealed_key_does_not_open_under_another_name_use_or_kek_nor_changed() -> None:
    """Who writes the store must not be able to move a key to where it signs something else."""
    sealed = SEALER.seal("kid", Use.ACCESS, entropy.new_key("ES256"))
    for sealer, kid, use, box in (
        (SEALER, "other", Use.ACCESS, sealed),
        (SEALER, "kid", Use.STATUS, sealed),
        (KeySealer("kek-2", bytes(32)), "kid", Use.ACCESS, sealed),
        (KeySealer("kek-1", bytes(31) + b"\1"), "kid", Use.ACCESS, sealed),
        (SEALER, "kid", Use.ACCESS, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (SEALER, "kid", Use.ACCESS, b""),
        (SEALER, "kid", Use.ACCESS, b"kek-1\0"),
    ):
        with pytest.raises(SealedKeyUnreadable):
            sealer.open(kid, use, box)


def test_sealing_twice_gives_two_boxes() -> None:
    """A nonce that repeats breaks GCM."""
    key = entropy.new_key("ES256")
    assert SEALER.seal("kid", Use.ACCESS, key) != SEALER.seal("kid", Use.ACCESS, key)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"id": "k", "key": "AAAA"}', b'{"id": "", "key": "x"}', b'{"id": 1, "key": "AAAA"}'],
)
def test_a_file_that_holds_no_kek_is_refused_by_name(content: bytes) -> None:
    """A missing or broken KEK must stop the start, naming the setting."""
    with pytest.raises(ConfigurationError, match=r"keyservice\.kek_file"):
        KeySealer.from_secret(Secret(content))


def test_a_kek_file_is_read() -> None:
    """The very form that `keyturn init` writes."""
    made = KeySealer.from_secret(Secret(json.dumps({"id": "k1", "key": b64url(bytes(32))}).encode()))
    assert made.kek_id == "k1"
    assert "0000" not in repr(made)
