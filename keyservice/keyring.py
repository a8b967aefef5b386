"""The private keys that this process may sign with, opened from the store when they are published."""

from keyservice.sealing import KeySealer, SealedKeyUnreadable
from keyturn.contract.jwk import PrivateKey, public_jwk, thumbprint
from keyturn.contract.keys import Phase, Use
from keyturn.feed.log import Feed
from keyturn.verifier.replica import Replica

_SIGNS = frozenset({Phase.PUBLISHED, Phase.ACTIVE})


class Keyring:
    """Opened private keys by kid; never more than the key set's published and active ones."""

    def __init__(self, sealer: KeySealer, feed: Feed, replica: Replica) -> None:
        self._sealer, self._feed, self._replica = sealer, feed, replica
        self._opened: dict[str, PrivateKey] = {}

    def seal(self, kid: str, use: Use, key: PrivateKey) -> bytes:
        """Seal a new key; it is opened here like any other once it stands in the feed."""
        return self._sealer.seal(kid, use, key)

    def get(self, kid: str) -> PrivateKey | None:
        """Return an opened key."""
        return self._opened.get(kid)

    async def refresh(self) -> list[str]:
        """Open what the key set newly holds, and drop what may not sign any more; return kids that do not open.

        Raises FeedUnavailable if the store cannot say.
        """
        wanted = {key.kid: key for key in self._replica.keys if key.phase in _SIGNS}
        for kid in self._opened.keys() - wanted.keys():
            del self._opened[kid]
        missing = wanted.keys() - self._opened.keys()
        if not missing:
            return []
        boxes, unreadable = await self._feed.sealed_keys(), []
        for kid in missing:
            try:
                private = self._sealer.open(kid, wanted[kid].use, boxes.get(kid, b""))
            except SealedKeyUnreadable:
                unreadable.append(kid)
                continue
            if thumbprint(public_jwk(private.public_key())) == thumbprint(wanted[kid].jwk):
                self._opened[kid] = private
            else:
                unreadable.append(kid)
        return unreadable
