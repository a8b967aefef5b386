"""Randomness that a seed decides, in the place of the system's: for one run of the simulated world."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keyturn import entropy
from keyturn.contract import jwk, roots
from keyturn.verifier import replica
from tests.rotation.dice import Dice


class _Source:
    """Stands where entropy.py has `secrets` and `random`."""

    def __init__(self, seed: int) -> None:
        self._dice = Dice(f"{seed}/entropy")

    def token_bytes(self, count: int) -> bytes:
        return b"".join(self._dice.below(1 << 64).to_bytes(8, "big") for _ in range(-(-count // 8)))[:count]

    def randbits(self, bits: int) -> int:
        return int.from_bytes(self.token_bytes(-(-bits // 8)), "big") >> (-bits % 8)

    def uniform(self, low: float, high: float) -> float:
        return self._dice.between(low, high)

    def new_key(self, alg: str) -> Ed25519PrivateKey:
        """Make an Ed25519 key, whose signatures are the same each time."""
        assert alg == "EdDSA", "ECDSA throws for each signature, where no seed reaches"
        return self.new_statement_key()

    def new_statement_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.token_bytes(32))


class _Remembering(Ed25519PublicKey):
    """A public key that checks each signature once, however many simulated processes ask."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        self._held: set[bytes] = set()

    def verify(self, signature: Any, data: Any) -> None:
        """Raise InvalidSignature unless it holds; only those that hold are remembered."""
        seen = sha256(signature + data).digest()
        if seen not in self._held:
            self._key.verify(signature, data)
            self._held.add(seen)

    def public_bytes(self, encoding: Any, format: Any) -> bytes:  # noqa: A002 - the name is the interface's
        return self._key.public_bytes(encoding, format)

    def public_bytes_raw(self) -> bytes:
        return self._key.public_bytes_raw()

    def __eq__(self, other: object) -> bool:
        return self._key == other

    def __hash__(self) -> int:
        return hash(self._key.public_bytes_raw())

    def __copy__(self) -> "_Remembering":
        return self

    def __deepcopy__(self, _memo: object) -> "_Remembering":
        return self


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let entropy.py draw from a seed, and remember which signatures hold."""
    source = _Source(seed)

    @lru_cache(maxsize=256)
    def remembering(raw: bytes) -> _Remembering:
        return _Remembering(Ed25519PublicKey.from_public_bytes(raw))

    def load(members: Any, alg: str) -> Any:
        key = jwk.load_public(members, alg)
        return remembering(key.public_bytes_raw()) if isinstance(key, Ed25519PublicKey) else key

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entropy, "secrets", source)
        patch.setattr(entropy, "random", source)
        patch.setattr(entropy, "new_key", source.new_key)
        patch.setattr(entropy, "new_statement_key", source.new_statement_key)
        patch.setattr(roots, "load_public", load)
        patch.setattr(replica, "load_public", load)
        yield
