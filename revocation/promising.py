"""Gives revocation's word for how long it keeps what names a grant, and keeps to a longer one that was given."""

from typing import Final

from keyturn import entropy
from keyturn.contract.errors import StoreUnavailable
from revocation.keeping import Keeping
from serving.parts import Parts
from serving.promises import Promise, Promises, renewed

KEPT_LONGER: Final = "grants_kept_longer"
NOT_PROMISED: Final = "grants_not_promised"
PROMISE_SECONDS: Final = 10.0


class Promising:
    """Looks every ten seconds at the word that stands in the store, keeps to it if it is longer, and gives it anew.

    Another replica may have another setting, and this one may have had another before it was started anew: what grants
    went by then is kept for as long as they may live.
    """

    def __init__(self, promises: Promises, keeping: Keeping, parts: Parts, *, own_seconds: float) -> None:
        self._promises, self._keeping, self._parts, self._own_seconds = promises, keeping, parts, own_seconds
        self._given = False

    def unready(self) -> str | None:
        """Return why no grant may be made yet, None once the word was given."""
        return None if self._given else "it has not been said yet for how long revocations of grants are kept"

    async def run(self) -> None:
        """Do so until cancelled; what was given before stands meanwhile where the store fails."""
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                self._parts.log.warning(NOT_PROMISED, reason=str(error))
            await self._parts.clock.sleep(entropy.jitter(PROMISE_SECONDS / 2, PROMISE_SECONDS))

    async def look(self) -> None:
        """Keep to the longer of both words, then give it; raises StoreUnavailable."""
        own = Promise(iss=self._parts.issuer, seconds=self._own_seconds, at=self._parts.now())
        stated = await self._promises.read()
        promise = renewed(own, stated)
        if promise is not own and promise.seconds != self._keeping.grant_seconds:
            self._parts.log.warning(KEPT_LONGER, own_seconds=own.seconds, kept_seconds=promise.seconds)
        self._keeping.grant_seconds = promise.seconds
        if promise is own:
            await self._promises.write(own)
        self._given = True
