"""A look at the store each second, by a process that can say nothing without it, for `/readyz`."""

from collections.abc import Awaitable, Callable

from keyturn.clock import Clock
from keyturn.contract.errors import FeedUnavailable, StoreUnavailable
from serving.problems import Busy

LOOK_SECONDS = 1.0


class StoreProbe:
    """Asks what each question asks, so that readiness and answers go the same way; nobody has to ask first."""

    def __init__(self, ask: Callable[[], Awaitable[object]], clock: Clock) -> None:
        """Take what to ask, which raises StoreUnavailable, FeedUnavailable or Busy."""
        self._ask, self._clock = ask, clock
        self._trouble: str | None = None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self._ask()
                self._trouble = None
            except (StoreUnavailable, FeedUnavailable, Busy) as error:
                self._trouble = f"the store cannot be asked: {_kind(error)}"
            await self._clock.sleep(LOOK_SECONDS)

    def unready(self) -> str | None:
        """Return why the store could not be asked last time, None if it could."""
        return self._trouble


def _kind(error: Exception) -> str:
    """Return what went wrong without addresses: anybody may ask whether we are ready."""
    return type(error.__cause__ or error).__name__
