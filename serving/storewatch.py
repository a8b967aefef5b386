"""A publisher's eye on its server: refused at start where it cannot be relied on, watched from then on."""

from typing import Final

from redis.exceptions import NoPermissionError

from keyturn.contract.errors import ConfigurationError, StoreUnavailable
from keyturn.feed.assurance import Durability
from keyturn.process.redis import server_facts, store_errors
from keyturn.process.settings import RedisSettings
from keyturn.process.soundness import require_sound, usual_durability
from serving.parts import Parts

STORE_UNSOUND: Final = "store_unsound"
LOOK_SECONDS = 5.0


class StoreWatch:
    """Asks the server about itself at start and every 5 s, so that another one after a failover is looked at, too.

    A server that turns out unsound while we run is alarmed, and named by `unready`: to end here would take away the
    heartbeat from everybody as well.
    """

    def __init__(self, settings: RedisSettings, parts: Parts) -> None:
        """Take what is required of the server from the settings."""
        self._durable, self._parts = settings.durable, parts
        self._trouble: str | None = None
        parts.assurance.required = Durability[settings.require.upper()]

    async def begin(self) -> None:
        """Look for the first time; raises ConfigurationError for an unsound server, StoreUnavailable for none."""
        if self._parts.assurance.required is Durability.REPLICATED:
            await self._require_wait()
        await self.look()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._parts.clock.sleep(LOOK_SECONDS)
            try:
                await self.look()
                trouble = None
            except StoreUnavailable:
                continue  # The follower notes the loss.
            except ConfigurationError as error:
                trouble = str(error)
            if trouble is not None and trouble != self._trouble:
                self._parts.log.error(STORE_UNSOUND, reason=trouble)
            self._trouble = trouble

    def unready(self) -> str | None:
        """Return what is wrong with the server, None if nothing is known to be."""
        return self._trouble

    async def look(self) -> None:
        """Ask the server once, and tell the assurance; raises ConfigurationError or StoreUnavailable."""
        with store_errors(StoreUnavailable):
            facts = await server_facts(self._parts.redis)
        assurance = self._parts.assurance
        assurance.usual, assurance.replicas = usual_durability(facts), bool(facts.replicas)
        require_sound(facts, durable=self._durable, required=assurance.required)

    async def _require_wait(self) -> None:
        """Refuse an access list under which no replica could ever be waited for."""
        try:
            with store_errors(StoreUnavailable):
                await self._parts.redis.execute_command("WAIT", 0, 1)  # type: ignore[no-untyped-call]
        except StoreUnavailable as error:
            if isinstance(error.__cause__, NoPermissionError):
                raise ConfigurationError(
                    "this user of the store may not ask whether a replica holds an event", setting="redis.require",
                    mend="give it +wait and +waitaof in users.acl, as `keyturn init` does now",
                ) from error  # fmt: skip
            raise
