"""Remembers which credentials held, without remembering them: by a hash under a key that this process has made."""

import hmac
from collections import OrderedDict
from hashlib import sha256
from typing import Final, Generic, TypeVar

from keyturn import entropy
from keyturn.contract.trust import Trust

MOST_KNOWN: Final = 4096
_KEY_BYTES: Final = 32
Known = TypeVar("Known")


class KnownCallers(Generic[Known]):
    """Callers by what they presented, under one trust document; a bounded number."""

    def __init__(self) -> None:
        self._key = entropy.token_bytes(_KEY_BYTES)
        self._trust: Trust | None = None
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def __len__(self) -> int:
        """Count them."""
        return len(self._known)

    def get(self, presented: bytes, trust: Trust) -> Known | None:
        """Return who presented these bytes before, under this very trust document."""
        if trust is not self._trust:
            self._trust = trust
            self._known.clear()
        return self._known.get(hmac.digest(self._key, presented, sha256))

    def keep(self, presented: bytes, trust: Trust, caller: Known) -> None:
        """Remember a caller whose proof held under this trust document."""
        if trust is not self._trust:
            return
        if len(self._known) >= MOST_KNOWN:
            self._known.popitem(last=False)
        self._known[hmac.digest(self._key, presented, sha256)] = caller
