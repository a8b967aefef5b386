"""Seals what leaves a service and comes back to it: by keys of one purpose each, made from the record keys."""

import hmac
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyturn import entropy
from keyturn.contract.encoding import b64url
from serving.records import RecordKeys, Renew

_NONCE_BYTES: Final = 12


class Sealer:
    """AES-256-GCM under a key of its own purpose: what was sealed for one is nothing for another.

    Seals by the newest of the record keys and opens by any; `renew` returns others once there are some.
    """

    def __init__(self, keys: RecordKeys, *, purpose: bytes, renew: Renew = lambda: None) -> None:
        self._purpose, self._renew = purpose, renew
        self._use(keys)

    def seal(self, content: bytes, *, beside: bytes = b"") -> bytes:
        """Return a box of this content, which opens beside the same bytes only."""
        self.look_for_keys()
        nonce = entropy.token_bytes(_NONCE_BYTES)
        return nonce + self._seals[0].encrypt(nonce, content, beside)

    def open(self, box: bytes, *, beside: bytes = b"") -> bytes | None:
        """Return the content of a box; None for what we have not sealed for this purpose, beside these bytes."""
        content = self._opened(box, beside)
        if content is None and self.look_for_keys():  # Another process has taken up newer ones before us.
            content = self._opened(box, beside)
        return content

    def names(self, prefix: str, secret: bytes) -> tuple[str, ...]:
        """Return the names under which something may stand that is found by a secret, that of the newest keys first."""
        return tuple(prefix + b64url(hmac.digest(pepper, secret, sha256)) for pepper in self._peppers)

    def look_for_keys(self) -> bool:
        """Take up other keys if there are any; say so."""
        keys = self._renew()
        if keys is not None:
            self._use(keys)
        return keys is not None

    def _opened(self, box: bytes, beside: bytes) -> bytes | None:
        for seal in self._seals:
            try:
                return seal.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], beside)
            except (InvalidTag, ValueError):
                continue
        return None

    def _use(self, keys: RecordKeys) -> None:
        every = (keys, *keys.older)
        self._seals = [AESGCM(self._derived(seal)) for seal in dict.fromkeys(one.seal for one in every)]
        self._peppers = [self._derived(pepper) for pepper in dict.fromkeys(one.pepper for one in every)]

    def _derived(self, key: bytes) -> bytes:
        return hmac.digest(key, self._purpose, sha256)
