"""The sidecar: a replica of the feed, and the routes by which gateways and libraries beside it ask."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol

import uvloop

from keyturn.clock import Clock, SystemClock
from keyturn.feed.log import Feed, PresenceBoard
from keyturn.process.belonging import until_ours
from keyturn.process.expiry import export_expiry, watch_expiry
from keyturn.process.feeding import FeedSettings
from keyturn.process.following import StoreConnections, noting, watch_state
from keyturn.process.freshness import FreshnessSettings
from keyturn.process.issuers import read_issuers
from keyturn.process.logging import STARTED, configure_logging, logger
from keyturn.process.metrics import Metrics
from keyturn.process.pinned import read_root
from keyturn.process.running import keep_running, run, settle
from keyturn.process.settings import (
    IssuerSettings,
    LogSettings,
    RedisSettings,
    Settings,
    TrustSettings,
    from_arguments,
)
from keyturn.process.statekeeping import export_keeping, keep_state
from keyturn.process.values import Listen
from keyturn.sidecar.charge import Charge, is_known, require_known
from keyturn.sidecar.description import Description
from keyturn.sidecar.gate import Gate
from keyturn.sidecar.health import Health
from keyturn.sidecar.latecomers import Latecomers
from keyturn.sidecar.listener import Listener
from keyturn.sidecar.lookups import Introspection, PublicKeys
from keyturn.sidecar.readings import export_answers, export_connections, export_issuers, export_replica
from keyturn.sidecar.routing import FORM, Route, Routes
from keyturn.sidecar.settings import DEFAULT_POLICY, SidecarSettings, read_policies
from keyturn.sidecar.sockets import open_at, remove
from keyturn.verifier.follower import Follower
from keyturn.verifier.issuers import IssuerKeys
from keyturn.verifier.keeping import Keeper
from keyturn.verifier.keysources import source_of
from keyturn.verifier.mirror import HttpSnapshots
from keyturn.verifier.replica import Replica
from keyturn.verifier.reporter import Reporter
from keyturn.verifier.verifier import TokenVerifier


class Store(Feed, PresenceBoard, Protocol):
    """Where the feed is read and presence is reported; RedisFeed and MemoryFeed are one."""


class Sidecar:
    """Follows the feed, reports its presence, and answers; every check is 503 until the replica can be trusted."""

    def __init__(self, store: Store, charge: Charge, clock: Clock, *, metrics: Metrics | None = None) -> None:
        self._store, self._charge, self._clock = store, charge, clock
        self._log = logger("sidecar")
        self.replica = Replica(issuer=charge.issuer, freshness=charge.freshness)
        self.follower = Follower(
            store, self.replica, clock, root=charge.root, allow_dev=charge.allow_dev, note=noting(self._log)
        )
        self.issuers = [IssuerKeys(one, source_of(one, clock), clock, note=noting(self._log)) for one in charge.issuers]
        self.verifier = TokenVerifier(self.replica, clock, issuers=self.issuers)
        self._reporter = Reporter(store, charge.identity, self.replica, clock, verifier=charge.verifier)
        self.follower.on_change.append(self._reporter.notice)
        self.latecomers = Latecomers(self.verifier, self.follower, self.issuers)
        self._gates = {
            (dialect.name, name): Gate(self.verifier, policy, dialect, self.latecomers)
            for dialect in charge.dialects
            for name, policy in charge.policies.items()
        }
        self.keeper: Keeper | None = None
        self._trouble: str | None = None
        metrics = Metrics(process="sidecar") if metrics is None else metrics
        self.health = Health(
            self.verifier, metrics, name=charge.verifier, trouble=lambda: self._trouble,
            known=lambda: is_known(self.replica.trust, charge), issuers=self.issuers,
        )  # fmt: skip
        self.listener = Listener(self._routes(), clock=clock)
        export_answers(metrics, self._gates, self.latecomers)
        export_issuers(metrics, self.issuers, clock)
        export_connections(metrics, self.listener)
        export_replica(metrics, self.verifier, self.follower)
        export_expiry(metrics, [self.replica])
        export_keeping(metrics, lambda: [self.keeper])

    @asynccontextmanager
    async def serving(self, listen: Listen) -> AsyncIterator[Listen]:
        """Serve for as long as the block lasts; gives the address. It listens at once.

        At the end it first stops to answer and then says goodbye, so that a receipt that no longer counts it in
        never meets an answer that it gave. Raises ConfigurationError for an address that cannot be had, and ends the
        block with one if the store's trust document is not for it.
        """
        clock = self._clock
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(keep_running("follower", self.follower.run, clock=clock)),
                group.create_task(keep_running("reporter", self._reporter.run, clock=clock)),
                group.create_task(self._check_trust()),
                group.create_task(watch_state(self.replica, clock, self._log)),
                group.create_task(watch_expiry(self.replica, clock, self._log)),
            ]
            if self.keeper is not None:
                tasks.append(group.create_task(self.keeper.run()))
            for keys in self.issuers:
                tasks.append(group.create_task(keep_running(f"issuer {keys.issuer.name}", keys.run, clock=clock)))
            opened: Listen | None = None
            try:
                opened = await open_at(self.listener, listen)
                yield opened
            finally:
                await self.listener.close()
                if opened is not None:  # Else the socket there is somebody else's.
                    remove(opened)
                for task in tasks:
                    task.cancel()

    def _routes(self) -> Routes:
        health, keys = self.health, PublicKeys(self.replica, self._clock)
        exact = {
            b"/healthz": Route(health.healthz),
            b"/readyz": Route(health.readyz),
            b"/state": Route(health.state),
            b"/metrics": Route(health.metrics),
            b"/jwks.json": Route(keys.answer),
        }
        default = self._charge.policies.get(DEFAULT_POLICY)
        if default is not None:
            exact[b"/introspect"] = Route(Introspection(self.verifier, default, self.latecomers).answer, FORM)
        prefixes = {}
        methods = {dialect.name: dialect for dialect in self._charge.dialects}
        for (name, policy), gate in self._gates.items():
            dialect, path = methods[name], f"/{name}/{policy}".encode("ascii")
            if dialect.appends_path:
                prefixes[path + b"/"] = Route(gate.answer, dialect.methods)
            else:
                exact[path] = Route(gate.answer, dialect.methods)
        exact[b"/openapi.json"] = Route(Description(exact, prefixes).answer)
        return Routes(exact, prefixes)

    async def _check_trust(self) -> None:
        """Raise ConfigurationError if the store's trust document is not for us; one that is in force is waited for."""

        def note(trouble: str | None) -> None:
            self._trouble = trouble

        require_known(await until_ours(self._store, self._charge.pinned, self._clock, trouble=note), self._charge)


async def serve_sidecar(
    settings: Settings, *, clock: Clock | None = None, ready: Callable[[Listen], None] | None = None
) -> None:
    """Run the sidecar that the settings describe until cancelled; `ready` hears where it listens.

    Raises ConfigurationError.
    """
    issuer, store = settings.section(IssuerSettings), settings.section(RedisSettings)
    trust, own = settings.section(TrustSettings), settings.section(SidecarSettings)
    issuers = read_issuers(settings, own=issuer.url)
    charge = Charge(
        issuer=issuer.url, root=read_root(trust.root), allow_dev=trust.allow_dev,
        freshness=settings.section(FreshnessSettings).freshness(), verifier=own.verifier,
        identity=own.identity_key(), policies=read_policies(settings, issuer.url, issuers), dialects=own.dialects,
        issuers=tuple(issuers.values()),
    )  # fmt: skip
    log = logger("sidecar")
    async with AsyncExitStack() as stack:
        clock = clock or SystemClock()
        connections = StoreConnections(stack, store, own.verifier, clock=clock)
        feed = connections.feed(connections.client(), at_replica=True)
        sidecar = Sidecar(feed, charge, clock)
        if (origin := settings.section(FeedSettings).snapshots) is not None:
            sidecar.follower.mirrors.append(HttpSnapshots(origin, clock, note=noting(log)))
        sidecar.keeper = keep_state(
            stack, settings, own.verifier, sidecar.follower, feed, pinned=charge.pinned, clock=clock, note=noting(log)
        )
        async with sidecar.serving(own.listen) as address:
            log.info(STARTED, listen=str(address), verifier=own.verifier, policies=sorted(charge.policies))
            if ready is not None:
                ready(address)
            await asyncio.Event().wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Run `keyturn sidecar [--config FILE]` until it is told to end; return the exit status."""

    async def serve() -> None:
        settings = from_arguments("keyturn sidecar", about="The verifier beside an API.", argv=argv)
        configure_logging(settings.section(LogSettings), process="sidecar")
        await serve_sidecar(settings, ready=lambda _address: settle())

    return run(serve, name="sidecar", loop_factory=uvloop.new_event_loop)
