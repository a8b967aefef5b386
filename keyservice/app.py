"""The key service as a whole: routes, signing listener, heartbeat, and the care of what is due."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

from keyservice.mirror import SnapshotRoutes
from keyservice.parts import RotationParts
from keyservice.readings import export_rotation
from keyservice.restoring import Restoring
from keyservice.routes import KeyRoutes
from keyservice.settings import KeyserviceSettings
from keyservice.signer import Signer
from keyservice.signing import LARGEST_BODY_BYTES, SigningEndpoint
from keyservice.tending import Tending
from keyservice.trustkeeping import TrustKeeper
from keyturn.contract.errors import ConfigurationError, FeedUnavailable
from keyturn.contract.positions import Lane
from keyturn.feed.publisher import bootstrap
from keyturn.process.settings import RedisSettings, Settings
from serving.application import make_application
from serving.listening import listening
from serving.parts import Parts
from serving.settings import record_store
from serving.storewatch import StoreWatch

LANE_NOT_BEGUN = "lane_not_begun"
_LOOK_AGAIN_SECONDS = 0.25


class KeyService:
    """Publishes the key set, signs for the others, and carries out orders; the worker sees to the schedule."""

    name = "keyservice"

    def __init__(self, settings: Settings, parts: Parts) -> None:
        self._own, self._parts = settings.section(KeyserviceSettings), parts
        self._store = StoreWatch(settings.section(RedisSettings), parts)
        self._rotation = RotationParts.make(
            settings, parts, files=parts.keeper.files if parts.keeper is not None else None
        )
        self._signer = Signer(
            self._rotation.keyring, parts.replica, self._rotation.publisher, self._rotation.policies, parts.clock
        )
        self._routes = KeyRoutes(parts, self._rotation, record_store(settings, parts.redis, parts.clock))
        export_rotation(parts.metrics, self._rotation, parts.replica, parts.clock)
        self._tending = Tending(self._rotation.keyring, self._rotation.rotator, parts.follower, parts.log)
        self._restoring = Restoring(self._rotation.keyring, parts.replica, parts.clock, parts.log)
        self._keeper = TrustKeeper(self._own.trust_document, parts)

    def add_routes(self, app: web.Application) -> None:
        """Add the public listener's routes."""
        self._routes.add_routes(app)
        SnapshotRoutes(self._parts.feed, self._parts.clock).add_routes(app)

    def unready(self) -> str | None:
        """Return why keys cannot be published or used truthfully now."""
        if self._parts.replica.trust.version and not self._rotation.publisher.is_trusted():
            return "the trust document does not give this key the role keys"
        return self._store.unready() or self._signer.unready()

    async def run(self) -> None:
        """Begin the lane if told to, then beat, watch, sign and tend until cancelled."""
        await self._begin()
        signing = make_application(self._parts.log, clock=self._parts.clock, largest_body_bytes=LARGEST_BODY_BYTES)
        SigningEndpoint(self._signer, self._parts.replica, self._parts.clock).add_routes(signing)
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            group.create_task(self._rotation.publisher.run(self._parts.follower.catch_up, self._rotation.recovery.mend))
            group.create_task(self._rotation.watch.run())
            group.create_task(self._store.run())
            group.create_task(self._keeper.run())
            group.create_task(self._tending.run())
            group.create_task(self._rotation.role_key.run())
            group.create_task(self._restoring.run())
            if self._own.signing_listen is not None:
                listen, setting = str(self._own.signing_listen), "keyservice.signing_listen"
                await stack.enter_async_context(listening(signing, listen, setting=setting))

    async def _begin(self) -> None:
        """Put the trust document in the store, and the lane's genesis if the lane never began and we may."""
        feed, replica = self._parts.feed, self._parts.replica
        await self._store.begin()
        await self._keeper.begin()
        if await feed.top(Lane.KEYS) is None and replica.position(Lane.KEYS) is None:
            if not self._own.bootstrap:
                raise ConfigurationError(
                    "the store has no keys lane",
                    setting="keyservice.bootstrap",
                    mend="set it for the very first start; if there was a lane, restore the store instead",
                )
            genesis = _read(self._own.genesis_file, "keyservice.genesis_file")
            if await bootstrap(feed, genesis, replica.trust, Lane.KEYS):
                self._rotation.watch.lane_began()
        await self._until_begun()

    async def _until_begun(self) -> None:
        """Wait for the lane; where the root has dropped what the store holds of it, begin it as the root has signed."""
        parts = self._parts
        while parts.replica.position(Lane.KEYS) is None:
            try:
                await self._rotation.recovery.mend()
                await parts.follower.catch_up()
            except FeedUnavailable as error:
                parts.log.warning(LANE_NOT_BEGUN, reason=str(error))
            if parts.replica.position(Lane.KEYS) is None:
                await parts.clock.sleep(_LOOK_AGAIN_SECONDS)


def _read(path: Path, setting: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}", setting=setting, mend="name a file that this process can read"
        ) from error
