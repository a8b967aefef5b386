"""Looks now and then, and in each new epoch, whether the store holds the sealed private keys that it should."""

from contextlib import suppress
from typing import Final

from structlog.typing import FilteringBoundLogger

from keyservice.keyring import Keyring
from keyturn.clock import Clock
from keyturn.contract.errors import FeedUnavailable, WrapperUnavailable
from keyturn.contract.positions import Lane
from keyturn.verifier.replica import Replica

KEYS_RESTORED: Final = "sealed_keys_restored"
LOOK_SECONDS = 1.0
RESTORE_EVERY_SECONDS = 10.0


class Restoring:
    """Puts sealed keys back that the store has lost, and erases those that a backup has brought back."""

    def __init__(self, keyring: Keyring, replica: Replica, clock: Clock, log: FilteringBoundLogger) -> None:
        self._keyring, self._replica, self._clock, self._log = keyring, replica, clock, log
        self._looked_boottime, self._epoch = float("-inf"), 0

    async def run(self) -> None:
        """Look until cancelled, through every loss of the store or of the KEK."""
        while True:
            with suppress(FeedUnavailable, WrapperUnavailable):  # Noted by those who need them more.
                await self.look()
            await self._clock.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Restore if it is time to, or if the lane has begun another epoch since."""
        now, epoch = self._clock.boottime(), self._replica.place(Lane.KEYS)[0]
        if now - self._looked_boottime < RESTORE_EVERY_SECONDS and epoch == self._epoch:
            return
        put_back, erased = await self._keyring.restore()
        self._looked_boottime, self._epoch = now, epoch
        if put_back or erased:
            self._log.warning(KEYS_RESTORED, put_back=list(put_back), erased=list(erased))
