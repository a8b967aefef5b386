"""A publisher goes on with the role key that its file holds now: no restart when a role changes hands."""

from collections.abc import Callable
from typing import Any, Final

from keyturn.clock import Clock
from keyturn.contract.errors import ConfigurationError
from keyturn.feed.publisher import Publisher
from keyturn.process.pinned import statement_key
from keyturn.process.values import Secret, Unfit

LOOK_SECONDS = 2.0
ROLE_KEY_TAKEN: Final = "role_key_taken"
ROLE_KEY_UNREADABLE: Final = "role_key_unreadable"


class RoleKeyFile:
    """Looks at the file every two seconds; a publisher takes its key once the trust document gives it the role."""

    def __init__(
        self, publisher: Publisher, secret: Secret, clock: Clock, *, setting: str, note: Callable[..., Any]
    ) -> None:
        self._publisher, self._secret, self._clock = publisher, secret, clock
        self._setting, self._note, self._said = setting, note, ""

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Take what the file holds; what is no key, or cannot be read, changes nothing and is noted once."""
        lane = self._publisher.lane
        try:
            key = statement_key(self._secret.again(), setting=self._setting)
        except (Unfit, ConfigurationError) as error:
            if str(error) != self._said:
                self._said = str(error)
                self._note(ROLE_KEY_UNREADABLE, lane=lane, reason=self._said)
            return
        self._said = ""
        if self._publisher.use(key):
            self._note(ROLE_KEY_TAKEN, lane=lane, kid=key.kid)
