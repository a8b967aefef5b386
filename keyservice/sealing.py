"""Private signing keys at rest: sealed by the key-encryption key, bound to their kid and use."""

import json

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from keyturn import entropy
from keyturn.contract.encoding import unb64url
from keyturn.contract.errors import ConfigurationError, MalformedInput, TrustError
from keyturn.contract.jwk import PrivateKey
from keyturn.contract.keys import Use
from keyturn.process.values import Secret

_NONCE_BYTES = 12
_KEY_BYTES = 32
_LONGEST_ID = 64


class SealedKeyUnreadable(TrustError):
    """A sealed key does not open: made under another KEK, moved under another kid, or edited."""

    code = "sealed_key_unreadable"


class KeySealer:
    """Seals and opens private keys (AES-256-GCM; kid and use are the associated data, the KEK's id goes in clear)."""

    def __init__(self, kek_id: str, key: bytes) -> None:
        self.kek_id, self._box = kek_id, AESGCM(key)

    def __repr__(self) -> str:
        """Name the KEK by its id."""
        return f"KeySealer({self.kek_id})"

    @classmethod
    def from_secret(cls, secret: Secret) -> "KeySealer":
        """Read `{"id", "key"}`; raises ConfigurationError."""
        try:
            members = json.loads(secret.reveal())
            kek_id, key = members["id"], unb64url(members["key"])
        except (ValueError, TypeError, KeyError, MalformedInput) as error:
            raise _not_a_kek() from error
        if not isinstance(kek_id, str) or not 0 < len(kek_id) <= _LONGEST_ID or len(key) != _KEY_BYTES:
            raise _not_a_kek()
        return cls(kek_id, key)

    def seal(self, kid: str, use: Use, key: PrivateKey) -> bytes:
        """Return the sealed form: KEK id, NUL, nonce, ciphertext."""
        nonce = entropy.token_bytes(_NONCE_BYTES)
        raw = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return self.kek_id.encode("utf-8") + b"\0" + nonce + self._box.encrypt(nonce, raw, _bound(kid, use))

    def open(self, kid: str, use: Use, sealed: bytes) -> PrivateKey:
        """Return the private key; raises SealedKeyUnreadable."""
        kek_id, _, rest = sealed.partition(b"\0")
        if kek_id.decode("utf-8", "replace") != self.kek_id:
            raise SealedKeyUnreadable(f"key {kid} is sealed by another KEK than {self.kek_id}")
        try:
            raw = self._box.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], _bound(kid, use))
        except (InvalidTag, ValueError) as error:
            raise SealedKeyUnreadable(f"the sealed form of key {kid} does not open") from error
        key = load_der_private_key(raw, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
            raise SealedKeyUnreadable(f"key {kid} is of a type that we do not sign with")
        return key


def _bound(kid: str, use: Use) -> bytes:
    return f"keyturn signing key\0{kid}\0{use}".encode()


def _not_a_kek() -> ConfigurationError:
    return ConfigurationError(
        "this is not a key-encryption key",
        setting="keyservice.kek_file", mend='name the kek.json that `keyturn init` made: {"id", "key": 32 bytes}',
    )  # fmt: skip
