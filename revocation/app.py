"""The revocation service as a whole: routes, the lane's writer and heartbeat, and the watch over adoption."""

import asyncio
from pathlib import Path

from aiohttp import web

from keyturn.contract.errors import ConfigurationError, FeedUnavailable, TrustError
from keyturn.contract.inequalities import leeway_lasts
from keyturn.contract.positions import Lane
from keyturn.contract.trust import Trust
from keyturn.feed.presence import PresenceWatch
from keyturn.feed.publisher import Publisher, bootstrap
from keyturn.feed.recovery import Recovery
from keyturn.process.grants import LONGEST_GRANT_SECONDS, GrantSettings
from keyturn.process.issuers import read_issuers
from keyturn.process.pinned import statement_key
from keyturn.process.rolekeys import RoleKeyFile
from keyturn.process.rotation import RotationSettings
from keyturn.process.settings import RedisSettings, Settings
from revocation.bulk import BulkRoutes
from revocation.ending import GrantEnder
from revocation.keeping import Keeping
from revocation.orders import OrderBook
from revocation.promising import Promising
from revocation.receiving.routes import ReceivingRoutes
from revocation.receiving.senders import Senders
from revocation.routes import RevocationRoutes
from revocation.settings import RevocationSettings
from revocation.statuslists import StatusLists
from revocation.statusroutes import StatusListRoutes
from revocation.streams.letters import PURPOSE as DEAD_LETTERS
from revocation.streams.routes import StreamRoutes
from revocation.streams.settings import read_streams
from revocation.streams.streams import Streams
from revocation.writer import RevocationWriter
from serving.archiving import archive_of
from serving.parts import Parts
from serving.records import RecordStore
from serving.settings import StatusListSettings, record_store, sealer, signer_of
from serving.settings import endings as endings_of
from serving.settings import families as families_of
from serving.settings import listings as listings_of
from serving.settings import promises as promises_of
from serving.storewatch import StoreWatch

NOT_BEGUN = "lane_not_begun"
BEGUN = "lane_begun"
_ROLE_KEY = "revocation.role_key_file"
LISTS_OUTLAST_SECONDS = 60.0  # A status list is served for so long after its last token, but for the skew.
_LOOK_AGAIN_SECONDS = 0.25


class RevocationService:
    """The only voice of the revocations lane."""

    name = "revocation"

    def __init__(self, settings: Settings, parts: Parts) -> None:
        own, rotation = settings.section(RevocationSettings), settings.section(RotationSettings)
        self._parts, self._may_begin = parts, own.bootstrap
        self._store = StoreWatch(settings.section(RedisSettings), parts)
        self._signer = signer_of(self.name, identity=own.identity, signer=own.signer, clock=parts.clock)
        self._genesis = _read_genesis(own.genesis_file)
        key = statement_key(own.role_key, setting=_ROLE_KEY)
        replica, freshness = parts.replica, parts.replica.freshness
        archive = archive_of(settings, parts)
        self._streams = Streams(
            read_streams(settings), parts, signer=self._signer, sealer=sealer(settings, purpose=DEAD_LETTERS)
        )
        self._publisher = Publisher(
            Lane.REVOCATIONS, key, parts.feed, replica, parts.clock, archive=archive, keep=parts.keep,
            needed=self._streams.need,
        )  # fmt: skip
        self._role_key = RoleKeyFile(
            self._publisher, own.role_key, parts.clock, setting=_ROLE_KEY, note=parts.log.warning
        )
        parts.follower.publishes.add(Lane.REVOCATIONS)
        self._recovery = Recovery(
            self._publisher, parts.feed, replica, parts.clock, read_anew=parts.follower.read_anew,
            genesis=own.genesis_file.read_bytes, note=parts.log.warning,
        )  # fmt: skip
        book = OrderBook(parts.feed, replica)
        parts.follower.on_change.append(book.look)
        self._writer = RevocationWriter(self._publisher, parts.follower.catch_up, parts.clock, book=book)
        self._watch = PresenceWatch(
            parts.feed, self._trust, parts.clock,
            live_seconds=freshness.expired_after_seconds + freshness.skew_seconds,
            durable=settings.section(RedisSettings).durable, hash_at=replica.hash_at,
        )  # fmt: skip
        records = record_store(settings, parts.redis, parts.clock)
        self._stream_routes = StreamRoutes(self._streams, parts, records=records)
        self._lists = self._status_lists(settings, records)
        issuers = read_issuers(settings, own=parts.issuer)
        _require_leeway(own.leeway, parts.skew_seconds)
        keeping = Keeping(  # All grants' names are kept for long until `Promising` knows for how long it has to be.
            longest_token_seconds=rotation.token, grant_seconds=LONGEST_GRANT_SECONDS,
            skew_seconds=parts.skew_seconds, leeway_seconds=rotation.lease + own.leeway,
            others={one.url: one for one in issuers.values()},
        )  # fmt: skip
        self._promising = Promising(
            promises_of(settings, parts.redis), keeping, parts, own_seconds=settings.section(GrantSettings).life
        )
        self._ender = GrantEnder(endings_of(settings, parts.redis), self._writer, keeping, parts)
        self._senders = Senders(issuers, parts)
        self._receiving_routes = ReceivingRoutes(parts, self._senders, writer=self._writer, keeping=keeping)
        self._routes = RevocationRoutes(
            parts,
            records=records,
            families=families_of(settings, parts.redis),
            writer=self._writer,
            book=book,
            watch=self._watch,
            keeping=keeping,
            status_lists=self._lists is not None,
        )
        self._bulk_routes = BulkRoutes(
            parts, records=records, writer=self._writer, watch=self._watch, keeping=keeping,
            count=self._routes.count_listed,
        )  # fmt: skip

    def add_routes(self, app: web.Application) -> None:
        """Add the service's routes."""
        self._routes.add_routes(app)
        self._bulk_routes.add_routes(app)
        self._stream_routes.add_routes(app)
        StatusListRoutes(self._parts, self._lists).add_routes(app)
        self._receiving_routes.add_routes(app)

    def _status_lists(self, settings: Settings, records: RecordStore) -> StatusLists | None:
        own, parts = settings.section(StatusListSettings), self._parts
        if not own.enabled:
            return None
        expired_seconds = parts.replica.freshness.expired_after_seconds
        if own.ttl > expired_seconds:
            raise ConfigurationError(
                f"lists would run out ({expired_seconds:g} s, freshness.expired) before they may be asked for again",
                setting="statuslists.ttl", mend="make it shorter than freshness.expired",
            )  # fmt: skip
        return StatusLists(
            parts, listings=listings_of(settings, parts.redis), records=records, signer=self._signer,
            ttl_seconds=own.ttl, token_seconds=settings.section(RotationSettings).token,
            keep_seconds=2 * parts.skew_seconds + LISTS_OUTLAST_SECONDS,
        )  # fmt: skip

    def unready(self) -> str | None:
        """Return why a revocation could not be accepted or vouched for now."""
        replica = self._parts.replica
        if replica.trust.version and replica.position(Lane.REVOCATIONS) is None and not self._may_begin:
            return "lane revocations has not begun: set revocation.bootstrap for the very first start"
        if (reason := self._parts.unready()) is not None:
            return reason
        if not self._publisher.is_trusted():
            return "the trust document does not give this key the role revocations"
        silence = self._parts.clock.boottime() - self._publisher.confirmed_boottime
        if silence >= replica.freshness.stale_after_seconds:
            return "the store has not accepted a heartbeat for too long"
        return self._store.unready() or self._promising.unready()

    async def run(self) -> None:
        """Begin the lane if told to, then beat and watch until cancelled."""
        await self._store.begin()
        while not await self._begun():
            await self._parts.clock.sleep(_LOOK_AGAIN_SECONDS)
        try:
            async with self._signer, asyncio.TaskGroup() as group:
                group.create_task(self._publisher.run(self._parts.follower.catch_up, self._recovery.mend))
                group.create_task(self._watch.run())
                group.create_task(self._store.run())
                group.create_task(self._role_key.run())
                group.create_task(self._streams.run())
                group.create_task(self._senders.run())
                group.create_task(self._promising.run())
                group.create_task(self._ender.run())
                if self._lists is not None:
                    group.create_task(self._lists.run())
        finally:
            await self._writer.close()

    async def _begun(self) -> bool:
        """Say whether the lane stands in our replica; begin it if it never began and we may."""
        parts = self._parts
        if parts.replica.position(Lane.REVOCATIONS) is not None:
            return True
        if parts.replica.trust.version == 0 or not self._publisher.is_trusted():
            return False
        try:
            await self._recovery.mend()  # The root may have dropped what the store holds.
            if self._may_begin and await bootstrap(parts.feed, self._genesis, parts.replica.trust, Lane.REVOCATIONS):
                self._watch.lane_began()
                parts.log.info(BEGUN, lane=Lane.REVOCATIONS.value)
            await parts.follower.catch_up()
        except FeedUnavailable as error:
            parts.log.warning(NOT_BEGUN, reason=str(error))
        except TrustError as error:
            raise ConfigurationError(
                f"the genesis of lane revocations is not to be believed: {error}",
                setting="revocation.genesis_file",
                mend="name the genesis/revocations.jws that `keyturn init` made",
            ) from error
        return parts.replica.position(Lane.REVOCATIONS) is not None

    def _trust(self) -> Trust:
        return self._parts.replica.trust


def _require_leeway(leeway_seconds: float, skew_seconds: float) -> None:
    lasts = leeway_lasts(leeway_seconds=leeway_seconds, skew_seconds=skew_seconds)
    if not lasts.holds:
        raise ConfigurationError(lasts.breach, setting="revocation.leeway", mend=lasts.mend)


def _read_genesis(path: Path) -> bytes:
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read: {error.strerror}",
            setting="revocation.genesis_file",
            mend="name the genesis/revocations.jws that `keyturn init` made",
        ) from error
