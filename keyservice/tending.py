"""What a key service does after each change and each second: open the keys that may sign, and see to what is due."""

import asyncio
from typing import Final

from structlog.typing import FilteringBoundLogger

from keyservice.keyring import Keyring
from keyservice.rotator import Rotator
from keyturn.contract.errors import FeedUnavailable, WrapperUnavailable
from keyturn.verifier.follower import Follower

KEYS_UNREADABLE: Final = "sealed_keys_unreadable"
KEK_AWAY: Final = "key_wrapper_unavailable"
TEND_SECONDS = 1.0


class Tending:
    """Looks after keyring and rotator until cancelled; orders that wait for reports are among what is due."""

    def __init__(self, keyring: Keyring, rotator: Rotator, follower: Follower, log: FilteringBoundLogger) -> None:
        self._keyring, self._rotator, self._log = keyring, rotator, log
        self._woken = asyncio.Event()
        follower.on_change.append(self._woken.set)

    async def run(self) -> None:
        """Tend until cancelled, through every loss of the store or of the KEK."""
        while True:
            self._woken.clear()  # Before looking: what changes meanwhile is looked at next.
            try:
                if unreadable := await self._keyring.refresh():
                    self._log.error(KEYS_UNREADABLE, kids=unreadable)
                await self._rotator.tick()
            except FeedUnavailable:
                pass  # The follower notes the loss; the lease sees to it that nothing is signed.
            except WrapperUnavailable as error:
                self._log.warning(KEK_AWAY, reason=str(error))
            try:
                async with asyncio.timeout(TEND_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                continue
