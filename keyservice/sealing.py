"""Private signing keys at rest: wrapped by the key-encryption key, bound to their kid and use."""

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from keyservice.wrapping import KeyWrapper, SealedKeyUnreadable
from keyturn.contract.jwk import PrivateKey
from keyturn.contract.keys import Use


class KeySealer:
    """Seals and opens private keys by a KeyWrapper; raises what that raises."""

    def __init__(self, wrapper: KeyWrapper) -> None:
        self.wrapper = wrapper

    async def seal(self, kid: str, use: Use, key: PrivateKey) -> bytes:
        """Return the sealed form of a key (PKCS #8, wrapped)."""
        raw = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return await self.wrapper.wrap(raw, bound=_bound(kid, use))

    async def open(self, kid: str, use: Use, sealed: bytes) -> PrivateKey:
        """Return the private key; raises SealedKeyUnreadable or WrapperUnavailable."""
        raw = await self.wrapper.unwrap(sealed, bound=_bound(kid, use))
        key = load_der_private_key(raw, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
            raise SealedKeyUnreadable(f"key {kid} is of a type that we do not sign with")
        return key

    async def reseal(self, kid: str, use: Use, sealed: bytes) -> bytes | None:
        """Return the key sealed by the newest KEK, None if it is already."""
        if self.wrapper.kek_of(sealed) == await self.wrapper.current():
            return None
        return await self.seal(kid, use, await self.open(kid, use, sealed))


def _bound(kid: str, use: Use) -> bytes:
    return f"keyturn signing key\0{kid}\0{use}".encode()
