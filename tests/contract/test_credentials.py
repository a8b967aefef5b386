"""Opaque credentials: told by their form, never by their looks."""

import pytest

from keyturn import entropy
from keyturn.contract.credentials import (
    CredentialKind,
    credential_kind,
    make_credential,
    secret_hash,
    secret_matches,
)
from keyturn.contract.errors import MalformedInput


@pytest.mark.parametrize("kind", CredentialKind)
def test_a_credential_tells_its_kind_and_a_typing_error(kind: CredentialKind) -> None:
    """The checksum answers before any store is asked."""
    text = make_credential(kind, entropy.token_bytes(32))
    assert credential_kind(text) is kind
    for position in range(len(kind.value), len(text), 5):
        wrong = "A" if text[position] != "A" else "B"
        assert credential_kind(text[:position] + wrong + text[position + 1 :]) is None
    for other in (text + "A", text[:-1], text + "=", " " + text, text.upper(), text[3:], "", kind.value):
        assert credential_kind(other) is None
    (first, *_) = set(CredentialKind) - {kind}
    assert credential_kind(first.value + text[len(kind.value) :]) is None
    with pytest.raises(MalformedInput):
        make_credential(kind, b"short")


@pytest.mark.parametrize("text", ["kt_at_\u00e9", "kt_at_\udcff", "kt_at_" + "A" * 9999, "kt_x_AAAA", "a.b.c", "\x00"])
def test_what_is_no_credential_has_no_kind(text: str) -> None:
    """Whatever a stranger sends."""
    assert credential_kind(text) is None


def test_a_secret_is_known_by_its_hash_only() -> None:
    """The trust document is signed, not secret."""
    secret = make_credential(CredentialKind.CLIENT_SECRET, entropy.token_bytes(32))
    assert secret_matches(secret, secret_hash(secret))
    assert not secret_matches(secret + "A", secret_hash(secret))
    assert not secret_matches("\udcff", secret_hash(secret))
    assert secret not in secret_hash(secret)
